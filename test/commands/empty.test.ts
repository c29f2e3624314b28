/** Layers that get no row: experts without a token, sequences that have not begun. */
import { expect, it } from 'vitest';
import { insertInto, trained } from '../support/adapters.js';
import { model, node, tensor, value } from '../support/models.js';
import { feed, run } from '../support/run.js';

const base = (opset: number) =>
  model({
    opset,
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'layer')],
    initializers: [tensor('w', [6, 8])],
    inputs: [value('x', ['batch', 'rows', 6])],
    outputs: ['y'],
  });

it.each([
  { structure: 'global', rank: 2 },
  { structure: 'localized', rank: 4, blocks: 2 },
  { structure: 'diagonal', rank: 2, blocks: 2, hybrid: 1 },
] as const)('$structure adapters of a layer without a row add nothing', async (options) => {
  const patched = await insertInto(base(17), { ...options, targets: ['all'], factors: trained });
  for (const sizes of [
    [2, 0, 6],
    [0, 3, 6],
  ]) {
    const { y } = await run(patched, { x: feed(sizes, []) });
    expect(y!.dims).toEqual([sizes[0], sizes[1], 8]);
  }
});
