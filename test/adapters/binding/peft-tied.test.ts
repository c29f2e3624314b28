/** Tensors that modules share, as a head does that is tied to the embeddings, where PEFT trained one of them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { inspect } from '../../../src/commands/inspect.js';
import { foldAdapters } from '../../../src/commands/merge.js';
import { patch } from '../../../src/commands/patch.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { randomNumbers } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import { model, type NodeProto, node, pattern, tensor, value } from '../../support/models.js';
import { loraTensors, type PeftTensors, peftFolder } from '../../support/peft.js';
import { expectClose, feed, maxDifference, run } from '../../support/run.js';

const folder = temporaryFolder();
const LORA = { peft_type: 'LORA', r: 2, lora_alpha: 4 };
const Q = loraTensors('q', [4, 4]);
const OLD = pattern(24);
const NEW = randomNumbers(5, 24);
const OTHER = randomNumbers(6, 24);
const x = { x: feed([2, 4], [1, -2, 0.5, 3, -1, 2, 1.5, -0.5]) };

type Form = (table: string) => readonly NodeProto[];

const transpose: Form = (table) => [
  node('Transpose', [table], 't', { perm: [1, 0] }, '/lm_head/Transpose'),
  node('MatMul', ['h', 't'], 'y', {}, '/lm_head/MatMul'),
];
const gemm: Form = (table) => [node('Gemm', ['h', table], 'y', { transB: 1 }, '/lm_head/Gemm')];

/** Embeddings and a head; without numbers of its own, the head reads the table of the embeddings. */
function lm(form: Form, emb: ArrayLike<number> = OLD, head?: ArrayLike<number>): string {
  const bytes = model({
    nodes: [
      node('Gather', ['emb.weight', 'ids'], 'e', {}, '/emb/Gather'),
      node('Add', ['e', 'x'], 's'),
      node('MatMul', ['s', 'wq'], 'h', {}, '/q/MatMul'),
      ...form(head ? 'lm_head.weight' : 'emb.weight'),
    ],
    initializers: [
      tensor('emb.weight', [6, 4], emb),
      ...(head ? [tensor('lm_head.weight', [6, 4], head)] : []),
      tensor('wq', [4, 4]),
      tensor('ids', [2], [5, 2], 'int64'),
    ],
    inputs: [value('x', [2, 4])],
    outputs: ['y'],
  });
  return folder.write(bytes);
}

const peft = (tensors: PeftTensors) => {
  const named = Object.entries(tensors).map(([name, one]) => [`base_model.model.${name}`, one]);
  return peftFolder(folder.fresh('peft'), LORA, { ...Q, ...Object.fromEntries(named) });
};
const saved = (module: string, values: ArrayLike<number>) => ({
  [`${module}.weight`]: { shape: [6, 4], values },
});

/** The adapter does in the tied model what that of `q` does in one with two tables; by every way there. */
async function expectTables(form: Form, adapter: string, emb = OLD, head = OLD) {
  const base = lm(form);
  const [expected, applied, merged, later, back, file, again] = Array.from({ length: 7 }, (_, i) =>
    folder.fresh(i === 5 ? 'set.safetensors' : undefined),
  ) as [string, string, string, string, string, string, string];
  await apply(lm(form, emb, head), peft({}), { output: expected });
  const outputs = await run(expected, x);
  await apply(base, adapter, { output: applied });
  await foldAdapters(base, { adapter, output: merged });
  await foldAdapters(applied, { output: later });
  await extract(applied, { output: file });
  await patch(base, { adapter: file, output: again });
  await unpatch(applied, { output: back });
  expect(maxDifference(outputs.y!.data, (await run(base, x)).y!.data)).toBeGreaterThan(0.1);
  for (const one of [applied, merged, later]) expectClose(await run(one, x), outputs, 1e-5);
  expect(sameFiles(again, applied)).toBe(true);
  expect(sameFiles(back, base)).toBe(true);
  return { applied, merged };
}

describe.each([
  ['a Transpose and a MatMul', transpose],
  ['a Gemm', gemm],
])('of a table that a head reads by %s', (_, form) => {
  it('a head that was saved leaves the embeddings as they are', async () => {
    await expectTables(form, peft(saved('lm_head', NEW)), OLD, NEW);
  });

  it('embeddings that were saved leave the head as it is', async () => {
    await expectTables(form, peft(saved('emb', NEW)), NEW, OLD);
  });

  it('both get their own numbers, and nobody keeps the old ones', async () => {
    const adapter = peft({ ...saved('emb', NEW), ...saved('lm_head', OTHER) });
    const { merged, applied } = await expectTables(form, adapter, NEW, OTHER);
    const stored = Buffer.from(Float32Array.from(OLD).buffer);
    expect(readFileSync(applied).includes(stored)).toBe(true);
    expect(readFileSync(merged).includes(stored)).toBe(false);
  });

  it('an adapter of the embeddings is theirs alone', async () => {
    const [a, b] = [randomNumbers(7, 12), randomNumbers(8, 8)];
    const changed = OLD.map((w, i) => {
      const [row, column] = [Math.floor(i / 4), i % 4];
      return w + 2 * (a[row]! * b[column * 2]! + a[6 + row]! * b[column * 2 + 1]!);
    });
    const adapter = peft({
      'emb.lora_embedding_A': { shape: [2, 6], values: a },
      'emb.lora_embedding_B': { shape: [4, 2], values: b },
    });
    await expectTables(form, adapter, changed, OLD);
  });

  it('an adapter of the head and saved embeddings do not meet', async () => {
    const [a, b] = [randomNumbers(9, 8), randomNumbers(10, 12)];
    const changed = OLD.map((w, i) => {
      const [row, column] = [Math.floor(i / 4), i % 4];
      return w + 2 * (b[row * 2]! * a[column]! + b[row * 2 + 1]! * a[4 + column]!);
    });
    const adapter = peft({
      ...saved('emb', NEW),
      'lm_head.lora_A.weight': { shape: [2, 4], values: a },
      'lm_head.lora_B.weight': { shape: [6, 2], values: b },
    });
    await expectTables(form, adapter, NEW, changed);
  });
});

