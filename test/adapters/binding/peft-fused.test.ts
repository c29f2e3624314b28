/** Adapters of separate projections beside a layer that computes them together. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { AdapterSession } from '../../../src/adapters/slots/adapter-session.js';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { foldAdapters } from '../../../src/commands/merge.js';
import { resolveTrainOptions } from '../../../src/commands/options/train.js';
import { patch } from '../../../src/commands/patch.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { openSafetensors } from '../../../src/formats/safetensors.js';
import { tensorToFloat64 } from '../../../src/runtime/tensor-value.js';
import { safetensors } from '../../data/data.js';
import { randomNumbers } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, type NodeProto, node, tensor, value } from '../../support/models.js';
import { graloraTensors, loraTensors, type PeftTensors, peftFolder } from '../../support/peft.js';
import { expectClose, feed, maxDifference, run } from '../../support/run.js';

const folder = temporaryFolder();
const IN = 8;

interface Part {
  readonly name: string;
  readonly width: number;
}

const parts = (widths: Record<string, number>): Part[] =>
  Object.entries(widths).map(([name, width]) => ({ name, width }));

/** Numbers of one projection's weight, [in, width]. */
function weightOf({ name, width }: Part): Float64Array {
  const seed = name.charCodeAt(0);
  return Float64Array.from({ length: IN * width }, (_, i) => (((i * 29 + seed) % 17) - 8) / 16);
}

const separateModel = (list: readonly Part[]) =>
  model({
    nodes: [
      ...list.map((part) =>
        node('MatMul', ['x', part.name], `y.${part.name}`, {}, `/a/${part.name}/MatMul`),
      ),
      node(
        'Concat',
        list.map(({ name }) => `y.${name}`),
        'y',
        { axis: -1 },
      ),
    ],
    initializers: list.map((part) => tensor(part.name, [IN, part.width], weightOf(part))),
    inputs: [value('x', ['batch', 'length', IN])],
    outputs: ['y'],
  });

/** The same in one layer, with what stands behind it. */
function fusedModel(list: readonly Part[], name: string, behind: readonly NodeProto[] = []) {
  const width = list.reduce((sum, part) => sum + part.width, 0);
  const weights = list.map(weightOf);
  const fused = Float64Array.from({ length: IN * width }, (_, i) => {
    let column = i % width;
    const at = list.findIndex((part) => {
      if (column < part.width) return true;
      column -= part.width;
      return false;
    });
    return weights[at]![Math.floor(i / width) * list[at]!.width + column]!;
  });
  return model({
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, `/a/${name}/MatMul`), ...behind],
    initializers: [tensor('w', [IN, width], fused), ...shapes],
    inputs: [value('x', ['batch', 'length', IN])],
    outputs: ['y', ...behind.flatMap(({ output }) => (output ?? []).slice(-1))],
  });
}

const shapes = [
  tensor('per_head', [4], [0, 0, 4, 6], 'int64'),
  tensor('by_part', [5], [0, 0, 3, 4, 2], 'int64'),
  tensor('sizes', [3], [8, 8, 8], 'int64'),
  tensor('open', [4], [0, 0, -1, 6], 'int64'),
  tensor('one', [1], [1], 'int64'),
  tensor('two', [1], [2], 'int64'),
  tensor('last', [1], [-1], 'int64'),
];

const x = {
  x: feed(
    [2, 3, IN],
    Float64Array.from({ length: 48 }, (_, i) => Math.sin(i * 1.7)),
  ),
};

const inputs = new Map([
  ['x', { dtype: 'float32', dims: x.x.dims, data: x.x.data as Float32Array } as const],
]);

