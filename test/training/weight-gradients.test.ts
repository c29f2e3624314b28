/** Gradients of whole weights against closed forms in float64, and against those of adapters. */
import { describe, expect, it } from 'vitest';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { chooseLayers } from '../../src/commands/chosen-layers.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import type { GradientOptions } from '../../src/training/gradient-options.js';
import { type WeightGradient, weightGradients } from '../../src/training/weight-gradients.js';
import { safetensors } from '../data/data.js';
import { randomNumbers } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { body, model, node, pattern, tensor, value } from '../support/models.js';

const folder = temporaryFolder();

/** What the generator gives, by module. */
async function gradientsOf(bytes: Uint8Array, options: GradientOptions) {
  const opened = openModel(folder.write(bytes));
  const files = new ExternalFiles(opened);
  try {
    const patched = new PatchedModel(opened);
    const { layers } = chooseLayers(patched, {});
    const results = new Map<string, WeightGradient | string>();
    const reader = new TensorReader(opened, files);
    const cpu = { provider: 'cpu', threads: 1, ...options } as const;
    for await (const result of weightGradients(patched, reader, layers, cpu)) {
      results.set(result.layer.module, 'refusal' in result ? result.refusal : result);
    }
    return results;
  } finally {
    files.close();
    opened.close();
  }
}

/** `y = tanh(x·W1)·W2` */
const twoLayers = model({
  nodes: [
    node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
    node('Tanh', ['h'], 't'),
    node('MatMul', ['t', 'w2'], 'y', {}, 'second'),
  ],
  initializers: [tensor('w1', [6, 8]), tensor('w2', [8, 4])],
  inputs: [value('x', ['batch', 6])],
  outputs: [value('y', ['batch', 4])],
});

const SAMPLES = 22;
const x = [...Float32Array.from(randomNumbers(1, SAMPLES * 6))];
const target = [...Float32Array.from(randomNumbers(2, SAMPLES * 4))];
const data = (file = { x, target }) =>
  folder.write(
    safetensors({
      x: ['float32', [file.x.length / 6, 6], file.x],
      target: ['float32', [file.target.length / 4, 4], file.target],
    }),
    'data.safetensors',
  );

/** Both gradients of the mean squared error of `twoLayers`, by hand. */
function byHand() {
  const [w1, w2] = [pattern(48), pattern(32)];
  const dw1 = new Float64Array(48);
  const dw2 = new Float64Array(32);
  for (let s = 0; s < SAMPLES; s++) {
    const row = x.slice(s * 6, s * 6 + 6);
    const t = Array.from({ length: 8 }, (_, j) =>
      Math.tanh(row.reduce((sum, value, i) => sum + value * w1[i * 8 + j]!, 0)),
    );
    const dy = Array.from({ length: 4 }, (_, k) => {
      const y = t.reduce((sum, value, j) => sum + value * w2[j * 4 + k]!, 0);
      return (2 * (y - target[s * 4 + k]!)) / (SAMPLES * 4);
    });
    for (let j = 0; j < 8; j++) {
      const dt = dy.reduce((sum, value, k) => sum + value * w2[j * 4 + k]!, 0);
      for (let k = 0; k < 4; k++) dw2[j * 4 + k]! += t[j]! * dy[k]!;
      for (let i = 0; i < 6; i++) dw1[i * 8 + j]! += row[i]! * dt * (1 - t[j]! ** 2);
    }
  }
  return { dw1, dw2 };
}

function expectClose(found: ArrayLike<number>, expected: ArrayLike<number>, relative = 1e-5) {
  const largest = Math.max(...Array.from(expected, Math.abs));
  const differences = Array.from(expected, (value, i) => Math.abs(value - found[i]!));
  expect(found.length).toBe(expected.length);
  expect(Math.max(...differences)).toBeLessThan(relative * largest);
}