describe('a share of a table', () => {
  it('goes back into a folder of PEFT under its own name', async () => {
    const [applied, again] = [folder.fresh(), folder.fresh()];
    const output = folder.fresh('exported');
    await apply(lm(gemm), peft(saved('emb', NEW)), { output: applied });
    await extract(applied, { output });
    const config = JSON.parse(readFileSync(join(output, 'adapter_config.json'), 'utf8'));
    expect(config.modules_to_save).toEqual(['emb']);
    await apply(lm(gemm), output, { output: again });
    expect(sameFiles(again, applied)).toBe(true);
  });

  it('is scaled from the numbers that all had', async () => {
    const merged = folder.fresh();
    await foldAdapters(lm(gemm), {
      ...{ adapter: peft(saved('lm_head', NEW)), scale: 0, output: merged },
    });
    expectClose(await run(merged, x), await run(lm(gemm), x), 1e-6);
  });

  it('is counted and named by inspect', async () => {
    const applied = folder.fresh();
    const base = lm(gemm);
    await apply(base, peft(saved('lm_head', NEW)), { output: applied });
    const { sets } = await inspect(applied);
    expect(sets[0]!.replaced).toEqual(['lm_head.weight']);
  });

  it('keeps its original where another set is folded', async () => {
    const [first, second, folded, back, reference] = Array.from({ length: 5 }, () =>
      folder.fresh(),
    ) as [string, string, string, string, string];
    const base = lm(gemm);
    const ofHead = peft(loraWithoutPrefix('lm_head'));
    await apply(base, peft(saved('emb', NEW)), { output: first, name: 'table' });
    await apply(first, ofHead, { output: second, name: 'head' });
    await foldAdapters(second, { name: 'head', output: folded });
    await unpatch(folded, { name: 'table', output: back });
    await apply(base, ofHead, { output: reference });
    expectClose(await run(back, x), await run(reference, x), 1e-5);
  });

  it('is refused where one node makes the table ready for all', async () => {
    const cast: Form = () => [node('MatMul', ['h', 'u'], 'y', {}, '/lm_head/MatMul')];
    const bytes = model({
      nodes: [
        node('Transpose', ['emb.weight'], 'u', { perm: [1, 0] }),
        node('MatMul', ['x', 'wq'], 'h', {}, '/q/MatMul'),
        ...cast('u'),
        node('MatMul', ['h', 'u'], 'z', {}, '/other/MatMul'),
      ],
      initializers: [tensor('emb.weight', [6, 4], OLD), tensor('wq', [4, 4])],
      inputs: [value('x', [2, 4])],
      outputs: ['y', 'z'],
    });
    const path = folder.write(bytes);
    const adapter = peft(saved('lm_head', NEW));
    const attempt = () => apply(path, adapter, { output: folder.fresh() });
    const { message } = await failure(attempt, 'adapter-mismatch');
    expect(message).toContain('emb.weight is read by /other/MatMul too');
  });
});

function loraWithoutPrefix(module: string): PeftTensors {
  return Object.fromEntries(
    Object.entries(loraTensors(module, [4, 6])).map(([name, one]) => [
      name.replace('base_model.model.', ''),
      one,
    ]),
  );
}

describe('the name that an exporter kept of two tied weights', () => {
  it('does not say which module a tensor belongs to', async () => {
    const untied = (emb: ArrayLike<number>, head: ArrayLike<number>) => {
      const turned = Float64Array.from(head, (_, i) => head[(i % 6) * 4 + Math.floor(i / 6)]!);
      return folder.write(
        model({
          nodes: [
            node('Gather', ['lm_head.weight', 'ids'], 'e', {}, '/emb/Gather'),
            node('Add', ['e', 'x'], 's'),
            node('MatMul', ['s', 'wq'], 'h', {}, '/q/MatMul'),
            node('MatMul', ['h', 'val_1'], 'y', {}, '/lm_head/MatMul'),
          ],
          initializers: [
            ...[tensor('lm_head.weight', [6, 4], emb), tensor('val_1', [4, 6], turned)],
            ...[tensor('wq', [4, 4]), tensor('ids', [2], [5, 2], 'int64')],
          ],
          inputs: [value('x', [2, 4])],
          outputs: ['y'],
        }),
      );
    };
    const [expected, applied, exported, again] = Array.from({ length: 4 }, (_, i) =>
      folder.fresh(i === 2 ? 'peft-out' : undefined),
    ) as [string, string, string, string];
    await apply(untied(NEW, OTHER), peft({}), { output: expected });
    const adapter = peft({ ...saved('emb', NEW), ...saved('lm_head', OTHER) });
    await apply(untied(OLD, OLD), adapter, { output: applied });
    expectClose(await run(applied, x), await run(expected, x), 1e-6);
    await extract(applied, { output: exported });
    await apply(untied(OLD, OLD), exported, { output: again });
    expect(sameFiles(again, applied)).toBe(true);
  });
});
