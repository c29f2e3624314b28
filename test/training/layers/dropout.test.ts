/** What the adapters of a layer read in training with dropout. */
import { expect, it } from 'vitest';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { buildForward } from '../../../src/training/forward.js';
import { insertInto } from '../../support/adapters.js';
import { model, node, tensor, value } from '../../support/models.js';
import { parse } from '../../support/wire.js';

it.each([
  ['a layer', [node('MatMul', ['x', 'w'], 'y', {}, 'layer')]],
  [
    'a layer with a bias behind it',
    [node('MatMul', ['x', 'w'], 'h', {}, 'layer'), node('Add', ['h', 'b'], 'y')],
  ],
])('the adapter of %s reads its input with dropout, the layer without', async (_, nodes) => {
  const bytes = model({
    nodes,
    initializers: [tensor('w', [6, 4]), tensor('b', [4])],
    inputs: [value('x', [5, 6])],
    outputs: [value('y', [5, 4])],
  });
  const opened = parse(await insertInto(bytes, { rank: 2, blocks: 1 }));
  const reader = new TensorReader(opened, new ExternalFiles(opened));
  const patched = new PatchedModel(opened);
  const { graph, noise } = await buildForward(patched, reader, { loss: 'mse', dropout: 0.5 });
  expect(noise?.size).toBe(30);
  const own = patched.sites[0]!.site.nodes;
  const readers = graph.nodes.filter(({ inputs }) => inputs.includes('x'));
  expect(readers.some(({ name }) => name === 'layer')).toBe(true);
  expect(readers.some(({ name = '' }) => own.includes(name))).toBe(false);
  expect(graph.nodes.some(({ inputs }) => inputs.includes(noise!.input))).toBe(true);
});

it('an adapter that stands on another one reads what the layer reads', async () => {
  const bytes = model({
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'layer')],
    initializers: [tensor('w', [6, 4])],
    inputs: [value('x', [5, 6])],
    outputs: [value('y', [5, 4])],
  });
  const first = await insertInto(bytes, { rank: 2, blocks: 1 });
  const opened = parse(await insertInto(first, { rank: 2, blocks: 1, name: 'second' }));
  const reader = new TensorReader(opened, new ExternalFiles(opened));
  const patched = new PatchedModel(opened);
  const options = { loss: 'mse', dropout: 0.5, name: 'second' } as const;
  const { graph, noise } = await buildForward(patched, reader, options);
  expect(noise?.size).toBe(30);
  const reading = graph.nodes.filter(({ inputs }) => inputs.includes('x')).map(({ name }) => name);
  const [one, other] = patched.sites.map(({ site }) => site.nodes);
  expect(reading).toContain('layer');
  expect(reading.some((name) => one!.includes(name))).toBe(true);
  expect(reading.some((name) => other!.includes(name))).toBe(false);
});
