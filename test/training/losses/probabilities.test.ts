/** Models that end in probabilities, however these are written: the loss is the one of their logits. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../../../src/commands/evaluate.js';
import type { LossName } from '../../../src/training/losses/index.js';
import { safetensors } from '../../data/data.js';
import { insertInto, randomNumbers } from '../../support/adapters.js';
import { temporaryFolder } from '../../support/files.js';
import { model, type NodeProto, node, tensor, value } from '../../support/models.js';
import { logOf, trainTiny } from '../tiny.js';

const files = temporaryFolder();
const [SAMPLES, LENGTH, CLASSES] = [6, 3, 4];
const opset13 = { keepdims: 1 };
const axes = tensor('last', [1], [-1], 'int64');

/** From x [batch, length, 6] over logits z to y, in opset 13. */
function modelOf(tail: readonly NodeProto[], shape: readonly (number | string)[]): Uint8Array {
  return model({
    opset: 13,
    nodes: [node('MatMul', ['x', 'w'], 'z', {}, 'layer'), ...tail],
    initializers: [
      ...[tensor('w', [6, CLASSES]), axes, tensor('one', [], [1]), tensor('half', [], [0.5])],
      ...[tensor('minus', [], [-1]), tensor('middle', [1], [2], 'int64')],
      tensor('flat', [2], [-1, CLASSES], 'int64'),
      tensor('rows', [3], [-1, LENGTH, CLASSES], 'int64'),
      tensor('column', [3], [-1, LENGTH, 1], 'int64'),
    ],
    inputs: [value('x', ['batch', LENGTH, 6])],
    outputs: [value('y', shape)],
  });
}

const isFast = { schedule: 'constant', lr: 0.1, steps: 3, shuffle: false } as const;

async function courseOf(bytes: Uint8Array, loss: LossName) {
  const path = files.write(await insertInto(bytes, { rank: 2, blocks: 1, targets: ['all'] }));
  const count = SAMPLES * LENGTH;
  const x = ['float32', [SAMPLES, LENGTH, 6], [...randomNumbers(1, count * 6)]] as const;
  const answers = [...randomNumbers(2, count * CLASSES)].map((z) => Number(z > 0));
  const labels =
    loss === 'bce'
      ? (['int64', [SAMPLES, LENGTH, CLASSES], answers] as const)
      : ([
          'int64',
          [SAMPLES, LENGTH],
          Array.from({ length: count }, (_, i) => (i * i) % 4),
        ] as const);
  const data = files.write(safetensors({ x, labels } as never), 'data.safetensors');
  const log = files.fresh('log.jsonl');
  const result = await trainTiny(files, { model: path, data }, { ...isFast, loss, log });
  const measured = await evaluate(path, { data, loss, provider: 'cpu', threads: 1 });
  return { records: logOf(log) as { loss: number; gradNorm: number }[], measured, result };
}

const plain = modelOf([node('Softmax', ['z'], 'y', { axis: -1 })], ['batch', LENGTH, CLASSES]);
const sum = node('ReduceSum', ['e', 'last'], 's', opset13);
const shifted = [
  node('ReduceMax', ['z'], 'most', { axes: [-1], keepdims: 1 }),
  node('Identity', ['most'], 'stopped'),
  node('Sub', ['z', 'stopped'], 'd'),
];

const softmaxes: Readonly<Record<string, readonly NodeProto[]>> = {
  'Exp / Sum': [node('Exp', ['z'], 'e'), sum, node('Div', ['e', 's'], 'y')],
  'Exp(z - max) / Sum': [...shifted, node('Exp', ['d'], 'e'), sum, node('Div', ['e', 's'], 'y')],
  'two Exp of one value': [
    node('Exp', ['z'], 'f'),
    ...[node('Exp', ['z'], 'e'), sum, node('Div', ['f', 's'], 'y')],
  ],
  'Exp · Reciprocal': [
    ...[node('Exp', ['z'], 'e'), sum, node('Reciprocal', ['s'], 'r')],
    node('Mul', ['r', 'e'], 'y'),
  ],
  'Exp · (1 / Sum)': [
    ...[node('Exp', ['z'], 'e'), sum, node('Div', ['one', 's'], 'r')],
    node('Mul', ['e', 'r'], 'y'),
  ],
  'a sum that lost its axis and got it back': [
    ...[
      ...shifted,
      node('Exp', ['d'], 'e'),
      node('ReduceSum', ['e', 'last'], 's0', { keepdims: 0 }),
    ],
    ...[node('Unsqueeze', ['s0', 'middle'], 's'), node('Div', ['e', 's'], 'y')],
  ],
  'one by Reshape and Expand': [
    ...[node('Exp', ['z'], 'e'), node('ReduceSum', ['e', 'last'], 's0', { keepdims: 0 })],
    ...[node('Reshape', ['s0', 'column'], 's1'), node('Shape', ['e'], 'size')],
    ...[node('Expand', ['s1', 'size'], 's'), node('Div', ['e', 's'], 'y')],
  ],
  'Exp(z - ReduceLogSumExp)': [
    node('ReduceLogSumExp', ['z'], 'l', { axes: [-1], keepdims: 1 }),
    ...[node('Sub', ['z', 'l'], 'p'), node('Exp', ['p'], 'y')],
  ],
  'Exp(LogSoftmax)': [node('LogSoftmax', ['z'], 'p', { axis: -1 }), node('Exp', ['p'], 'y')],
  'log-softmax in parts': [
    ...[...shifted, node('Exp', ['d'], 'e'), sum],
    ...[node('Log', ['s'], 'l'), node('Sub', ['d', 'l'], 'y')],
  ],
  'Exp(z - (max + log Sum))': [
    ...[...shifted, node('Exp', ['d'], 'e'), sum, node('Log', ['s'], 'l')],
    ...[node('Add', ['l', 'most'], 'lse'), node('Sub', ['z', 'lse'], 'p'), node('Exp', ['p'], 'y')],
  ],
  'Log(Softmax)': [node('Softmax', ['z'], 'p', { axis: -1 }), node('Log', ['p'], 'y')],
  'Softmax of rows, reshaped': [
    node('Reshape', ['z', 'flat'], 'f'),
    ...[node('Softmax', ['f'], 'p', { axis: 1 }), node('Reshape', ['p', 'rows'], 'y')],
  ],
  'Softmax over the middle axis, transposed': [
    node('Transpose', ['z'], 't', { perm: [0, 2, 1] }),
    ...[
      node('Softmax', ['t'], 'p', { axis: 1 }),
      node('Transpose', ['p'], 'y', { perm: [0, 2, 1] }),
    ],
  ],
  'parts with casts and names': [
    ...[node('Cast', ['z'], 'c', { to: 11 }), node('Exp', ['c'], 'e'), sum],
    ...[node('Div', ['e', 's'], 'q'), node('Cast', ['q'], 'p', { to: 1 })],
    node('Identity', ['p'], 'y'),
  ],
};

