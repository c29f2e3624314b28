/** Attention that multiplies with the weights of query, key and value as one: adapters join the weight. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { withModel } from '../../src/adapters/model/opened.js';
import { apply } from '../../src/commands/apply.js';
import { chooseLayers } from '../../src/commands/chosen-layers.js';
import { extract } from '../../src/commands/extract.js';
import { inspect } from '../../src/commands/inspect.js';
import { merge } from '../../src/commands/merge.js';
import { resolveTrainOptions } from '../../src/commands/options/train.js';
import { type PatchOptions, patch } from '../../src/commands/patch.js';
import { runTraining } from '../../src/commands/train/run.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { weightGradients } from '../../src/training/weight-gradients.js';
import { safetensors } from '../data/data.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';
import { loraTensors, peftFolder } from '../support/peft.js';
import { expectClose, expectSame, feed, maxDifference, run } from '../support/run.js';

const folder = temporaryFolder();
const IN = 8;
const WIDTHS = [8, 8, 12] as const;
const OUT = 28;
const SELF = '/bert/encoder/layer.0/attention/self';
const PARTS = ['query', 'key', 'value'].map(
  (name) => `bert.encoder.layer.0.attention.self.${name}`,
);

const weights = WIDTHS.map((width, i) => randomNumbers(i + 1, IN * width, 0.7));
const packedWeight = Array.from({ length: IN }, (_, row) =>
  weights.flatMap((w, i) => [...w.subarray(row * WIDTHS[i]!, (row + 1) * WIDTHS[i]!)]),
).flat();
const constants = [
  tensor('b', [OUT], randomNumbers(4, OUT, 0.5)),
  tensor('dense', [12, 8], randomNumbers(5, 96)),
  tensor('mask', [2, 3], [1, 1, 0, 1, 1, 1], 'int32'),
];
const behind = node(
  'MatMul',
  [`${SELF}/Reshape_3_output_0`, 'dense'],
  'y',
  {},
  '/bert/encoder/layer.0/attention/output/dense/MatMul',
);
const io = { inputs: [value('x', [2, 3, IN])], outputs: ['y'] };

/** The operator as the optimizer of ONNX Runtime writes it. */
function packed(): string {
  const attention = node(
    'com.microsoft:Attention',
    ['x', 'w', 'b', 'mask'],
    `${SELF}/Reshape_3_output_0`,
    { num_heads: 2, qkv_hidden_sizes: [...WIDTHS] },
    'Attention_0',
  );
  return folder.write(
    model({
      nodes: [attention, behind],
      initializers: [tensor('w', [IN, OUT], packedWeight), ...constants],
      ...io,
    }),
  );
}

/** The same in layers of their own. */
function separate(): string {
  const products = PARTS.map((path, i) =>
    node(
      'MatMul',
      ['x', `w${i}`],
      `p${i}`,
      {},
      `/${path.replaceAll('.', '/').replace('layer/0', 'layer.0')}/MatMul`,
    ),
  );
  const attention = node(
    'com.microsoft:MultiHeadAttention',
    ['p0', 'p1', 'p2', 'b', 'mask'],
    `${SELF}/Reshape_3_output_0`,
    { num_heads: 2 },
  );
  return folder.write(
    model({
      nodes: [...products, attention, behind],
      initializers: [...weights.map((w, i) => tensor(`w${i}`, [IN, WIDTHS[i]!], w)), ...constants],
      ...io,
    }),
  );
}

const x = { x: feed([2, 3, IN], randomNumbers(9, 48)) };
const attentionOnly = { targets: [...PARTS], rank: 4, blocks: 2 };

async function patched(path: string, options: PatchOptions = {}) {
  const output = folder.fresh();
  return { ...(await patch(path, { ...attentionOnly, output, ...options })), output };
}

