/** Rows without a label are left out before the logits of a vocabulary: the step is the same without them. */
import { describe, expect, it, test } from 'vitest';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import type { GraphBuilder } from '../../../src/graph/builder.js';
import { collect } from '../../../src/onnx/edit.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { openSession } from '../../../src/runtime/session.js';
import { tensorFromNumbers, tensorToFloat64 } from '../../../src/runtime/tensor-value.js';
import { buildForward } from '../../../src/training/forward.js';
import { guard } from '../../../src/training/guard/guard.js';
import type { Guarded } from '../../../src/training/guard/guarded.js';
import { buildStepGraph } from '../../../src/training/step-graph.js';
import { insertInto, trained } from '../../support/adapters.js';
import { failure } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { parse } from '../../support/wire.js';

const VOCABULARY = 1200;
const IGNORED = -100;

type Nodes = Parameters<typeof model>[0]['nodes'];

/** h = tanh(table[ids]·W1), then logits of h. */
function decoder(
  head: Nodes,
  more: readonly ReturnType<typeof value>[] = [],
  weights: readonly ReturnType<typeof tensor>[] = [],
): Uint8Array {
  return model({
    nodes: [
      node('Gather', ['table', 'input_ids'], 'tokens'),
      node('MatMul', ['tokens', 'w1'], 'mixed', {}, 'first'),
      node('Tanh', ['mixed'], 'h'),
      ...head,
    ],
    initializers: [
      ...[tensor('table', [VOCABULARY, 6]), tensor('w1', [6, 8]), tensor('w', [8, VOCABULARY])],
      ...[tensor('cap', [], [3]), tensor('bias', [VOCABULARY]), ...weights],
    ],
    inputs: [value('input_ids', ['batch', 'sequence'], 'int64')],
    outputs: [value('logits', ['batch', 'sequence', VOCABULARY]), ...more],
  });
}

const plain = [node('MatMul', ['h', 'w'], 'logits', {}, 'head')];
const capped = [
  node('MatMul', ['h', 'w'], 'product', {}, 'head'),
  node('Add', ['product', 'bias'], 'biased'),
  node('Div', ['biased', 'cap'], 'small'),
  node('Tanh', ['small'], 'bounded'),
  node('Mul', ['bounded', 'cap'], 'logits'),
];

interface Setup {
  readonly loss?: 'causal-lm' | 'cross-entropy';
  readonly rewrite?: boolean;
  readonly options?: Parameters<typeof buildForward>[2]['lossOptions'];
  /** What the data are said to have at most: logits of many rows are computed in parts. */
  readonly sizes?: readonly [batch: number, sequence: number];
}

const IN_THREE_PARTS = [64, 256] as const;
const IN_TEN_PARTS = [256, 256] as const;

const LABELS = [
  [IGNORED, 3, IGNORED, 1199, 7],
  [IGNORED, IGNORED, IGNORED, IGNORED, 0],
];

/** The step on one batch, with and without the rows that have no label. */
async function stepOf(bytes: Uint8Array, labels: number[][], only: boolean, setup: Setup) {
  const opened = parse(await insertInto(bytes, { rank: 2, blocks: 1, factors: trained }));
  const patched = new PatchedModel(opened);
  const reader = new TensorReader(opened, new ExternalFiles(opened));
  const { loss = 'causal-lm', rewrite = true, options, sizes = [2, 5] } = setup;
  const forward = await buildForward(patched, reader, {
    ...{ loss, modelOutput: 'logits', lossOptions: options, labelledRowsOnly: only },
    ...(rewrite ? { rewrite: { fused: true } } : {}),
    sizes: new Map([
      ['batch', sizes[0]],
      ['sequence', sizes[1]],
    ]),
  });
  const sgd = { optimizer: 'sgd', momentum: 0, weightDecay: 0, clip: 0 } as const;
  const unused = { betas: [0.9, 0.99], eps: 1e-8 } as const;
  const step = await buildStepGraph(forward, { ...sgd, ...unused, accumulate: 1, fused: true });
  const theta = new Float64Array(step.size);
  for (const { name, offset } of forward.parameters) {
    theta.set(reader.float32(patched.constant(name)), offset);
  }
  const ids = Float64Array.from({ length: 10 }, (_, i) => (i * 37) % VOCABULARY);
  const feeds = new Map([
    ['input_ids', tensorFromNumbers('int64', [2, 5], ids)],
    ['labels', tensorFromNumbers('int64', [2, 5], Float64Array.from(labels.flat()))],
    [forward.theta, tensorFromNumbers('float32', [step.size], theta)],
    ['lr', tensorFromNumbers('float32', [], Float64Array.of(1))],
  ]);
  return { forward, step, feeds, opened };
}

async function resultsOf({ step, feeds }: Awaited<ReturnType<typeof stepOf>>) {
  const session = await openSession(await collect(step.graph.modelPieces()), { threads: 1 });
  try {
    const found = await session.run(feeds);
    const numbers = (name: string) => [...tensorToFloat64(found.get(name)!)];
    const [loss] = numbers(step.loss);
    return { loss: loss!, theta: numbers(step.state[0]!.output) };
  } finally {
    await session.release();
  }
}

const skips = ({ step }: { step: { graph: { nodes: readonly { opType: string }[] } } }) =>
  step.graph.nodes.some(({ opType }) => opType === 'NonZero');

