/** Adapters that were in a graph before ours: they stay, and nothing of ours is called as they are. */
import { expect, it } from 'vitest';
import { inspect } from '../../../src/commands/inspect.js';
import { patch } from '../../../src/commands/patch.js';
import { temporaryFolder } from '../../support/files.js';
import { model, node, pattern, tensor, value } from '../../support/models.js';
import { expectSame, feed, run } from '../../support/run.js';

const files = temporaryFolder();
const X = { x: feed([2, 6], pattern(12)) };

/** `x·w + (x·a)·b`, with the names that an exporter gives. */
function exported(name: string, [a, b]: readonly [string, string]): string {
  return files.write(
    model({
      nodes: [
        node('MatMul', ['x', 'w'], 'h', {}, `/m/${name}/MatMul`),
        node(
          'MatMul',
          ['x', a],
          'left',
          {},
          `/m/q_proj/lora_A${b.includes('default') ? '/default' : ''}/MatMul`,
        ),
        node(
          'MatMul',
          ['left', b],
          'right',
          {},
          `/m/q_proj/lora_B${b.includes('default') ? '/default' : ''}/MatMul`,
        ),
        node('Add', ['h', 'right'], 'y'),
      ],
      initializers: [tensor('w', [6, 8]), tensor(a, [6, 2]), tensor(b, [2, 8])],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 8])],
    }),
  );
}

const built = () =>
  exported('q_proj', ['m.q_proj.lora_A.MatMul.weight', 'm.q_proj.lora_B.MatMul.weight']);

it.each([
  { by: 'the builder', make: built },
  {
    by: 'PyTorch',
    make: () => exported('q_proj/base_layer', ['lora_A.default', 'lora_B.default']),
  },
])('by $by: their factors take no adapters, and inspect names them', async ({ make }) => {
  const { targets, exportedAdapters } = await inspect(make());
  expect(exportedAdapters).toEqual(['m.q_proj']);
  const refused = targets.filter(({ eligible }) => !eligible);
  expect(refused.map(({ reason }) => reason)).toEqual(
    Array(2).fill('it is a factor of the adapter that was exported with m.q_proj'),
  );
});

it.each(['required', 'optional'] as const)('slots have other names: %s', async (slots) => {
  const path = built();
  const { output, slots: made } = await patch(path, { slots, output: files.fresh() });
  expect(made!.map(({ name }) => name)).toEqual(['/m/q_proj/MatMul']);
  if (slots === 'optional') expectSame(await run(output, X), await run(path, X));
});

it('a model without any has no such field', async () => {
  const plain = model({
    nodes: [node('MatMul', ['x', 'w'], 'y')],
    initializers: [tensor('w', [6, 8])],
    inputs: [value('x', ['batch', 6])],
    outputs: ['y'],
  });
  expect(await inspect(files.write(plain))).not.toHaveProperty('exportedAdapters');
});