describe('new adapters', () => {
  it('are one for each of query, key and value, under the names of their modules', async () => {
    const { adapters } = await patched(packed());
    expect(adapters.map(({ name, part, shape }) => [name, part?.first, ...shape])).toEqual([
      [PARTS[0], 0, IN, 8],
      [PARTS[1], 8, IN, 8],
      [PARTS[2], 16, IN, 12],
    ]);
    const chosen = await patched(packed(), { targets: ['value'] });
    expect(chosen.adapters.map(({ name }) => name)).toEqual([PARTS[2]]);
    const whole = await patched(packed(), { targets: ['qkv_dense'], parts: 'whole' });
    expect(whole.adapters.map(({ part, shape }) => [part, ...shape])).toEqual([
      [undefined, IN, OUT],
    ]);
  });

  it('leave what the model computes to the last bit, and the file as it was', async () => {
    const path = packed();
    const { output } = await patched(path, { hybrid: 1 });
    for (const level of ['disabled', 'basic', 'all'] as const) {
      expectSame(await run(output, x, level), await run(path, x, level));
    }
    const base = folder.fresh();
    await unpatch(output, { output: base });
    expect(sameFiles(base, path)).toBe(true);
  });

  it.each(['dora', 'hira'] as const)('of %s change the weight in their columns', async (kind) => {
    const path = packed();
    const { output, adapters } = await patched(path, { kind, targets: ['all'] });
    expect(adapters).toHaveLength(4);
    expectClose(await run(output, x), await run(path, x), 1e-6);
    const merged = folder.fresh();
    const { verification } = await merge(await trainedOn(output), { output: merged });
    expect(verification).toMatchObject({ passed: true, proven: true });
  });

  it('start from singular values of the weight', async () => {
    const path = packed();
    const { output } = await patched(path, { init: 'pissa', targets: ['qkv_dense'] });
    expectClose(await run(output, x), await run(path, x), 1e-5);
  });

  it('show in inspect', async () => {
    const { output } = await patched(packed());
    const { targets } = await inspect(output);
    expect(targets[0]).toMatchObject({
      node: 'Attention_0',
      op: 'com.microsoft:Attention',
      module: 'bert.encoder.layer.0.attention.self.qkv_dense',
      weight: { name: 'w', shape: [IN, OUT] },
    });
    expect(targets[0]!.adapters.map(({ part }) => part?.first)).toEqual([0, 8, 16]);
  });
});

const data = () =>
  folder.write(
    safetensors({
      x: ['float32', [6, 3, IN], [...randomNumbers(1, 18 * IN)]],
      target: ['float32', [6, 3, 8], [...randomNumbers(2, 144)]],
    }),
    'data.safetensors',
  );

async function trainedOn(path: string, more = {}): Promise<string> {
  const output = folder.fresh();
  const options = { loss: 'mse', batchSize: 2, steps: 4, lr: 0.02, threads: 1 } as const;
  await runTraining(
    path,
    resolveTrainOptions({
      ...options,
      data: data(),
      modelOutput: 'y',
      provider: 'cpu',
      output,
      ...more,
    }),
  );
  return output;
}

const factorsOf = async (path: string) => {
  const output = folder.fresh('peft');
  await extract(path, { output, format: 'peft' });
  return openSafetensors(join(output, 'adapter_model.safetensors'));
};

/** Options of a run that is stopped after its second step. */
function stopping() {
  const controller = new AbortController();
  const onProgress = ({ phase, done }: { phase: string; done: number }) => {
    if (phase === 'training' && done === 2) controller.abort();
  };
  return { signal: controller.signal, onProgress };
}

it('goes on from a checkpoint as if it had not stopped', async () => {
  const { output } = await patched(packed());
  const options = { data: data() };
  const whole = await trainedOn(output, options);
  const checkpoint = folder.fresh('checkpoints');
  const stopped = () => trainedOn(output, { ...options, checkpoint, ...stopping() });
  await failure(stopped, 'aborted');
  const resumed = await trainedOn(output, { ...options, checkpoint, resume: true });
  expect(sameFiles(resumed, whole)).toBe(true);
});