/** Applied and merged, the fused layer must do what the separate ones do, and unpatch gives it back. */
async function expectSame(list: readonly Part[], name: string, adapter: string) {
  const separate = folder.write(separateModel(list));
  const fused = folder.write(fusedModel(list, name));
  const [expected, applied, merged] = [folder.fresh(), folder.fresh(), folder.fresh()];
  await apply(separate, adapter, { output: expected });
  const result = await apply(fused, adapter, { output: applied });
  await foldAdapters(fused, { adapter, output: merged });
  const { y } = await run(expected, x);
  expectClose(await run(applied, x), { y: y! }, 1e-5);
  expectClose(await run(merged, x), { y: y! }, 1e-5);
  const back = folder.fresh();
  await unpatch(applied, { output: back });
  expect(readFileSync(back).equals(readFileSync(fused))).toBe(true);
  return result.adapters;
}

const numbersIn = (peft: string) => join(peft, 'adapter_model.safetensors');

const LORA = { peft_type: 'LORA', r: 2, lora_alpha: 6 };

describe('adapters beside a fused layer', () => {
  it('are adapters of their own columns, with no numbers for a part that none is for', async () => {
    const tensors = { ...loraTensors('a.q_proj', [IN, 8]), ...loraTensors('a.v_proj', [IN, 8]) };
    const adapter = peftFolder(folder.fresh('peft'), LORA, tensors);
    const list = parts({ q_proj: 8, k_proj: 8, v_proj: 8 });
    const made = await expectSame(list, 'qkv_proj', adapter);
    const each = { structure: 'global', scale: 3, rank: 2, parameters: 2 * (IN + 8) };
    expect(made).toMatchObject([
      { name: 'a.q_proj', ...each, part: { first: 0, of: 24 } },
      { name: 'a.v_proj', ...each, part: { first: 16, of: 24 } },
    ]);
  });

  it('lie where they belong where keys and values are narrower', async () => {
    const tensors = {
      // As files have them: in the order of their names, which is not that of the columns.
      ...loraTensors('a.key', [IN, 4]),
      ...loraTensors('a.query', [IN, 8]),
      ...loraTensors('a.value', [IN, 4]),
    };
    const adapter = peftFolder(folder.fresh('peft'), LORA, tensors);
    const made = await expectSame(parts({ query: 8, key: 4, value: 4 }), 'qkv', adapter);
    const each = { structure: 'global', rank: 2, scale: 3 };
    expect(made).toMatchObject([
      { name: 'a.query', ...each, part: { first: 0, of: 16 } },
      { name: 'a.key', ...each, part: { first: 8, of: 16 } },
      { name: 'a.value', ...each, part: { first: 12, of: 16 } },
    ]);
  });

  it.each<[string, Record<string, number>]>([
    ['q', { q: 8, k: 4, v: 4 }],
    ['k', { q: 8, k: 4, v: 4 }],
    ['v', { q: 8, k: 4, v: 4 }],
    ['q', { q: 8, k: 8, v: 8 }],
  ])('find their columns where only %s of %o is adapted', async (name, widths) => {
    const tensors = loraTensors(`a.${name}`, [IN, widths[name]!]);
    await expectSame(parts(widths), 'Wqkv', peftFolder(folder.fresh('peft'), LORA, tensors));
  });

  it('may have ranks and scales of their own', async () => {
    const tensors = {
      ...loraTensors('a.gate_proj', [IN, 12], 3),
      ...loraTensors('a.up_proj', [IN, 12], 2),
    };
    const config = { ...LORA, rank_pattern: { gate_proj: 3 }, alpha_pattern: { up_proj: 1 } };
    const adapter = peftFolder(folder.fresh('peft'), config, tensors);
    const list = parts({ gate_proj: 12, up_proj: 12 });
    const made = await expectSame(list, 'gate_up_proj', adapter);
    expect(made).toMatchObject([
      { name: 'a.gate_proj', rank: 3, scale: 2 },
      { name: 'a.up_proj', rank: 2, scale: 0.5 },
    ]);
  });

  it.each([0, 3])('may be GRALORA, with a general part of rank %i', async (h) => {
    const shape = { rank: 4, k: 2, h };
    const tensors = {
      ...graloraTensors('a.k_proj', [IN, 6], shape),
      ...graloraTensors('a.v_proj', [IN, 6], shape),
    };
    const config = { peft_type: 'GRALORA', r: 4, gralora_k: 2, hybrid_r: h, alpha: 8 };
    const adapter = peftFolder(folder.fresh('peft'), config, tensors);
    const made = await expectSame(parts({ k_proj: 6, v_proj: 6 }), 'kv_proj', adapter);
    const each = { structure: 'localized', grid: [2, 2], hybridRank: h };
    expect(made).toMatchObject([each, each]);
  });

  it('may be GRALORA beside parts of other widths', async () => {
    const shape = { rank: 4, k: 2 };
    const tensors = {
      ...graloraTensors('a.q_proj', [IN, 8], shape),
      ...graloraTensors('a.k_proj', [IN, 4], shape),
    };
    const config = { peft_type: 'GRALORA', r: 4, gralora_k: 2, alpha: 8 };
    const adapter = peftFolder(folder.fresh('peft'), config, tensors);
    const made = await expectSame(parts({ q_proj: 8, k_proj: 4, v_proj: 4 }), 'qkv_proj', adapter);
    const each = { structure: 'localized', grid: [2, 2], blockRank: 2 };
    expect(made).toMatchObject([
      { name: 'a.q_proj', ...each },
      { name: 'a.k_proj', ...each },
    ]);
  });

  it('fill the one slot of their layer, from every format', async () => {
    const widths = { q_proj: 8, k_proj: 4, v_proj: 4 };
    const tensors = Object.entries(widths).map(([name, width]) =>
      loraTensors(`a.${name}`, [IN, width]),
    );
    const given = peftFolder(folder.fresh('peft'), LORA, Object.assign({}, ...tensors));
    const fused = folder.write(fusedModel(parts(widths), 'qkv_proj'));
    const [applied, slotted] = [folder.fresh(), folder.fresh()];
    await apply(fused, given, { output: applied });
    await patch(fused, { slots: 'required', output: slotted });
    const session = await AdapterSession.open(slotted);
    const { y } = await run(applied, x);
    for (const format of ['peft', 'safetensors', 'onnx_adapter'] as const) {
      const extracted = folder.fresh(format);
      await extract(applied, { output: extracted, format });
      session.load(format, extracted);
      const found = (await session.run(inputs, { adapters: format })).get('y')!;
      expect(maxDifference(tensorToFloat64(found), y!.data), format).toBeLessThan(1e-5);
    }
    await session.release();
  });

  it('train as those of separate layers do', async () => {
    const widths = { q_proj: 8, k_proj: 4, v_proj: 4 };
    const tensors = Object.entries(widths).map(([name, width]) =>
      loraTensors(`a.${name}`, [IN, width]),
    );
    const given = peftFolder(folder.fresh('peft'), LORA, Object.assign({}, ...tensors));
    const data = folder.write(
      safetensors({
        x: ['float32', [6, 3, IN], [...randomNumbers(1, 18 * IN)]],
        target: ['float32', [6, 3, 16], [...randomNumbers(2, 18 * 16)]],
      }),
      'data.safetensors',
    );
    const list = parts(widths);
    const [separate, fused] = await Promise.all(
      [separateModel(list), fusedModel(list, 'qkv_proj')].map(async (bytes) => {
        const [applied, trained, extracted] = ['.onnx', '.onnx', ''].map((kind) =>
          folder.fresh(`out${kind}`),
        ) as [string, string, string];
        await apply(folder.write(bytes), given, { output: applied });
        const options = {
          data,
          loss: 'mse',
          batchSize: 2,
          steps: 3,
          lr: 0.01,
          threads: 1,
        } as const;
        await runTraining(
          applied,
          resolveTrainOptions({ ...options, provider: 'cpu', output: trained }),
        );
        await extract(trained, { output: extracted, format: 'peft' });
        return openSafetensors(numbersIn(extracted));
      }),
    );
    const start = openSafetensors(numbersIn(given));
    for (const name of start.tensors.keys()) {
      const [before, one, other] = [start, separate!, fused!].map((file) => file.readFloat64(name));
      expect(maxDifference(other!, one!), name).toBeLessThan(1e-6);
      expect(maxDifference(other!, before!), name).toBeGreaterThan(1e-3);
    }
  });

  it.each(['peft', 'safetensors'] as const)('come out as they went in: %s', async (format) => {
    const widths = { q_proj: [IN, 8], k_proj: [IN, 4], v_proj: [IN, 4] } as const;
    const tensors = Object.assign(
      {},
      ...Object.entries(widths).map(([name, size]) => loraTensors(`a.${name}`, [...size])),
    );
    const given = peftFolder(folder.fresh('peft'), LORA, tensors);
    const fused = folder.write(fusedModel(parts({ q_proj: 8, k_proj: 4, v_proj: 4 }), 'qkv_proj'));
    const [applied, again] = [folder.fresh(), folder.fresh()];
    await apply(fused, given, { output: applied });
    const extracted = folder.fresh(format);
    await extract(applied, { output: extracted, format });
    if (format === 'peft') {
      const [one, other] = [given, extracted].map((path) => openSafetensors(numbersIn(path)));
      expect([...other!.tensors.keys()].sort()).toEqual([...one!.tensors.keys()].sort());
      for (const name of one!.tensors.keys()) {
        expect(other!.readFloat64(name), name).toEqual(one!.readFloat64(name));
      }
    }
    await apply(fused, extracted, { output: again });
    expect(await run(again, x)).toEqual(await run(applied, x));
  });

  it('may have magnitudes (DoRA), if all parts have', async () => {
    const list = parts({ k_proj: 6, v_proj: 6 });
    const magnitude = (name: string) => ({
      [`base_model.model.a.${name}.lora_magnitude_vector`]: {
        shape: [6],
        values: [1, 2, 0.5, 1.5, 3, 1],
      },
    });
    const both = {
      ...loraTensors('a.k_proj', [IN, 6]),
      ...loraTensors('a.v_proj', [IN, 6]),
      ...magnitude('k_proj'),
    };
    const config = { ...LORA, use_dora: true };
    const all = peftFolder(folder.fresh('peft'), config, { ...both, ...magnitude('v_proj') });
    await expectSame(list, 'kv_proj', all);
    const one = peftFolder(folder.fresh('peft'), LORA, both);
    const error = await refusal(fusedModel(list, 'kv_proj'), one);
    expect(error).toContain('a.k_proj has a magnitude (DoRA), and other parts');
  });
});

