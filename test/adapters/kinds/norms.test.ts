/** The gradient of DoRA is that of a loss whose norms stay where they are: central differences. */
import { expect, test } from 'vitest';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { copyOf, type GraphBuilder } from '../../../src/graph/builder.js';
import { collect } from '../../../src/onnx/edit.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { openSession } from '../../../src/runtime/session.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { buildForward } from '../../../src/training/forward.js';
import { stepScalars } from '../../../src/training/optimizers/index.js';
import { buildStepGraph } from '../../../src/training/step-graph.js';
import { insertInto, randomNumbers, trained } from '../../support/adapters.js';
import { parse } from '../../support/wire.js';
import { tinyModel } from '../../training/tiny.js';

const HOW = {
  optimizer: 'sgd',
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  momentum: 0,
  clip: 0,
} as const;

const samples = new Map([
  ['x', floats([5, 6], randomNumbers(1, 30))],
  ['target', floats([5, 4], randomNumbers(2, 20))],
]);

/** The graph with these outputs, and with values that are fed instead of computed. */
async function evaluated(
  graph: GraphBuilder,
  outputs: readonly string[],
  feeds: ReadonlyMap<string, TensorValue>,
): Promise<ReadonlyMap<string, TensorValue>> {
  const copy = copyOf(graph);
  copy.outputs.length = 0;
  for (const name of outputs) copy.outputs.push({ name, dtype: undefined, shape: null });
  for (const [name, { dims }] of feeds) {
    const at = copy.nodes.findIndex((node) => node.outputs[0] === name);
    if (at < 0) continue;
    copy.nodes.splice(at, 1);
    copy.inputs.push({ name, dtype: 'float32', shape: dims });
  }
  const session = await openSession(await collect(copy.modelPieces()));
  const results = await session.run(feeds);
  await session.release();
  return results;
}

test.each([undefined, { fused: true }])('written as %o', async (rewrite) => {
  const options = { kind: 'dora', rank: 4, blocks: 2, hybrid: 1, targets: ['all'] } as const;
  const factors = (planned: Parameters<typeof trained>[0]) =>
    trained(planned).map((adapter) => {
      const magnitude = () => randomNumbers(7, adapter.record.out).map((m) => 2 + m);
      return { ...adapter, own: { magnitude } };
    });
  const patched = new PatchedModel(parse(await insertInto(tinyModel(), { ...options, factors })));
  const reader = new TensorReader(patched.model, new ExternalFiles(patched.model));
  const forward = await buildForward(patched, reader, { loss: 'mse', rewrite });
  const { constants, loss } = forward;
  expect(constants.size).toBe(2);
  const before = copyOf(forward.graph);
  const { size, ...step } = await buildStepGraph(forward, { ...HOW, accumulate: 1, fused: false });
  const theta = new Float32Array(size);
  for (const { name, offset } of forward.parameters) {
    theta.set(reader.float32(patched.initializer(name)), offset);
  }
  const feeds = (values: ArrayLike<number>) =>
    new Map([...samples, ['theta', floats([size], values)] as const]);
  // Plain gradient descent at a rate of 1 moves theta by the gradient.
  const scalars = Object.entries(stepScalars(HOW, 1, 1));
  const session = await openSession(await collect(step.graph.modelPieces()));
  const moved = await session.run(
    new Map([...feeds(theta), ...scalars.map(([name, v]) => [name, floats([], [v])] as const)]),
  );
  await session.release();
  const next = moved.get(step.state[0]!.output)!.data as Float32Array;
  const gradient = Float64Array.from(theta, (value, i) => value - next[i]!);

  const norms = await evaluated(before, [...constants], feeds(theta));
  const direction = randomNumbers(11, size);
  const along = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
  const difference = async (fixed: ReadonlyMap<string, TensorValue>) => {
    const at = async (h: number) => {
      const values = theta.map((value, i) => value + h * direction[i]!);
      const results = await evaluated(before, [loss], new Map([...feeds(values), ...fixed]));
      return Number(results.get(loss)!.data[0]);
    };
    const h = 2 ** -8;
    return ((await at(h)) - (await at(-h))) / (2 * h);
  };
  expect(Math.abs((await difference(norms)) / along - 1)).toBeLessThan(2e-3);
  // Norms that follow the factors give another derivative.
  expect(Math.abs((await difference(new Map())) / along - 1)).toBeGreaterThan(2e-2);
});

function floats(dims: readonly number[], values: ArrayLike<number>) {
  return { dtype: 'float32', dims, data: Float32Array.from(values) } as const;
}
