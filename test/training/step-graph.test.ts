/** Whole steps of a small model, run one by one. */
import { describe, expect, it } from 'vitest';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { collect } from '../../src/onnx/edit.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { openStatefulSession, type StatefulSession } from '../../src/runtime/stateful-session.js';
import type { TensorValue } from '../../src/runtime/tensor-value.js';
import { buildForward } from '../../src/training/forward.js';
import { type OptimizerName, stepScalars } from '../../src/training/optimizers/index.js';
import { buildStepGraph } from '../../src/training/step-graph.js';
import { insertInto, randomNumbers, trained } from '../support/adapters.js';
import { parse } from '../support/wire.js';
import { tinyModel } from './tiny.js';

interface Stepper {
  readonly session: StatefulSession;
  readonly size: number;
  /** Runs a batch; gives loss and norm. */
  step(samples: readonly number[], t: number, apply?: boolean): Promise<[number, number]>;
}

/** A session with the step of the tiny model, at random adapters. */
async function openStep(
  optimizer: OptimizerName,
  accumulate: number,
  fused = true,
): Promise<Stepper> {
  const options = { rank: 4, blocks: 2, hybrid: 1, targets: ['all'], factors: trained };
  const model = parse(await insertInto(tinyModel(), options));
  const reader = new TensorReader(model, new ExternalFiles(model));
  const patched = new PatchedModel(model);
  const forward = await buildForward(patched, reader, { loss: 'mse', rewrite: { fused } });
  const how = {
    optimizer,
    betas: [0.9, 0.99],
    eps: 1e-3,
    weightDecay: 0.1,
    momentum: 0.9,
    clip: 0.5,
  } as const;
  const { graph, state, size, loss, gradientNorm, weight } = await buildStepGraph(forward, {
    ...how,
    accumulate,
    fused,
  });
  const theta = new Float32Array(size);
  for (const { name, offset } of forward.parameters) {
    theta.set(reader.float32(patched.initializer(name)), offset);
  }
  const vector = (data: Float32Array) => ({ dtype: 'float32', dims: [size], data }) as const;
  const initial = new Map(
    state.map(({ input }) => [input, vector(input === 'theta' ? theta : new Float32Array(size))]),
  );
  const bytes = await collect(graph.modelPieces());
  let before = 0;
  const session = await openStatefulSession(bytes, { state, initial });
  return {
    session,
    size,
    step: async (samples, t, apply = true) => {
      const scalars = Object.entries(stepScalars(how, 0.1, t));
      const outputs = await session.run(
        new Map<string, TensorValue>([
          ['x', rowsOf(1, samples, 6)],
          ['target', rowsOf(2, samples, 4)],
          ...scalars.map(([name, value]) => [name, scalar(value)] as const),
          ['accumulated_weight', scalar(before)],
          ['apply', { dtype: 'bool', dims: [], data: Uint8Array.of(Number(apply)) }],
        ]),
      );
      before = apply ? 0 : before + Number(outputs.get(weight)!.data[0]);
      return [Number(outputs.get(loss)!.data[0]), Number(outputs.get(gradientNorm)!.data[0])];
    },
  };
}

/** Samples by their numbers. */
function rowsOf(seed: number, samples: readonly number[], width: number): TensorValue {
  const data = samples.flatMap((sample) => [...randomNumbers(seed * 100 + sample, width)]);
  return { dtype: 'float32', dims: [samples.length, width], data: Float32Array.from(data) };
}

function scalar(value: number): TensorValue {
  return { dtype: 'float32', dims: [], data: Float32Array.of(value) };
}

async function vectorOf({ session }: Stepper, name: string): Promise<Float64Array> {
  return Float64Array.from((await session.readState()).get(name)!.data as Float32Array);
}

function distance(a: Float64Array, b: Float64Array): number {
  const length = (values: Float64Array) => Math.hypot(...values);
  return length(a.map((value, i) => value - b[i]!)) / length(b);
}

describe('accumulated batches', () => {
  it.each<[OptimizerName, number]>([
    ['adamw', 2],
    ['adamw', 5],
    ['sgd', 3],
  ])('%s: %d of a size are one batch of all their samples', async (optimizer, count) => {
    const [parts, whole] = [await openStep(optimizer, count), await openStep(optimizer, 1)];
    for (let t = 1; t <= 3; t++) {
      const samples = Array.from({ length: 4 * count }, (_, i) => t * 31 + i);
      const losses: number[] = [];
      let norm = 0;
      for (let k = 0; k < count; k++) {
        const batch = samples.slice(4 * k, 4 * k + 4);
        const [loss, found] = await parts.step(batch, t, k === count - 1);
        losses.push(loss);
        norm = found;
      }
      const [loss, wholeNorm] = await whole.step(samples, t);
      expect(losses.reduce((a, b) => a + b) / count / loss).toBeCloseTo(1, 5);
      expect(norm / wholeNorm).toBeCloseTo(1, 5);
      for (const name of optimizer === 'adamw' ? ['theta', 'm', 'v'] : ['theta', 'm']) {
        const found = await vectorOf(parts, name);
        expect(distance(found, await vectorOf(whole, name)), name).toBeLessThan(1e-5);
      }
    }
    await parts.session.release();
    await whole.session.release();
  });

  it('of different sizes are one batch of all their samples too', async () => {
    const [parts, whole] = [await openStep('sgd', 3), await openStep('sgd', 1)];
    const batches = [[1], [2, 3, 4, 5, 6], [7, 8]];
    for (const [i, batch] of batches.entries()) await parts.step(batch, 1, i === 2);
    await whole.step(batches.flat(), 1);
    const found = await vectorOf(parts, 'theta');
    expect(distance(found, await vectorOf(whole, 'theta'))).toBeLessThan(1e-6);
    await parts.session.release();
    await whole.session.release();
  });

  it('leave parameters and moments alone until the last of them, and nothing behind it', async () => {
    const parts = await openStep('adamw', 3);
    const before = await parts.session.readState();
    await parts.step([1, 2], 1, false);
    await parts.step([3, 4], 1, false);
    const between = await parts.session.readState();
    for (const name of ['theta', 'm', 'v']) expect(between.get(name)).toEqual(before.get(name));
    expect(await vectorOf(parts, 'accumulated')).not.toEqual(new Float64Array(parts.size));
    await parts.step([5, 6], 1, true);
    expect(await vectorOf(parts, 'accumulated')).toEqual(new Float64Array(parts.size));
    await parts.session.release();
  });
});

it('a step in standard operators is the step with fused ones', async () => {
  const [fused, plain] = [await openStep('adamw', 1, true), await openStep('adamw', 1, false)];
  for (let t = 1; t <= 4; t++) {
    const samples = [t, t + 1, t + 2];
    const [[loss], [other]] = [await fused.step(samples, t), await plain.step(samples, t)];
    expect(other! / loss!).toBeCloseTo(1, 5);
  }
  expect(distance(await vectorOf(plain, 'theta'), await vectorOf(fused, 'theta'))).toBeLessThan(
    1e-5,
  );
  await fused.session.release();
  await plain.session.release();
});