const forms = [{ kind: 'lora', hybrid: 1 }, { kind: 'dora' }, { kind: 'hira', blocks: 1 }] as const;

it.each(forms)(
  'trains, folds and leaves as the adapters of separate layers do: %o',
  async (form) => {
    const [path, apart] = [packed(), separate()];
    expectClose(await run(path, x), await run(apart, x), 1e-5);
    const [one, other] = await Promise.all(
      [apart, path].map(async (base) => {
        const { output } = await patched(base, form);
        return trainedOn(output);
      }),
    );
    const [expected, found] = [await factorsOf(one!), await factorsOf(other!)];
    expect([...found.tensors.keys()].sort()).toEqual([...expected.tensors.keys()].sort());
    for (const name of expected.tensors.keys()) {
      const difference = maxDifference(found.readFloat64(name), expected.readFloat64(name));
      expect(difference, name).toBeLessThan(1e-6);
    }
    const [merged, base] = [folder.fresh(), folder.fresh()];
    const { verification } = await merge(other!, { output: merged });
    expect(verification).toMatchObject({ passed: true, proven: true });
    expectClose(await run(merged, x), await run(one!, x), 1e-5);
    await unpatch(other!, { output: base });
    expect(sameFiles(base, path)).toBe(true);
  },
);

it('takes two sets, which fold and leave one by one', async () => {
  const path = packed();
  const [first, both] = [folder.fresh(), folder.fresh()];
  const insert = (from: string, to: string, name: string, seed: number) =>
    patchFile(from, to, {
      ...attentionOnly,
      targets: ['all'],
      name,
      factors: (a) => trained(a, seed, 0.2),
    });
  await insert(path, first, 'one', 1);
  await insert(first, both, 'two', 2);
  const expected = await run(both, x);
  for (const name of ['one', 'two']) {
    const [merged, without, left] = [folder.fresh(), folder.fresh(), folder.fresh()];
    await merge(both, { name, output: merged, verify: false });
    expectClose(await run(merged, x), expected, 1e-5);
    await unpatch(both, { name, output: without });
    if (name === 'two') expect(sameFiles(without, first)).toBe(true);
    await unpatch(without, { output: left });
    expect(sameFiles(left, path)).toBe(true);
  }
});

it('gets a weight of its own in the fold where another node reads the same', async () => {
  const shared = node('MatMul', ['x', 'w'], 'z', {}, '/other/MatMul');
  const turned = node('Transpose', ['stored'], 'turned', { perm: [1, 0] });
  const path = folder.write(
    model({
      nodes: [
        node('com.microsoft:Attention', ['x', 'w', 'b'], 'a', {
          num_heads: 2,
          qkv_hidden_sizes: [...WIDTHS],
        }),
        node('com.microsoft:Attention', ['x', 'turned', 'b'], 'c', {
          num_heads: 2,
          qkv_hidden_sizes: [...WIDTHS],
        }),
        turned,
        shared,
      ],
      initializers: [
        tensor('w', [IN, OUT], packedWeight),
        tensor('stored', [OUT, IN], packedWeight),
        ...constants,
      ],
      inputs: io.inputs,
      outputs: ['a', 'c', 'z'],
    }),
  );
  const [one, output, merged, staying] = [1, 2, 3, 4].map(() => folder.fresh()) as string[];
  const insert = (from: string, to: string, name: string, seed: number) =>
    patchFile(from, to, {
      ...{ ...attentionOnly, targets: ['re:.*qkv_dense'], name, perNode: true },
      factors: (a) => trained(a, seed, 0.2),
    });
  await insert(path, one!, 'one', 1);
  await insert(one!, output!, 'two', 2);
  const expected = await run(output!, x);
  await merge(output!, { output: merged!, verify: false });
  expectClose(await run(merged!, x), expected, 1e-5);
  await merge(output!, { name: 'one', output: staying!, verify: false });
  expectClose(await run(staying!, x), expected, 1e-5);
});