/** How often the softmax over the vocabulary stands in a step. */
const partsIn = ({ step }: { step: { graph: { nodes: readonly { opType: string }[] } } }) =>
  step.graph.nodes.filter(({ opType }) => opType === 'Softmax').length;

async function expectSame(bytes: Uint8Array, labels: number[][], setup: Setup, parts = 1) {
  const some = await stepOf(bytes, labels, true, setup);
  const all = await stepOf(bytes, labels, false, setup);
  expect([skips(some), skips(all)]).toEqual([true, false]);
  expect([partsIn(some), partsIn(all)]).toEqual([parts, 1]);
  const [found, expected] = [await resultsOf(some), await resultsOf(all)];
  expect(Math.abs(found.loss - expected.loss)).toBeLessThanOrEqual(1e-6 * expected.loss);
  const largest = Math.max(...expected.theta.map(Math.abs));
  const apart = found.theta.map((x, i) => Math.abs(x - expected.theta[i]!));
  expect(Math.max(...apart)).toBeLessThanOrEqual(1e-6 * largest);
}

const NONE = LABELS.map((row) => row.map(() => IGNORED));
const ALL = [
  [1, 2, 3, 4, 5],
  [6, 7, 8, 9, 10],
];
const WEIGHED = {
  labelSmoothing: 0.1,
  classWeights: Array.from({ length: VOCABULARY }, (_, i) => 1 + (i % 3)),
};

describe.each<[string, Setup, number]>([
  ['at once', {}, 1],
  ['in parts', { rewrite: false, sizes: IN_THREE_PARTS }, 3],
])('the step is the same, logits %s,', (_, setup, parts) => {
  it('where few rows have a label', () => expectSame(decoder(plain), LABELS, setup, parts));
  it('where all have one', () => expectSame(decoder(plain), ALL, setup, parts));
  it('where none has one', () => expectSame(decoder(plain), NONE, setup, parts));
  it('behind a bias and bounded logits', () => expectSame(decoder(capped), LABELS, setup, parts));
  it('with class weights and smoothing', () =>
    expectSame(decoder(plain), LABELS, { ...setup, options: WEIGHED }, parts));
  it('beside another output of all rows', () => {
    const hidden = node('Neg', ['h'], 'hidden');
    const shown = value('hidden', ['batch', 'sequence', 8]);
    return expectSame(decoder([...plain, hidden], [shown]), LABELS, setup, parts);
  });
  it('beside an output on the way to the logits', () => {
    const shown = value('biased', ['batch', 'sequence', VOCABULARY]);
    return expectSame(decoder(capped, [shown]), LABELS, setup, parts);
  });
  it('for classes of each token', () =>
    expectSame(decoder(plain), LABELS, { ...setup, loss: 'cross-entropy' }, parts));
});

it('with adapters in their own form', () =>
  expectSame(decoder(capped), LABELS, { rewrite: false }));

describe('with layers in the form that trains fastest, logits', () => {
  it('that are few are computed at once', () =>
    expectSame(decoder(capped), LABELS, { sizes: IN_THREE_PARTS }, 1));
  it('that are many are computed in parts, their layer in its own form', () =>
    expectSame(decoder(capped), LABELS, { sizes: IN_TEN_PARTS }, 10));
});

test('all rows stay where a node puts them together', async () => {
  const product = node('MatMul', ['h', 'w'], 'product', {}, 'head');
  const axis = node('Constant', [], 'axis', { value_int: 1 });
  const sums = node('CumSum', ['product', 'axis'], 'logits');
  expect(skips(await stepOf(decoder([product, axis, sums]), LABELS, true, {}))).toBe(false);
});

describe('the guard', () => {
  const guarded = async (plant: (graph: GraphBuilder) => void = () => {}, setup: Setup = {}) => {
    const { forward, step, feeds, opened } = await stepOf(decoder(plain), LABELS, true, setup);
    plant(step.graph);
    const parts: Guarded = {
      graphs: [step.graph, forward.whole],
      ...{ model: opened, output: 'logits', feeds },
      ...{ rows: forward.rows?.index, moved: forward.moved, theta: forward.theta },
    };
    return guard(parts, { provider: 'cpu', threads: 1 });
  };

  it('compares the rows that are there', async () => {
    expect(await guarded()).toMatchObject({ passed: true });
  });

  it('compares them part by part', async () => {
    const inParts = { rewrite: false, sizes: IN_THREE_PARTS };
    expect(await guarded(undefined, inParts)).toMatchObject({ passed: true });
  });

  it('sees that they are others', async () => {
    const shifted = guarded(({ nodes }) => {
      const at = nodes.findIndex(({ outputs }) => outputs[0] === 'h');
      const [rows, ...axes] = nodes[at]!.inputs;
      const negated = { name: 'negated', opType: 'Neg', inputs: [rows!], outputs: ['negated'] };
      nodes.splice(at, 1, negated, { ...nodes[at]!, inputs: ['negated', ...axes] });
    });
    await failure(() => shifted, 'verification');
  });
});

test('all rows stay where a constant has rows of its own', async () => {
  const product = node('MatMul', ['h', 'w'], 'product', {}, 'head');
  const places = node('Add', ['product', 'places'], 'logits');
  const bytes = decoder([product, places], [], [tensor('places', [1, 5, VOCABULARY])]);
  expect(skips(await stepOf(bytes, LABELS, true, {}))).toBe(false);
});
