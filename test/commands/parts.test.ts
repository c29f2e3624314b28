/** New adapters of layers that compute several modules side by side. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply } from '../../src/commands/apply.js';
import { extract } from '../../src/commands/extract.js';
import { inspect } from '../../src/commands/inspect.js';
import { merge } from '../../src/commands/merge.js';
import { resolveTrainOptions } from '../../src/commands/options/train.js';
import { type PatchOptions, patch } from '../../src/commands/patch.js';
import { runTraining } from '../../src/commands/train/run.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { safetensors } from '../data/data.js';
import { randomNumbers } from '../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import { model, type NodeProto, node, tensor, value } from '../support/models.js';
import { loraTensors, peftFolder } from '../support/peft.js';
import { expectClose, feed, maxDifference, run } from '../support/run.js';

const folder = temporaryFolder();
const IN = 8;
type Widths = Readonly<Record<string, number>>;
const QKV: Widths = { q_proj: 16, k_proj: 8, v_proj: 8 };
const GATED: Widths = { gate_proj: 12, up_proj: 12 };

const sum = (widths: Widths) => Object.values(widths).reduce((a, b) => a + b, 0);
const weightOf = (name: string, width: number) => randomNumbers(name.charCodeAt(0), IN * width);

/** Layers of one input, behind each other in one matrix. */
function packedWeight(widths: Widths): Float64Array {
  const weights = Object.entries(widths).map(([name, width]) => weightOf(name, width));
  const rows = Array.from({ length: IN }, (_, row) =>
    Object.values(widths).flatMap((width, i) => [
      ...weights[i]!.subarray(row * width, (row + 1) * width),
    ]),
  );
  return Float64Array.from(rows.flat());
}

const CONSTANTS = [
  tensor('sizes', [3], [16, 8, 8], 'int64'),
  tensor('halves', [2], [12, 12], 'int64'),
  tensor('by_head', [4], [0, 0, 4, 8], 'int64'),
  tensor('heads', [3], [2, 1, 1], 'int64'),
  tensor('by_part', [4], [0, 0, 8, 3], 'int64'),
  tensor('thirds', [3], [1, 1, 1], 'int64'),
  ...[0, 16, 24, 32].map((at) => tensor(`at${at}`, [1], [at], 'int64')),
  tensor('last', [1], [-1], 'int64'),
  tensor('bias', [32], randomNumbers(5, 32)),
  tensor('out', [16, 8], randomNumbers(6, 128)),
];

/** One layer for all, and what reads it. */
function packed(widths: Widths, path: string, behind: readonly NodeProto[]): string {
  const outputs = behind.flatMap(({ output }) => output ?? []).filter((name) => /^o\d/.test(name));
  return folder.write(
    model({
      nodes: [node('MatMul', ['x', 'w'], 'y', {}, `${path}/MatMul`), ...behind],
      initializers: [tensor('w', [IN, sum(widths)], packedWeight(widths)), ...CONSTANTS],
      inputs: [value('x', ['batch', 'length', IN])],
      outputs: ['y', ...outputs],
    }),
  );
}

const outputs = (count: number) => Array.from({ length: count }, (_, i) => `o${i}`);
const split = (sizes: string, count: number, from = 'y') =>
  node('Split', [from, sizes], outputs(count), { axis: -1 });

const names = async (path: string, options: PatchOptions = {}) => {
  const { adapters } = await patch(path, {
    rank: 4,
    blocks: 2,
    output: folder.fresh(),
    ...options,
  });
  return adapters.map(({ name, part, shape }) => [name, part?.first, shape[1]]);
};

const threeOf = (parent: string, [q, k, v]: readonly string[] = ['q_proj', 'k_proj', 'v_proj']) => [
  [`${parent}.${q}`, 0, 16],
  [`${parent}.${k}`, 16, 8],
  [`${parent}.${v}`, 24, 8],
];

