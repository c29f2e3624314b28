/** Optimizers as graphs against the formulas of their papers and of torch.optim, in float64. */
import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../../src/graph/builder.js';
import { collect } from '../../../src/onnx/edit.js';
import { openSession } from '../../../src/runtime/session.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { clipped, normOf } from '../../../src/training/clip.js';
import {
  type Hyperparameters,
  momentsOf,
  type OptimizerName,
  optimizerUpdates,
  stepScalars,
} from '../../../src/training/optimizers/index.js';
import { randomNumbers } from '../../support/adapters.js';

const SIZE = 37;
const STEPS = 6;

interface Options extends Hyperparameters {
  readonly optimizer: OptimizerName;
  readonly clip: number;
}

const defaults: Options = {
  ...{ optimizer: 'adamw', betas: [0.9, 0.999], eps: 1e-8 },
  ...{ weightDecay: 0.1, momentum: 0.9, clip: 1 },
};

interface State {
  readonly theta: Float64Array;
  readonly m: Float64Array;
  readonly v: Float64Array;
}

/** One update as the formulas have it. */
function reference(o: Options, { theta, m, v }: State, raw: Float64Array, lr: number, t: number) {
  const norm = Math.sqrt(raw.reduce((sum, x) => sum + x * x, 0));
  const g = o.clip === 0 ? raw : raw.map((x) => x * Math.min(1, o.clip / (norm + 1e-6)));
  const [b1, b2] = o.betas;
  for (let i = 0; i < SIZE; i++) {
    if (o.optimizer === 'lion') {
      const sign = Math.sign(b1 * m[i]! + (1 - b1) * g[i]!);
      theta[i] = theta[i]! * (1 - lr * o.weightDecay) - lr * sign;
      m[i] = b2 * m[i]! + (1 - b2) * g[i]!;
    } else if (o.optimizer === 'sgd') {
      m[i] = o.momentum * m[i]! + g[i]! + o.weightDecay * theta[i]!;
      theta[i]! -= lr * m[i]!;
    } else {
      m[i] = b1 * m[i]! + (1 - b1) * g[i]!;
      v[i] = b2 * v[i]! + (1 - b2) * g[i]! ** 2;
      const step = m[i]! / (1 - b1 ** t) / (Math.sqrt(v[i]! / (1 - b2 ** t)) + o.eps);
      theta[i] = theta[i]! * (1 - lr * o.weightDecay) - lr * step;
    }
  }
  return norm;
}

async function openOptimizer(options: Options) {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  const names = ['theta', ...momentsOf(options), 'g'];
  const all = [...names, ...Object.keys(stepScalars(options, 0, 1))];
  for (const name of all) {
    graph.reserve(name);
    graph.inputs.push({ name, dtype: 'float32', shape: names.includes(name) ? [SIZE] : [] });
  }
  const norm = normOf(graph, 'g');
  const inputs = Object.fromEntries(all.map((name) => [name, name]));
  const g = clipped(graph, 'g', norm, options.clip);
  const updates = optimizerUpdates(graph, g, inputs, options);
  for (const name of [norm, ...updates.map(({ output }) => output)]) {
    graph.outputs.push({ name, dtype: 'float32', shape: null });
  }
  return { session: await openSession(await collect(graph.modelPieces())), updates, norm };
}

const vector = (values: Float64Array) =>
  ({ dtype: 'float32', dims: [SIZE], data: Float32Array.from(values) }) as const;
const scalar = (value: number) =>
  ({ dtype: 'float32', dims: [], data: Float32Array.of(value) }) as const;

describe('an optimizer', () => {
  it.each<[string, Partial<Options>]>([
    ['AdamW', {}],
    ['AdamW without decay, clipping never', { weightDecay: 0, clip: 0 }],
    ['AdamW with a large eps and other betas', { eps: 0.1, betas: [0.5, 0.7], clip: 0.01 }],
    ['AdamW without memory', { betas: [0, 0] }],
    ['SGD', { optimizer: 'sgd' }],
    ['SGD without momentum and decay', { optimizer: 'sgd', momentum: 0, weightDecay: 0, clip: 0 }],
    ['Lion', { optimizer: 'lion', betas: [0.9, 0.99] }],
    [
      'Lion without decay, of other betas',
      { optimizer: 'lion', betas: [0.5, 0.8], weightDecay: 0 },
    ],
    ['SGD with a limit that is never reached', { optimizer: 'sgd', clip: 1e6 }],
  ])('%s follows its formula', async (_, given) => {
    const options = { ...defaults, ...given };
    const { session, updates, norm } = await openOptimizer(options);
    const expected = {
      theta: randomNumbers(1, SIZE),
      m: new Float64Array(SIZE),
      v: new Float64Array(SIZE),
    };
    const state = new Map(
      updates.map(({ input }) => [input, vector(expected[input as keyof State])]),
    );
    for (let t = 1; t <= STEPS; t++) {
      const g = randomNumbers(10 + t, SIZE, t % 2 ? 3 : 0.01);
      const lr = 0.05 / t;
      const scalars = Object.entries(stepScalars(options, lr, t));
      const feeds = scalars.map(([name, value]) => [name, scalar(value)] as const);
      const results = await session.run(
        new Map<string, TensorValue>([...state, ...feeds, ['g', vector(g)]]),
      );
      const expectedNorm = reference(options, expected, g, lr, t);
      expect(Number(results.get(norm)!.data[0]) / expectedNorm).toBeCloseTo(1, 5);
      for (const { input, output } of updates) {
        const data = Float64Array.from(results.get(output)!.data as Float32Array);
        for (const [i, value] of expected[input as keyof State].entries()) {
          expect(Math.abs(data[i]! - value), `${input}[${i}] at step ${t}`).toBeLessThan(
            2e-6 * Math.max(1, Math.abs(value)),
          );
        }
        state.set(input, vector(data));
      }
    }
    await session.release();
  });
});
