/** Faults planted in the graph that trains, which the guard has to find at the node where they are. */
import { describe, expect, it } from 'vitest';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import type { GraphBuilder } from '../../../src/graph/builder.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { buildForward } from '../../../src/training/forward.js';
import { type GuardReport, guard } from '../../../src/training/guard/guard.js';
import { buildStepGraph } from '../../../src/training/step-graph.js';
import { insertInto, randomNumbers, trained } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { parse } from '../../support/wire.js';
import { tinyRun, trainTiny } from '../tiny.js';

const files = temporaryFolder();
const HIDDEN = Number.NEGATIVE_INFINITY;

/** Two layers with what is between them in models: a cut, a mask, a softmax. */
const base = model({
  nodes: [
    node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
    node('Add', ['h', 'b1'], 'hb', {}, 'bias'),
    node('Slice', ['hb', 'starts', 'ends', 'axes'], 's', {}, 'cut'),
    node('Add', ['s', 'mask'], 'masked_s', {}, 'masked'),
    node('Softmax', ['masked_s'], 'p', { axis: -1 }, 'softmax'),
    node('MatMul', ['p', 'w2'], 'y', {}, 'second'),
  ],
  initializers: [
    tensor('w1', [6, 8]),
    tensor('b1', [8]),
    tensor('w2', [6, 4]),
    tensor('starts', [1], [2], 'int64'),
    tensor('ends', [1], [1000], 'int64'),
    tensor('axes', [1], [1], 'int64'),
    tensor('mask', [6], [0, 0, HIDDEN, 0, HIDDEN, 0]),
  ],
  inputs: [value('x', ['batch', 6])],
  outputs: [value('y', ['batch', 4])],
});

interface Setup {
  readonly bytes?: Uint8Array;
  readonly dropout?: number;
  /** Changes the graph of the step. */
  readonly plant?: (graph: GraphBuilder) => void;
}

/** The guard on a step of the model with adapters that have an effect. */
async function guarded({ bytes = base, dropout = 0, plant }: Setup): Promise<GuardReport> {
  const opened = parse(await insertInto(bytes, { rank: 2, blocks: 1, factors: trained }));
  const reader = new TensorReader(opened, new ExternalFiles(opened));
  const patched = new PatchedModel(opened);
  const sizes = new Map([['batch', 5]]);
  const how = { loss: 'mse', rewrite: { fused: true }, dropout, sizes } as const;
  const forward = await buildForward(patched, reader, how);
  const optimizer = { optimizer: 'sgd', momentum: 0, weightDecay: 0, clip: 0 } as const;
  const unused = { betas: [0.9, 0.99], eps: 1e-8 } as const;
  const step = await buildStepGraph(forward, {
    ...{ ...optimizer, ...unused, accumulate: 1, fused: true },
  });
  plant?.(step.graph);
  const theta = new Float32Array(step.size);
  for (const { name, offset } of forward.parameters) {
    theta.set(reader.float32(patched.constant(name)), offset);
  }
  const feeds = new Map<string, TensorValue>([
    ['x', float32([5, 6], randomNumbers(1, 30))],
    ['theta', float32([step.size], theta)],
  ]);
  const { whole, output, moved, dropped: read } = forward;
  return guard(
    {
      ...{ model: opened, graphs: [step.graph, whole], output: output.name, moved, read, feeds },
      theta: forward.theta,
    },
    { provider: 'cpu', threads: 1 },
  );
}

function float32(dims: readonly number[], values: ArrayLike<number>): TensorValue {
  return { dtype: 'float32', dims, data: Float32Array.from(values) };
}

/** Gives a constant of the graph other numbers. */
function replaceConstant(name: string, data: Float32Array | BigInt64Array) {
  return (graph: GraphBuilder) => {
    const known = graph.initializers.get(name)!;
    graph.initializers.set(name, { ...known, data: new Uint8Array(data.buffer) });
  };
}

/** Lets a node compute something else. */
function replaceNode(output: RegExp, change: { opType: string; inputs?: readonly string[] }) {
  return (graph: GraphBuilder) => {
    const at = graph.nodes.findIndex(({ outputs }) => output.test(outputs[0]!));
    const { attributes: _, domain: __, ...old } = graph.nodes[at]!;
    const inputs = change.inputs ?? old.inputs.slice(0, 1);
    graph.nodes[at] = { ...old, ...change, inputs };
  };
}

