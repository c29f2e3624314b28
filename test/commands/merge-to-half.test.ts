/** Folds whose result is stored as float16. */
import { readFileSync, statSync } from 'node:fs';
import { expect, test } from 'vitest';
import { withModel } from '../../src/adapters/model/opened.js';
import { checkHalf } from '../../src/commands/convert-half.js';
import { foldAdapters, merge } from '../../src/commands/merge.js';
import { fromFloat32 } from '../../src/onnx/dtype.js';
import { allTensors } from '../../src/onnx/external.js';
import { patchFile, trained } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { body, constant, model, node, tensor, value } from '../support/models.js';
import { zooModel } from '../support/zoo.js';

const folder = temporaryFolder();
const N = 24;

const waves = (count: number, seed: number) =>
  Float64Array.from({ length: count }, (_, i) => Math.sin(i * 7.3 + seed) / 4);

const adapters = {
  ...{ rank: 2, blocks: 1 },
  factors: (planned: Parameters<typeof trained>[0]) => trained(planned, 3, 0.4),
};

async function patched(bytes: Uint8Array): Promise<string> {
  const output = folder.fresh();
  await patchFile(folder.write(bytes), output, adapters);
  return output;
}

/** Rows of a table through products, a kernel and a body; and numbers that stay as they are. */
const everything = () =>
  model({
    nodes: [
      node('Gather', ['table', 'ids'], 'rows'),
      node('MatMul', ['rows', 'w'], 'h', {}, 'adapted'),
      node('Add', ['h', 'bias'], 'b'),
      constant('stored', tensor('', [N, N], waves(N * N, 2))),
      node('MatMul', ['b', 'stored'], 'p', {}, 'constant'),
      node('Mul', ['p', 'frequencies'], 'f'),
      node('MatMul', ['f', 'large'], 'l', {}, 'beyond'),
      node('If', ['yes'], 'c', {
        then_branch: {
          graph: body({
            nodes: [node('MatMul', ['l', 'inside'], 'then')],
            initializers: [tensor('inside', [N, N], waves(N * N, 3))],
            outputs: [value('then', ['n', N])],
          }),
        },
        else_branch: {
          graph: body({ nodes: [node('Identity', ['l'], 'else')], outputs: [value('else')] }),
        },
      }),
      node('Transpose', ['table'], 'turned'),
      node('MatMul', ['c', 'turned'], 'y', {}, 'tied'),
    ],
    initializers: [
      tensor('table', [9, N], waves(9 * N, 1)),
      tensor('w', [N, N], waves(N * N, 4)),
      tensor('bias', [N], waves(N, 5)),
      tensor('frequencies', [1, N], waves(N, 6)),
      tensor('large', [N, N], [65520, ...waves(N * N - 1, 7)]),
      tensor('yes', [], [1], 'bool'),
    ],
    inputs: [value('ids', ['n'], 'int64')],
    outputs: [value('y', ['n', 9])],
  });

test('matrices that products and look-ups read become the nearest float16, all else stays', async () => {
  const path = await patched(everything());
  const [floats, output] = [folder.fresh(), folder.fresh()];
  await foldAdapters(path, { output: floats });
  const before = await tensorsOf(floats);
  const { quantized, verification, merged } = await merge(path, { output, to: 'fp16' });
  expect(verification).toMatchObject({ passed: true, proven: true });
  const after = await tensorsOf(output);
  // The adapter on the tied product made a weight of its own.
  const names = ['table', 'table_merged', 'w', 'stored', 'inside'];
  for (const name of names) {
    const wanted = fromFloat32('float16', new Float32Array(before.get(name)!.slice().buffer));
    expect([name, after.get(`${name}_fp16`)]).toEqual([name, wanted]);
    expect(after.has(name)).toBe(false);
  }
  for (const name of ['bias', 'frequencies', 'large']) {
    expect([name, after.get(name)]).toEqual([name, before.get(name)]);
  }
  expect(after.size).toBe(before.size);
  const weights = { count: names.length };
  expect(quantized).toMatchObject({ to: 'fp16', nodes: 5 });
  expect(quantized!.verification).toMatchObject({
    passed: true,
    proven: true,
    maxAbsDiff: 0,
    weights,
  });
  expect(quantized!.verification!.weights!.worst).toBeLessThanOrEqual(1);
  expect(quantized!.verification!.weights!.worst).toBeGreaterThan(0.9);
  expect(merged.find(({ weight }) => weight === 'w')!.lost).toBeGreaterThan(0);
});

test('a file with a number that is not the nearest does not pass', async () => {
  const path = await patched(everything());
  const [floats, output] = [folder.fresh(), folder.fresh()];
  await foldAdapters(path, { output: floats });
  await merge(path, { output, to: 'fp16' });
  const file = readFileSync(output);
  await withModel(output, async ({ model: { graph } }) => {
    const { data } = graph.initializers.get('w_fp16')!;
    file[data.kind === 'raw' ? data.field.value : 0]! ^= 2;
  });
  const { verification } = await checkHalf(floats, folder.write(file), {});
  expect(verification).toMatchObject({ passed: false, proven: false });
  expect(verification.reason).toMatch(/a number of w is .* roundings off/);
});

test('a file of before IR 4, whose tensors are inputs too', async () => {
  const old = model({
    ...{ opset: 8, irVersion: 3 },
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'adapted')],
    initializers: [tensor('w', [N, N], waves(N * N, 4))],
    inputs: [value('x', ['n', N])],
    outputs: [value('y', ['n', N])],
  });
  const output = folder.fresh();
  const { quantized } = await merge(await patched(old), { output, to: 'fp16' });
  expect(quantized).toMatchObject({ nodes: 1, verification: { passed: true, proven: true } });
  const inputs = await withModel(output, async ({ model: { graph } }) =>
    graph.inputs.map(({ name }) => name),
  );
  expect(inputs).toEqual(['x', 'w_fp16']);
});

test.each(['q4', 'fp16'] as const)(
  '%s of a model with external data leaves its floats behind',
  async (to) => {
    const base = zooModel('bert-external-data');
    const lora = folder.fresh('bert.lora.onnx');
    await patchFile(base, lora, { ...adapters, factors: (planned) => trained(planned, 3, 0.05) });
    const output = folder.fresh('bert.small.onnx');
    const { quantized } = await merge(lora, { output, to });
    expect(quantized!.verification).toMatchObject({ passed: true, proven: true });
    const before = await tensorsOf(base);
    const after = await tensorsOf(output);
    const bytes = (all: Map<string, Uint8Array>) =>
      [...all.values()].reduce((sum, one) => sum + one.length, 0);
    expect(bytes(after)).toBeLessThan(0.6 * bytes(before));
    // Every tensor begins on a page of its own.
    const stored = statSync(output).size + statSync(`${output}.data`).size;
    expect(stored).toBeLessThan(bytes(after) + 4096 * after.size + 65536);
  },
);

/** The bytes of all tensors of floats, by name. */
async function tensorsOf(path: string): Promise<Map<string, Uint8Array>> {
  return await withModel(path, async ({ model: opened, reader }) => {
    const found = [...allTensors(opened)].map(
      ({ tensor: one, node: holder }): [string, Uint8Array] => [
        holder ? holder.outputs[0]! : one.name,
        reader.bytes(one).slice(),
      ],
    );
    return new Map(found);
  });
}