describe('a layer that a builder made of several', () => {
  it('gets an adapter for each, where the Split behind it shows their widths', async () => {
    expect(await names(packed(QKV, '/a/qkv_proj', [split('sizes', 3)]))).toEqual(threeOf('a'));
    expect(await names(packed(GATED, '/m/gate_up_proj', [split('halves', 2)]))).toEqual([
      ['m.gate_proj', 0, 12],
      ['m.up_proj', 12, 12],
    ]);
  });

  const behind: [string, NodeProto[]][] = [
    ['a bias', [node('Add', ['y', 'bias'], 'sum'), split('sizes', 3, 'sum')]],
    [
      'a Reshape to heads and a Transpose',
      [
        node('Reshape', ['y', 'by_head'], 'h'),
        node('Transpose', ['h'], 't', { perm: [0, 2, 1, 3] }),
        node('Split', ['t', 'heads'], outputs(3), { axis: 1 }),
      ],
    ],
    [
      'Slices',
      [
        node('Slice', ['y', 'at24', 'at32', 'last'], 'o2'),
        node('Slice', ['y', 'at0', 'at16', 'last'], 'o0'),
        node('Slice', ['y', 'at16', 'at24', 'last'], 'o1'),
      ],
    ],
  ];
  it.each(behind)('shows them through %s', async (_, nodes) => {
    expect(await names(packed(QKV, '/a/qkv_proj', nodes))).toEqual(threeOf('a'));
  });

  it('shows them by the heads of its attention', async () => {
    const attention = node(
      'com.microsoft:GroupQueryAttention',
      ['y', '', '', '', '', 'last_key', 'total'],
      ['o0', 'k', 'v'],
      { num_heads: 4, kv_num_heads: 2 },
    );
    const path = packed(QKV, '/model/layers.0/attn/qkv_proj', [attention]);
    expect(await names(path)).toEqual(threeOf('model.layers.0.attn'));
    expect(await names(path, { targets: ['v_proj'] })).toEqual([
      ['model.layers.0.attn.v_proj', 24, 8],
    ]);
    const unnamed = packed(QKV, '', [attention]);
    expect((await names(unnamed)).map(([name]) => name)).toEqual(
      [0, 1, 2].map((i) => `/MatMul.${i}`),
    );
  });

  it('is named by patterns for all of it, and may have one adapter', async () => {
    const path = packed(QKV, '/a/qkv_proj', [split('sizes', 3)]);
    expect(await names(path, { targets: ['qkv_proj'] })).toEqual(threeOf('a'));
    expect(await names(path, { exclude: ['k_proj'] })).toHaveLength(2);
    expect(await names(path, { parts: 'whole' })).toEqual([['a.qkv_proj', undefined, 32]]);
  });
});

describe('a layer that the original model has itself', () => {
  const whole = (name: string) => [[name, undefined, 32]];

  it.each([
    ['/h.0/attn/c_attn', 'h.0.attn', ['q_proj', 'k_proj', 'v_proj']],
    ['/blocks.0/attn/qkv', 'blocks.0.attn', ['q', 'k', 'v']],
    ['/model/layers.0/self_attn/qkv_proj', 'model.layers.0.self_attn', undefined],
  ])(
    'gets one adapter, and one for each part where that is asked for: %s',
    async (path, parent, parts) => {
      const file = packed(QKV, path, [split('sizes', 3)]);
      expect(await names(file)).toEqual(whole(path.slice(1).replaceAll('/', '.')));
      expect(await names(file, { parts: 'split' })).toEqual(threeOf(parent, parts));
    },
  );

  it('is one by the configuration in its folder', async () => {
    const path = packed(QKV, '/model/layers.0/attn/qkv_proj', [split('sizes', 3)]);
    const own = folder.fresh('phi3');
    mkdirSync(own);
    writeFileSync(join(own, 'genai_config.json'), '{"model":{"type":"phi3"}}');
    writeFileSync(join(own, 'model.onnx'), readFileSync(path));
    expect(await names(join(own, 'model.onnx'))).toEqual(whole('model.layers.0.attn.qkv_proj'));
  });

  it('has no parts where its output is ordered head by head', async () => {
    const nodes = [
      node('Reshape', ['y', 'by_part'], 'h'),
      node('Split', ['h', 'thirds'], outputs(3), { axis: -1 }),
    ];
    const file = packed(GATED, '/a/qkv_proj', nodes);
    expect(await names(file, { parts: 'split' })).toEqual([['a.qkv_proj', undefined, 24]]);
  });
});