describe('the guard', () => {
  it('takes rounding for what it is', async () => {
    const { maxRelDiff, tolerance, passed, seconds } = await guarded({});
    expect({ tolerance, passed }).toEqual({ tolerance: 1e-4, passed: true });
    expect(maxRelDiff).toBeLessThan(1e-6);
    expect(seconds).toBeGreaterThan(0);
  });

  it('compares without dropout', async () => {
    const { maxRelDiff, passed } = await guarded({ dropout: 0.5 });
    expect(passed).toBe(true);
    expect(maxRelDiff).toBeLessThan(1e-6);
  });

  it.each([
    [
      'another end of a slice',
      replaceConstant('ends', BigInt64Array.of(3n)),
      ['cut', 's, of cut (Slice): expected the shape [5, 6], found [5, 1]'],
    ],
    [
      'another mask',
      replaceConstant('mask', Float32Array.of(0, 0, 0, HIDDEN, HIDDEN, 0)),
      ['masked', 'masked_s, of masked (Add): expected -Infinity at [0, 2], found '],
    ],
    [
      'another operator',
      replaceNode(/^p$/, { opType: 'LogSoftmax' }),
      ['softmax', 'p, of softmax (Softmax): expected '],
    ],
    [
      'a layer without its adapter',
      replaceNode(/\/weight$/, { opType: 'Identity', inputs: ['w1'] }),
      ['lora/default/first/add', 'hb, of lora/default/first/add (Add): expected '],
    ],
  ] as const)('finds %s', async (_, plant, [name, message]) => {
    const error = await failure(() => guarded({ plant }), 'verification');
    expect(error.node).toBe(name);
    expect(error.message).toContain(`the first value that differs is ${message}`);
    expect(error.message).toMatch(/ y differs by \S+ of its greatest number, tolerance 0\.0001; /);
    expect(error.hint).toContain('`guard: false`');
  });

  it('names the call of a function, and what became of an old operator', async () => {
    const old = model({
      opset: 12,
      nodes: [
        node('MatMul', ['x', 'w'], 'h', {}, 'first'),
        node('Softmax', ['h'], 'p', { axis: 1 }, 'old'),
        node('test:Twice', ['p'], 'y', {}, 'call'),
      ],
      initializers: [tensor('w', [6, 4])],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
      functions: [
        {
          name: 'Twice',
          domain: 'test',
          input: ['a'],
          output: ['b'],
          node: [node('Add', ['a', 'a'], 'c'), node('Neg', ['c'], 'b')],
          opsetImport: [{ domain: '', version: 12 }],
        },
      ],
    });
    expect((await guarded({ bytes: old })).passed).toBe(true);
    const nodeOf = async (output: RegExp, opType: string) => {
      const plant = replaceNode(output, { opType });
      return (await failure(() => guarded({ bytes: old, plant }), 'verification')).node;
    };
    expect(await nodeOf(/^call\/c$/, 'Exp')).toBe('call');
    expect(await nodeOf(/^p$/, 'Exp')).toBe('old');
  });

  it('sees a difference beside numbers that stand for -∞', async () => {
    const hiding = model({
      nodes: [
        node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
        node('Where', ['is_hidden', 'least', 'h'], 'y'),
      ],
      initializers: [
        tensor('w1', [6, 4]),
        tensor('is_hidden', [4], [0, 1, 0, 0], 'bool'),
        tensor('least', [], [-1e9]),
      ],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
    });
    expect((await guarded({ bytes: hiding })).passed).toBe(true);
    const plant = replaceNode(/\/weight$/, { opType: 'Identity', inputs: ['w1'] });
    const { message } = await failure(() => guarded({ bytes: hiding, plant }), 'verification');
    expect(message).toContain('the first value that differs is h, of ');
  });

  it('cannot judge a file that gives no finite number', async () => {
    const nothing = model({
      nodes: [
        node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
        node('Abs', ['h'], 'size'),
        node('Neg', ['size'], 'negative'),
        node('Log', ['negative'], 'y'),
      ],
      initializers: [tensor('w1', [6, 4])],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
    });
    const { passed, reason } = await guarded({ bytes: nothing });
    expect([passed, reason]).toEqual([null, 'the file gives no finite number for y']);
  });

  it('cannot judge a file that draws random numbers', async () => {
    const random = model({
      nodes: [
        node('RandomNormalLike', ['x'], 'drawn'),
        node('Add', ['x', 'drawn'], 'moved'),
        node('MatMul', ['moved', 'w'], 'y', {}, 'first'),
      ],
      initializers: [tensor('w', [6, 4])],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
    });
    const { seconds: _, ...report } = await guarded({ bytes: random });
    const reason = 'two runs of the file itself differ: it draws random numbers';
    expect(report).toEqual({ maxRelDiff: null, tolerance: 1e-4, passed: null, reason });
  });
});

describe('the guard of a run', () => {
  it('stands in its result, and may be left out', async () => {
    const run = await tinyRun(files);
    const { guard: report } = await trainTiny(files, run, { steps: 1 });
    expect(report).toMatchObject({ tolerance: 1e-4, passed: true });
    expect(await trainTiny(files, run, { steps: 1, guard: false })).not.toHaveProperty('guard');
  });

  it('of a resumed one compares what the file holds', async () => {
    const run = await tinyRun(files);
    const checkpoint = files.fresh('checkpoint');
    const options = { epochs: 1, lr: 1, checkpoint } as const;
    await trainTiny(files, run, options);
    const { guard: report } = await trainTiny(files, run, { ...options, resume: true });
    expect(report?.passed).toBe(true);
  });
});