it('finds the packed projections of onnxruntime-genai, in its names', async () => {
  const packed = model({
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, '/model/layers.0/attn/qkv_proj/MatMul')],
    initializers: [tensor('w', [IN, 16])],
    inputs: [value('x', [1, IN])],
    outputs: ['y'],
  });
  const tensors = loraTensors('model.layers.0.self_attn.q_proj', [IN, 8]);
  const adapter = peftFolder(folder.fresh('peft'), LORA, tensors);
  const { adapters } = await apply(folder.write(packed), adapter, { output: folder.fresh() });
  expect(adapters).toMatchObject([
    { name: 'model.layers.0.self_attn.q_proj', shape: [IN, 8], part: { first: 0, of: 16 } },
  ]);
});

/** What is said when an adapter is not applied. */
async function refusal(bytes: Uint8Array, adapter: string): Promise<string> {
  const run = () => apply(folder.write(bytes), adapter, { output: folder.fresh() });
  return (await failure(run, 'adapter-mismatch')).message;
}

describe('what a graph does with a fused output', () => {
  const list = parts({ q_proj: 8, k_proj: 8, v_proj: 8 });
  const adapter = () => {
    const tensors = loraTensors('a.q_proj', [IN, 8]);
    return peftFolder(folder.fresh('peft'), LORA, tensors);
  };
  const split = (from: string, axis = -1) =>
    node('Split', [from, 'sizes'], ['s0', 's1', 's2'], { axis });
  const reshape = (shape: string) => node('Reshape', ['y', shape], 'h');

  const perHead: [string, NodeProto[]][] = [
    ['split', [reshape('per_head'), node('Split', ['h'], ['s0', 's1', 's2'], { axis: 3 })]],
    [
      'turned and split',
      [
        reshape('open'),
        node('Transpose', ['h'], 't', { perm: [0, 2, 1, 3] }),
        node('Split', ['t'], ['s0', 's1', 's2'], { axis: -1 }),
      ],
    ],
    ['sliced', [reshape('per_head'), node('Slice', ['h', 'one', 'two', 'last'], 's')]],
  ];

  it.each(perHead)('is refused where it keeps parts head by head: %s', async (_, behind) => {
    const error = await refusal(fusedModel(list, 'qkv_proj', behind), adapter());
    expect(error).toContain('a.qkv_proj keeps its parts head by head');
  });

  const sideBySide: [string, NodeProto[]][] = [
    ['split', [split('y')]],
    ['reshaped to parts', [reshape('by_part'), node('Gather', ['h', 'one'], 'g', { axis: 2 })]],
    [
      'reshaped to parts and turned',
      [
        reshape('by_part'),
        node('Transpose', ['h'], 't', { perm: [2, 0, 3, 1, 4] }),
        node('Gather', ['t', 'one'], 'g', { axis: 0 }),
      ],
    ],
  ];

  it.each(sideBySide)('shows that parts lie side by side: %s', async (_, behind) => {
    const fused = folder.write(fusedModel(list, 'query_key_value', behind));
    const { adapters } = await apply(fused, adapter(), { output: folder.fresh() });
    expect(adapters.map(({ name }) => name)).toEqual(['a.q_proj']);
  });

  it('has to show it for a name that many models use for parts by head', async () => {
    const error = await refusal(fusedModel(list, 'query_key_value'), adapter());
    expect(error).toContain('the graph does not show whether a.query_key_value keeps its parts');
  });
});