/** Layers of their own, and their outputs side by side. */
function separate(widths: Widths, parent: string): string {
  const parts = Object.keys(widths);
  return folder.write(
    model({
      nodes: [
        ...parts.map((name) =>
          node('MatMul', ['x', name], `y.${name}`, {}, `/${parent}/${name}/MatMul`),
        ),
        node(
          'Concat',
          parts.map((name) => `y.${name}`),
          'y',
          { axis: -1 },
        ),
      ],
      initializers: parts.map((name) =>
        tensor(name, [IN, widths[name]!], weightOf(name, widths[name]!)),
      ),
      inputs: [value('x', ['batch', 'length', IN])],
      outputs: ['y'],
    }),
  );
}

const x = { x: feed([2, 3, IN], randomNumbers(9, 48)) };

const forms = [
  { kind: 'lora', blocks: 2, hybrid: 1 },
  { kind: 'dora', blocks: 2 },
  { kind: 'hira', blocks: 1 },
] as const;

it.each(forms)('trains, folds and goes as the adapters of separate layers do: %o', async (form) => {
  const data = folder.write(
    safetensors({
      x: ['float32', [6, 3, IN], [...randomNumbers(1, 18 * IN)]],
      target: ['float32', [6, 3, 32], [...randomNumbers(2, 18 * 32)]],
    }),
    'data.safetensors',
  );
  const train = async (path: string) => {
    const [patched, trained, extracted, merged, back] = [
      folder.fresh(),
      folder.fresh(),
      folder.fresh('out'),
      folder.fresh(),
      folder.fresh(),
    ];
    await patch(path, { rank: 4, ...form, output: patched, verify: true });
    const options = { loss: 'mse', batchSize: 2, steps: 4, lr: 0.02, threads: 1 } as const;
    await runTraining(
      patched,
      resolveTrainOptions({ ...options, data, modelOutput: 'y', provider: 'cpu', output: trained }),
    );
    await extract(trained, { output: extracted, format: 'peft' });
    const { verification } = await merge(trained, { output: merged });
    await unpatch(trained, { output: back });
    expect(sameFiles(back, path)).toBe(true);
    expect(verification?.passed).toBe(true);
    const { y } = await run(merged, x);
    return { y: y!, file: openSafetensors(join(extracted, 'adapter_model.safetensors')), trained };
  };
  const one = await train(separate(QKV, 'a'));
  const path = packed(QKV, '/a/qkv_proj', [split('sizes', 3)]);
  const other = await train(path);
  expect([...other.file.tensors.keys()].sort()).toEqual([...one.file.tensors.keys()].sort());
  for (const name of one.file.tensors.keys()) {
    const [expected, found] = [one, other].map(({ file }) => file.readFloat64(name));
    expect(maxDifference(found!, expected!), name).toBeLessThan(1e-6);
  }
  expectClose({ y: other.y }, { y: one.y }, 1e-5);
  const { targets } = await inspect(other.trained);
  expect(targets[0]!.adapters.map(({ part }) => part?.first)).toEqual([0, 16, 24]);
});

/** Options of a run that is stopped after its second step. */
function stopping() {
  const controller = new AbortController();
  const onProgress = ({ phase, done }: { phase: string; done: number }) => {
    if (phase === 'training' && done === 2) controller.abort();
  };
  return { signal: controller.signal, onProgress };
}

it('goes on from a checkpoint as if it had not stopped', async () => {
  const path = packed(QKV, '/a/qkv_proj', [split('sizes', 3)]);
  const patched = folder.fresh();
  await patch(path, { rank: 4, blocks: 2, output: patched });
  const data = folder.write(
    safetensors({
      x: ['float32', [6, 3, IN], [...randomNumbers(1, 18 * IN)]],
      target: ['float32', [6, 3, 32], [...randomNumbers(2, 18 * 32)]],
    }),
    'data.safetensors',
  );
  const checkpoint = folder.fresh('checkpoints');
  const train = async (more: object) => {
    const output = folder.fresh();
    const options = {
      loss: 'mse',
      batchSize: 2,
      lr: 0.02,
      threads: 1,
      steps: 4,
    } as const;
    const how = { ...options, data, modelOutput: 'y', provider: 'cpu', output, ...more } as const;
    await runTraining(patched, resolveTrainOptions(how));
    return output;
  };
  const whole = await train({});
  await failure(() => train({ checkpoint, ...stopping() }), 'aborted');
  const resumed = await train({ checkpoint, resume: true });
  expect(sameFiles(resumed, whole)).toBe(true);
});