describe('the gradients of weights', () => {
  const all = { loss: 'mse', batchSize: 2, batches: 11 } as const;

  it('are those of the mean loss over all samples', async () => {
    const found = await gradientsOf(twoLayers, { data: data(), ...all });
    const { dw1, dw2 } = byHand();
    expectClose((found.get('first') as WeightGradient).values, dw1);
    expectClose((found.get('second') as WeightGradient).values, dw2);
  });

  it('are the mean of their halves, where these have as many samples', async () => {
    const found = await gradientsOf(twoLayers, { data: data(), ...all, batches: 10 });
    const { values, halves } = found.get('first') as WeightGradient;
    const mean = values.map((_, i) => (halves![0][i]! + halves![1][i]!) / 2);
    expectClose(values, mean, 1e-12);
    expect(halves![0]).not.toEqual(halves![1]);
  });

  it('do not depend on how many layers fit the memory at a time', async () => {
    const file = data();
    const together = await gradientsOf(twoLayers, { data: file, ...all });
    const apart = await gradientsOf(twoLayers, { data: file, ...all, memory: 1 });
    for (const [module, gradient] of together) {
      expectClose(
        (apart.get(module) as WeightGradient).values,
        (gradient as WeightGradient).values,
        1e-6,
      );
    }
  });

  it('of a weight that two nodes use are the sum over both', async () => {
    // y = (x·W)·W: dW = xᵀ·(dy·Wᵀ) + (x·W)ᵀ·dy
    const shared = model({
      nodes: [node('MatMul', ['x', 'w'], 'h', {}, 'a'), node('MatMul', ['h', 'w'], 'y', {}, 'b')],
      initializers: [tensor('w', [2, 2], [1, 2, 3, 4])],
      inputs: [value('x', ['batch', 2])],
      outputs: [value('y', ['batch', 2])],
    });
    const one = folder.write(
      safetensors({ x: ['float32', [1, 2], [1, 0]], target: ['float32', [1, 2], [6, 8]] }),
      'data.safetensors',
    );
    // h = [1, 2], y = [7, 10], dy = [1, 2], dy·Wᵀ = [5, 11]
    const found = await gradientsOf(shared, { data: one, loss: 'mse' });
    expect([...(found.get('a') as WeightGradient).values]).toEqual([5 + 1, 11 + 2, 2, 4]);
    expect((found.get('a') as WeightGradient).halves).toBeUndefined();
  });

  it('are refused, with the reason, where the loss does not see a layer or a loop holds it', async () => {
    const hidden = model({
      nodes: [
        node('MatMul', ['x', 'w'], 'y', {}, 'seen'),
        node('MatMul', ['x', 'v'], 'z', {}, 'unseen'),
        node('ReduceMax', ['x'], 'most', { keepdims: 0 }),
        node('Greater', ['most', 'zero'], 'flag'),
        node('If', ['flag'], 'i', {
          then_branch: {
            graph: body({ nodes: [node('MatMul', ['x', 'u'], 'p', {}, 'inside')], outputs: ['p'] }),
          },
          else_branch: { graph: body({ nodes: [node('Identity', ['x'], 'q')], outputs: ['q'] }) },
        }),
      ],
      initializers: [
        ...['w', 'v', 'u'].map((name) => tensor(name, [6, 6])),
        tensor('zero', [], [0]),
      ],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 6]), value('z', ['batch', 6]), value('i', ['batch', 6])],
    });
    const samples = folder.write(
      safetensors({
        x: ['float32', [4, 6], 1],
        target: ['float32', [4, 6], 0],
      }),
      'data.safetensors',
    );
    const options = { data: samples, loss: 'mse', modelOutput: 'y' } as const;
    const found = await gradientsOf(hidden, options);
    expect(found.get('unseen')).toBe('the loss does not depend on it');
    expect(found.get('inside')).toMatch(/body of an If, Loop or Scan/);
    expect((found.get('seen') as WeightGradient).values).toHaveLength(36);
  });

  it('of branches with a constant condition are found by the node, whatever names they share', async () => {
    const branch = (weight: string, x: string, label: string, name: string) => ({
      graph: body({
        nodes: [node('MatMul', [x, weight], 'p', {}, label), node('Tanh', ['p'], name)],
        outputs: [name],
      }),
    });
    const branches = model({
      nodes: [
        node('If', ['yes'], 'h', {
          then_branch: branch('w1', 'x', 'first', 'r'),
          else_branch: branch('v1', 'x', 'never', 'r'),
        }),
        node('If', ['yes'], 'y', {
          then_branch: {
            graph: body({
              nodes: [node('MatMul', ['h', 'w2'], 'p', {}, 'second')],
              outputs: ['p'],
            }),
          },
          else_branch: branch('v2', 'h', 'neither', 'r'),
        }),
      ],
      initializers: [
        ...['w1', 'v1'].map((name) => tensor(name, [6, 8])),
        ...['w2', 'v2'].map((name) => tensor(name, [8, 4])),
        tensor('yes', [], [1], 'bool'),
      ],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
    });
    const found = await gradientsOf(branches, { data: data(), ...all });
    const { dw1, dw2 } = byHand();
    expectClose((found.get('first') as WeightGradient).values, dw1);
    expectClose((found.get('second') as WeightGradient).values, dw2);
    expect(found.get('never')).toBe('the loss does not depend on it');
    expect(found.get('neither')).toBe('the loss does not depend on it');
  });

  it('that are not finite are an error that names layer and batch', async () => {
    const infinite = model({
      nodes: [node('MatMul', ['x', 'w'], 'h', {}, 'first'), node('Sqrt', ['h'], 'y')],
      initializers: [tensor('w', [6, 4], new Float64Array(24))],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
    });
    const run = () => gradientsOf(infinite, { data: data(), loss: 'mse' });
    const error = await failure(run, 'invalid-data');
    expect(error.message).toMatch(/gradient of first is not finite in batch 0/);
  });
});