describe('a softmax in parts', () => {
  it.each(Object.entries(softmaxes))('%s', async (_, tail) => {
    const expected = await courseOf(plain, 'cross-entropy');
    const found = await courseOf(modelOf(tail, ['batch', LENGTH, CLASSES]), 'cross-entropy');
    for (const [i, { loss, gradNorm }] of expected.records.entries()) {
      expect(found.records[i]!.loss).toBeCloseTo(loss, 5);
      expect(found.records[i]!.gradNorm).toBeCloseTo(gradNorm, 5);
    }
    expect(found.measured.loss).toBeCloseTo(expected.measured.loss, 5);
    expect([found.measured.warnings, found.result.warnings]).toEqual([undefined, undefined]);
  });
});

const minus = [node('Neg', ['z'], 'n'), node('Exp', ['n'], 'e'), node('Add', ['one', 'e'], 'd')];
const sigmoids: Readonly<Record<string, readonly NodeProto[]>> = {
  '1 / (1 + Exp(-z))': [...minus, node('Div', ['one', 'd'], 'y')],
  'Reciprocal(1 + Exp(-z))': [...minus, node('Reciprocal', ['d'], 'y')],
  'with -1 · z': [
    node('Mul', ['z', 'minus'], 'n'),
    ...[node('Exp', ['n'], 'e'), node('Add', ['e', 'one'], 'd'), node('Reciprocal', ['d'], 'y')],
  ],
  'Exp / (1 + Exp)': [
    ...[node('Exp', ['z'], 'e'), node('Add', ['e', 'one'], 'd'), node('Div', ['e', 'd'], 'y')],
  ],
  'by Tanh': [
    ...[node('Mul', ['z', 'half'], 'h'), node('Tanh', ['h'], 't'), node('Add', ['t', 'one'], 'd')],
    node('Mul', ['half', 'd'], 'y'),
  ],
  'the operator, reshaped': [
    node('Reshape', ['z', 'flat'], 'f'),
    ...[node('Sigmoid', ['f'], 'p'), node('Reshape', ['p', 'rows'], 'y')],
  ],
};

describe('a sigmoid in parts', () => {
  const shape = ['batch', LENGTH, CLASSES];
  it.each(Object.entries(sigmoids))('%s', async (_, tail) => {
    const expected = await courseOf(modelOf([node('Sigmoid', ['z'], 'y')], shape), 'bce');
    const found = await courseOf(modelOf(tail, shape), 'bce');
    for (const [i, { loss, gradNorm }] of expected.records.entries()) {
      expect(found.records[i]!.loss).toBeCloseTo(loss, 5);
      expect(found.records[i]!.gradNorm).toBeCloseTo(gradNorm, 5);
    }
    expect(found.measured.loss).toBeCloseTo(expected.measured.loss, 5);
    expect([found.measured.warnings, found.result.warnings]).toEqual([undefined, undefined]);
  });
});

describe('probabilities of another origin', () => {
  it('that sum to 1 are told from logits, in training and evaluation', async () => {
    const squares = [...[node('Mul', ['z', 'z'], 'e'), sum, node('Div', ['e', 's'], 'y')]];
    const { measured, result } = await courseOf(
      modelOf(squares, ['batch', LENGTH, CLASSES]),
      'cross-entropy',
    );
    const warning = expect.stringMatching(/^the output y looks like probabilities \(all rows/);
    expect(measured.warnings).toEqual([warning]);
    expect(result.warnings).toEqual([warning]);
  });

  it('that lie in 0..1 are told from the logits of bce', async () => {
    const clipped = [node('Relu', ['z'], 'r'), node('Tanh', ['r'], 'y')];
    const { measured } = await courseOf(modelOf(clipped, ['batch', LENGTH, CLASSES]), 'bce');
    expect(measured.warnings).toEqual([expect.stringContaining('all of the first batch lies')]);
  });

  it('logits are not', async () => {
    const capped = [node('Tanh', ['z'], 't'), node('Mul', ['t', 'half'], 'y')];
    const { measured } = await courseOf(
      modelOf(capped, ['batch', LENGTH, CLASSES]),
      'cross-entropy',
    );
    expect(measured.warnings).toBeUndefined();
  });
});