describe('beside a fused layer is refused', () => {
  const lora = (tensors: PeftTensors) => peftFolder(folder.fresh('peft'), LORA, tensors);

  it('what is no part of it by its width', async () => {
    const list = parts({ q_proj: 8, k_proj: 4, v_proj: 4 });
    const wide = lora({ ...loraTensors('a.q_proj', [IN, 8]), ...loraTensors('a.k_proj', [IN, 5]) });
    expect(await refusal(fusedModel(list, 'qkv_proj'), wide)).toContain(
      'a.qkv_proj has 16 outputs, and these are not parts of it: a.q_proj 8, a.k_proj 5',
    );
  });

  it('the same part twice', async () => {
    const list = parts({ q_proj: 8, k_proj: 8, v_proj: 8 });
    const twice = lora({ ...loraTensors('a.q', [IN, 8]), ...loraTensors('a.q_proj', [IN, 8]) });
    expect(await refusal(fusedModel(list, 'qkv_proj'), twice)).toContain(
      'a.q and a.q_proj are the same part of a.qkv_proj',
    );
  });

  it('an adapter of the whole beside separate layers of which one is missing', async () => {
    const list = parts({ q_proj: 8, k_proj: 8, other: 8 });
    const whole = lora(loraTensors('a.qkv_proj', [IN, 24]));
    const error = await refusal(separateModel(list), whole);
    expect(error).toContain('a.qkv_proj (no such layer; near: a.q_proj, a.k_proj');
  });

  it('a part of any of several layers', async () => {
    const both = model({
      nodes: [
        node('MatMul', ['x', 'w'], 'y', {}, '/a/qkv/MatMul'),
        node('MatMul', ['x', 'w2'], 'z', {}, '/a/Wqkv/MatMul'),
      ],
      initializers: [tensor('w', [IN, 24]), tensor('w2', [IN, 24])],
      inputs: [value('x', [1, IN])],
      outputs: ['y', 'z'],
    });
    expect(await refusal(both, lora(loraTensors('a.q_proj', [IN, 8])))).toContain(
      'it may be a part of any of a.qkv, a.Wqkv',
    );
  });
});
