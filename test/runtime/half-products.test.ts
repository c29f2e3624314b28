/** 4-bit products in float16 on a CPU: their kernel for 8-bit activations gives other numbers. */
import { describe, expect, it } from 'vitest';
import { AdapterSession } from '../../src/adapters/slots/adapter-session.js';
import { evaluate } from '../../src/commands/evaluate.js';
import { resolveTrainOptions } from '../../src/commands/options/train.js';
import { patch } from '../../src/commands/patch.js';
import { runTraining } from '../../src/commands/train/run.js';
import { openSession } from '../../src/runtime/session.js';
import { tensorFromNumbers, tensorToFloat64 } from '../../src/runtime/tensor-value.js';
import { safetensors } from '../data/data.js';
import { randomNumbers } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { model, type NodeProto, node, type TensorProto, tensor, value } from '../support/models.js';
import { maxAbs, maxDifference } from '../support/run.js';

const files = temporaryFolder();
const levels = ['disabled', 'basic', 'extended', 'all'] as const;

const [ROWS, K, N, BLOCK] = [6, 64, 32, 32];
const quarters = (count: number, seed: number) =>
  randomNumbers(seed, count, 8).map((number) => Math.round(number) / 4);
const X = quarters(ROWS * K, 1);
/** 4-bit numbers [N, K] from -8 to 7, and a power of two for each block. */
const Q = randomNumbers(2, N * K, 8).map(Math.floor);
const SCALES = randomNumbers(3, (N * K) / BLOCK).map((number) => (number < 0 ? 2 ** -5 : 2 ** -4));

/** 4·X·Wᵀ of weights [N, K]. */
function product(weight: (n: number, k: number) => number): Float64Array {
  return Float64Array.from({ length: ROWS * N }, (_, i) => {
    const [row, n] = [Math.floor(i / N), i % N];
    let sum = 0;
    for (let k = 0; k < K; k++) sum += X[row * K + k]! * weight(n, k);
    return 4 * sum;
  });
}

/** A product between two operators that ONNX Runtime computes in float32. */
function between(nodes: readonly NodeProto[], initializers: readonly TensorProto[], opset = 17) {
  return model({
    opset,
    nodes: [node('Add', ['x', 'x'], 'd'), ...nodes, node('Add', ['p', 'p'], 'y')],
    initializers,
    inputs: [value('x', ['batch', K], 'float16')],
    outputs: [value('y', ['batch', N], 'float16')],
  });
}

const packed = Float64Array.from({ length: (N * K) / 2 }, (_, i) => {
  const [low, high] = [Q[2 * i]! + 8, Q[2 * i + 1]! + 8];
  return low + 16 * high;
});
const fourBit = between(
  [
    node(
      'com.microsoft:MatMulNBits',
      ['d', 'w', 's'],
      'p',
      { K, N, bits: 4, block_size: BLOCK, accuracy_level: 4 },
      'layer',
    ),
  ],
  [
    tensor('w', [N, K / BLOCK, BLOCK / 2], packed, 'uint8'),
    tensor('s', [(N * K) / BLOCK], SCALES, 'float16'),
  ],
);
const fourBitProduct = product((n, k) => Q[n * K + k]! * SCALES[Math.floor((n * K + k) / BLOCK)]!);

const eightBit = between(
  [
    node('DequantizeLinear', ['q', 'qs'], 'w', { axis: 1 }),
    node('MatMul', ['d', 'w'], 'p', {}, 'layer'),
  ],
  [
    tensor(
      'q',
      [K, N],
      Float64Array.from({ length: K * N }, (_, i) => Q[(i % N) * K + Math.floor(i / N)]!),
      'int8',
    ),
    tensor('qs', [N], SCALES.slice(0, N), 'float16'),
  ],
  21,
);
const eightBitProduct = product((n, k) => Q[n * K + k]! * SCALES[n]!);

const feeds = new Map([['x', tensorFromNumbers('float16', [ROWS, K], X)]]);

function expectWithinRounding(found: Float64Array, expected: Float64Array): void {
  expect(maxDifference(found, expected) / maxAbs(expected)).toBeLessThan(1e-3);
}

describe.each([
  ['MatMulNBits at accuracy level 4', fourBit, fourBitProduct],
  ['MatMul of a dequantized weight', eightBit, eightBitProduct],
])('a float16 %s', (_, bytes, expected) => {
  it.each(levels)('is the product with its weight at the level %s', async (optimization) => {
    const session = await openSession(bytes, { optimization });
    const y = (await session.run(feeds)).get('y')!;
    await session.release();
    expectWithinRounding(tensorToFloat64(y), expected);
  });
});

describe('a float16 MatMulNBits at accuracy level 4', () => {
  it.each(levels)('is right beside empty slots at the level %s', async (optimization) => {
    const { output } = await patch(files.write(fourBit), { slots: 'required' });
    const session = await AdapterSession.open(output, { optimization });
    const y = (await session.run(feeds)).get('y')!;
    await session.release();
    expectWithinRounding(tensorToFloat64(y), fourBitProduct);
  });

  it('is what eval measures and train starts from', async () => {
    const samples = safetensors({
      x: ['float16', [ROWS, K], [...X]],
      target: ['float32', [ROWS, N], [...fourBitProduct]],
    });
    const data = files.write(samples, 'data.safetensors');
    const path = files.write(fourBit);
    const options = { data, loss: 'mse', provider: 'cpu', batchSize: ROWS } as const;
    const least = (1e-3 * maxAbs(fourBitProduct)) ** 2;
    const measured = await evaluate(path, options);
    expect(measured.loss).toBeLessThan(least);
    expect(measured.guard?.passed).toBe(true);
    const { output: patched } = await patch(path, { rank: 2, blocks: 1 });
    const output = files.fresh();
    const run = await runTraining(patched, resolveTrainOptions({ ...options, steps: 1, output }));
    expect(run.loss!.first).toBeLessThan(least);
    expect(run.guard?.passed).toBe(true);
  });
});