it('takes adapters of PEFT, and gives them back', async () => {
  const tensors = { ...loraTensors(PARTS[0]!, [IN, 8]), ...loraTensors(PARTS[2]!, [IN, 12]) };
  const config = { peft_type: 'LORA', r: 2, lora_alpha: 6 };
  const adapter = peftFolder(folder.fresh('peft'), config, tensors);
  const [applied, expected] = [folder.fresh(), folder.fresh()];
  await apply(packed(), adapter, { output: applied });
  await apply(separate(), adapter, { output: expected });
  expectClose(await run(applied, x), await run(expected, x), 1e-5);
  const back = await factorsOf(applied);
  expect([...back.tensors.keys()].sort()).toEqual(Object.keys(tensors).sort());
});

it('trains its bias', async () => {
  const path = packed();
  const { output } = await patched(path);
  const result = await trainedOn(output, { trainBias: true });
  const [merged, base] = [folder.fresh(), folder.fresh()];
  expect((await merge(result, { output: merged })).replaced).toEqual(['b']);
  expectClose(await run(merged, x), await run(result, x), 1e-5);
  await unpatch(result, { output: base });
  expect(sameFiles(base, path)).toBe(true);
});

/** dL/dΔW of each layer. */
async function gradientsOf(path: string): Promise<Map<string, Float64Array>> {
  return withModel(path, async ({ patched, reader }) => {
    const { layers } = chooseLayers(patched, {});
    const how = { loss: 'mse', modelOutput: 'y', batchSize: 2, provider: 'cpu' } as const;
    const found = new Map<string, Float64Array>();
    for await (const one of weightGradients(patched, reader, layers, { ...how, data: data() })) {
      if ('values' in one) found.set(one.layer.module, one.values);
    }
    return found;
  });
}

it('has the gradient of its weight that separate layers have', async () => {
  const [whole, parts] = [await gradientsOf(packed()), await gradientsOf(separate())];
  const gradient = whole.get('bert.encoder.layer.0.attention.self.qkv_dense')!;
  const expected = Array.from({ length: IN }, (_, row) =>
    PARTS.flatMap((name, i) => [
      ...parts.get(name)!.subarray(row * WIDTHS[i]!, (row + 1) * WIDTHS[i]!),
    ]),
  ).flat();
  expect(maxDifference(gradient, expected)).toBeLessThan(1e-6);
  const options = { init: 'gradient', data: data(), loss: 'mse', batchSize: 2 } as const;
  const { adapters } = await patched(packed(), { ...options, targets: ['qkv_dense'] });
  expect(adapters).toHaveLength(1);
});

it.each([
  ['another input of the node', '"input":1', '"input":2'],
  ['a weight that it does not add to', '"base":"w"', '"base":"b"'],
  ['a layer whose output it is beside', '"input":1', '"inpot":1'],
])('a manifest that says of %s is damaged', async (_, from, to) => {
  const { output } = await patched(packed(), { targets: ['query'] });
  const bytes = readFileSync(output).toString('latin1');
  expect(bytes).toContain(from);
  const changed = Buffer.from(bytes.replace(from, to), 'latin1');
  const opening = () => unpatch(folder.write(changed), { output: folder.fresh() });
  await failure(opening, 'invalid-manifest');
});

describe('what an operator does not show is refused:', () => {
  it('slots, which add to an output', async () => {
    const slots = patch(packed(), { slots: true, targets: ['qkv_dense'], output: folder.fresh() });
    const { message } = await failure(() => slots, 'no-target');
    expect(message).toContain('Attention_0: its product is inside Attention');
    const others = await patch(packed(), { slots: true, output: folder.fresh() });
    expect(others.skipped.map((one) => one.node)).toEqual(['Attention_0']);
  });

  it('dropout, which drops from what an adapter reads alone', async () => {
    const { output } = await patched(packed());
    const training = () => trainedOn(output, { dropout: 0.1 });
    const { message } = await failure(training, 'unsupported');
    expect(message).toContain('the adapter of Attention_0 is added to the weight inside Attention');
  });
});