it('leaves the graph of a builder under the paths that PyTorch has', async () => {
  const out = node('MatMul', ['o0', 'out'], 'z', {}, '/model/layers.0/attn/o_proj/MatMul');
  const path = packed(QKV, '/model/layers.0/attn/qkv_proj', [split('sizes', 3), out]);
  const [patched, extracted] = [folder.fresh(), folder.fresh('out')];
  await patch(path, { rank: 4, blocks: 1, output: patched });
  await extract(patched, { output: extracted, format: 'peft' });
  const file = openSafetensors(join(extracted, 'adapter_model.safetensors'));
  const modules = ['k_proj', 'o_proj', 'q_proj', 'v_proj'];
  expect([...file.tensors.keys()].filter((key) => key.includes('lora_A')).sort()).toEqual(
    modules.map((name) => `base_model.model.model.layers.0.self_attn.${name}.lora_A.weight`),
  );
  const { adapters } = await apply(path, extracted, { output: folder.fresh() });
  expect(adapters).toHaveLength(4);
  // Whisper's may be of its encoder or its decoder.
  const cross = node('MatMul', ['x', 'w'], 'c', {}, '/model/layers.0/cross_attn/q_proj/MatMul');
  const other = packed(QKV, '/model/layers.0/attn/qkv_proj', [split('sizes', 3), out, cross]);
  await patch(other, { targets: ['o_proj'], output: patched, force: true });
  await extract(patched, { output: extracted, format: 'peft', force: true });
  const kept = openSafetensors(join(extracted, 'adapter_model.safetensors')).tensors.keys();
  expect([...kept][0]).toContain('layers.0.attn.o_proj');
});

it('takes the columns of a part from the graph, whatever the other parts are', async () => {
  const widths = { q_proj: 16, k_proj: 6, v_proj: 10 };
  const sizes = constantSizes([16, 6, 10]);
  const path = packed(widths, '/a/qkv_proj', [sizes, split('given', 3)]);
  const tensors = loraTensors('a.k_proj', [IN, 6]);
  const adapter = peftFolder(
    folder.fresh('peft'),
    { peft_type: 'LORA', r: 2, lora_alpha: 6 },
    tensors,
  );
  const [applied, expected] = [folder.fresh(), folder.fresh()];
  const { adapters } = await apply(path, adapter, { output: applied });
  expect(adapters[0]!.part).toEqual({ first: 16, of: 32 });
  await apply(separate(widths, 'a'), adapter, { output: expected });
  const { y } = await run(expected, x);
  expectClose({ y: (await run(applied, x)).y! }, { y: y! }, 1e-5);
});

function constantSizes(sizes: readonly number[]): NodeProto {
  return node('Constant', [], 'given', {
    value: { tensor: tensor('given', [sizes.length], sizes, 'int64') },
  });
}

it.each([{ init: 'pissa' }, { structure: 'auto' }] as const)(
  'refuses parts of what reads the whole weight, and gives one adapter with a note: %o',
  async (options) => {
    const path = packed(QKV, '/a/qkv_proj', [split('sizes', 3)]);
    const error = await failure(
      () => patch(path, { ...options, parts: 'split', output: folder.fresh() }),
      'invalid-argument',
    );
    expect(error.message).toContain('reads the weight of the whole layer');
    const notes: string[] = [];
    const { adapters } = await patch(path, {
      ...options,
      output: folder.fresh(),
      onNote: (text) => notes.push(text),
    });
    expect(adapters.map(({ name }) => name)).toEqual(['a.qkv_proj']);
    expect(notes.join('\n')).toContain('a.qkv_proj and others compute several modules');
  },
);
