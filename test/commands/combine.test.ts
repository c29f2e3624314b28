/** Several adapter sets as one, against sums of dense matrices. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { StoredAdapter } from '../../src/adapters/files/adapter-file.js';
import { openAdapter } from '../../src/adapters/files/open-adapter.js';
import { type CombineOptions, combine } from '../../src/commands/combine.js';
import { extract } from '../../src/commands/extract.js';
import { type InsertOptions, insertInto, trained } from '../support/adapters.js';
import { denseDeltas as deltas } from '../support/dense.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model, node, tensor } from '../support/models.js';
import { maxAbs, maxDifference } from '../support/run.js';

const folder = temporaryFolder();

const IN = 12;
const OUT = 8;

/** Layers of 12 to 8 features. */
const base = model({
  nodes: ['one', 'two'].map((name) =>
    node('MatMul', ['x', `w.${name}`], `y.${name}`, {}, `/net/${name}/MatMul`),
  ),
  initializers: ['one', 'two'].map((name) => tensor(`w.${name}`, [IN, OUT])),
  inputs: ['x'],
  outputs: ['y.one', 'y.two'],
});

/** An adapter file with random numbers. */
async function adapter(seed: number, options: InsertOptions = {}): Promise<string> {
  const output = folder.fresh(`adapter${seed}.safetensors`);
  const factors: InsertOptions['factors'] = (adapters) => trained(adapters, seed);
  const bytes = await insertInto(base, { factors, blocks: 2, rank: 4, ...options });
  await extract(folder.write(bytes), { output });
  return output;
}

const weighted = (parts: readonly Float64Array[], weights: readonly number[]) =>
  Float64Array.from(parts[0]!, (_, i) =>
    parts.reduce((sum, part, k) => sum + weights[k]! * part[i]!, 0),
  );

async function combined(paths: readonly string[], options: Partial<CombineOptions> = {}) {
  const output = folder.fresh('combined.safetensors');
  const result = await combine(paths, { output, ...options });
  return { result, output, deltas: deltas(output) };
}

function expectNear(found: Float64Array, expected: Float64Array, tolerance = 1e-6) {
  expect(maxDifference(found, expected)).toBeLessThan(tolerance * maxAbs(expected));
}

describe('the linear combination', () => {
  const kinds: Record<string, InsertOptions> = {
    localized: {},
    hybrid: { hybrid: 2 },
    diagonal: { structure: 'diagonal' },
    global: { structure: 'global', scaling: 'rslora' },
  };
  it.each(Object.entries(kinds))(
    'is the sum of %s adapters, in their structure',
    async (_, kind) => {
      const paths = [await adapter(1, kind), await adapter(2, { ...kind, rank: 8, alpha: 3 })];
      const weights = [0.7, -0.4];
      const { result, deltas: found } = await combined(paths, { weights });
      const [first, second] = paths.map(deltas);
      for (const [name, delta] of Object.entries(found)) {
        expectNear(delta, weighted([first![name]!, second![name]!], weights));
      }
      expect(result.adapters[0]).toMatchObject({
        structure: kind.structure ?? 'localized',
        rank: 12,
        error: 0,
        inputs: [0, 1],
      });
    },
  );

  it('is plain LoRA where structures differ, and the sum still', async () => {
    const paths = [
      await adapter(1),
      await adapter(2, { structure: 'diagonal' }),
      await adapter(3, { structure: 'global', hybrid: 1 }),
    ];
    const weights = [1, 2, 0.5];
    const { result, deltas: found } = await combined(paths, { weights });
    const parts = paths.map((path) => deltas(path)['net.one']!);
    expectNear(found['net.one']!, weighted(parts, weights));
    // 4 blocks of rank 2, 2 of rank 4, and 4 + 1.
    expect(result.adapters[0]).toMatchObject({ structure: 'global', rank: 21 });
  });

  it('keeps the numbers of a layer that one set alone adapts, and scales it', async () => {
    const paths = [await adapter(1), await adapter(2, { targets: ['two'] })];
    const { output, result } = await combined(paths, { weights: [0.5, 1] });
    expect(result.adapters.map(({ inputs }) => inputs)).toEqual([[0], [0, 1]]);
    const [before, after] = [openAdapter(paths[0]!), openAdapter(output)];
    const [was, is] = [before.adapters[0]!, after.adapters[0]!];
    expect(is.values('a')).toEqual(was.values('a'));
    expect(is.record.scale).toBe(0.5 * was.record.scale);
    before.close();
    after.close();
  });

  it('finds layers again whose paths begin in another way', async () => {
    const path = await adapter(1, { structure: 'global' });
    const wrapped = folder.fresh('wrapped');
    await combine([path], { output: wrapped, peftPrefix: '=model' });
    const { result, deltas: found } = await combined([path, wrapped], { weights: [1, 2] });
    expect(result.adapters.map(({ name, inputs }) => [name, inputs])).toEqual([
      ['net.one', [0, 1]],
      ['net.two', [0, 1]],
    ]);
    const before = deltas(path)['net.two']!;
    expectNear(found['net.two']!, weighted([before], [3]));
  });

  it('of one set alone is a copy in another format, and back', async () => {
    const path = await adapter(1, { structure: 'global', targets: ['one'] });
    const peft = folder.fresh('peft');
    await combine([path], { output: peft });
    const { output } = await combined([peft]);
    const read = (of: string) => {
      const file = openAdapter(of);
      const [{ values, record }] = file.adapters as [StoredAdapter];
      const found = { a: values('a'), b: values('b'), scale: record.scale };
      file.close();
      return found;
    };
    expect(read(output)).toEqual(read(path));
  });
});

describe('svd', () => {
  it('has the best error that a rank allows, and tells it', async () => {
    const paths = [await adapter(1), await adapter(2)];
    const exact = await combined(paths, { weights: [1, 1] });
    const { result, deltas: found } = await combined(paths, {
      ...{ method: 'svd', structure: 'global', rank: 3 },
    });
    const [wanted, got] = [exact.deltas['net.one']!, found['net.one']!];
    const norm = (values: Float64Array) => Math.hypot(...values);
    const error = norm(wanted.map((value, i) => value - got[i]!)) / norm(wanted);
    expect(result.adapters[0]!.error).toBeCloseTo(error, 6);
    // What is left out is orthogonal to what is kept: |wanted|² = |got|² + |rest|².
    expect(error).toBeCloseTo(Math.sqrt(1 - (norm(got) / norm(wanted)) ** 2), 6);
    expect(result.adapters[0]).toMatchObject({ structure: 'global', rank: 3 });
  });

  it('is exact at the rank of the sum', async () => {
    const paths = [await adapter(1), await adapter(2)];
    const exact = await combined(paths);
    const { deltas: found, result } = await combined(paths, {
      ...{ method: 'svd', structure: 'global', rank: 8 },
    });
    expectNear(found['net.two']!, exact.deltas['net.two']!);
    expect(result.adapters[1]!.error).toBeLessThan(1e-7);
  });

  it('keeps the structure that the sets share, at their rank', async () => {
    const paths = [await adapter(1), await adapter(2)];
    const { result } = await combined(paths, { method: 'svd' });
    expect(result.adapters[0]).toMatchObject({ structure: 'localized', grid: [2, 2], rank: 4 });
    expect(result.adapters[0]!.error).toBeGreaterThan(0.01);
  });

  it('leaves untrained adapters zero', async () => {
    const zero: InsertOptions = { factors: (adapters) => [...adapters] };
    const paths = [await adapter(1, zero), await adapter(2, zero)];
    const { deltas: found } = await combined(paths, { method: 'svd', structure: 'global' });
    expect(maxAbs(found['net.one']!)).toBe(0);
  });
});

describe('ties', () => {
  it('keeps the largest numbers, elects signs, and averages those that agree', async () => {
    const paths = [await adapter(1), await adapter(2), await adapter(3)];
    const weights = [1, 0.5, 2];
    const density = 0.3;
    const { deltas: found } = await combined(paths, {
      ...{ method: 'ties', weights, density, structure: 'global', rank: OUT },
    });
    const parts = paths.map((path) => deltas(path)['net.one']!);
    expectNear(found['net.one']!, plainTies(parts, weights, density));
  });
});

/** TIES from its paper's definition, a number at a time. */
function plainTies(parts: readonly Float64Array[], weights: readonly number[], density: number) {
  const kept = parts.map((part) => {
    const order = [...part.keys()].sort((x, y) => Math.abs(part[y]!) - Math.abs(part[x]!));
    const top = new Set(order.slice(0, Math.floor(density * part.length)));
    return part.map((value, i) => (top.has(i) ? value : 0));
  });
  return Float64Array.from(parts[0]!, (_, i) => {
    const values = kept.map((part) => part[i]!);
    const isPositive = values.reduce((x, y) => x + y, 0) >= 0;
    const agree = [...values.keys()].filter((k) => (isPositive ? values[k]! > 0 : values[k]! < 0));
    return agree.length === 0
      ? 0
      : agree.reduce((sum, k) => sum + weights[k]! * values[k]!, 0) / agree.length;
  });
}

describe('dare', () => {
  const dare = { method: 'dare', structure: 'global', rank: OUT } as const;

  it('keeps a share of the numbers, divided by it', async () => {
    const paths = [await adapter(1, { structure: 'global' })];
    const { deltas: found } = await combined(paths, { ...dare, density: 0.5 });
    const before = deltas(paths[0]!)['net.one']!;
    const after = found['net.one']!;
    const limit = 1e-6 * maxAbs(before);
    const kept = [...after.keys()].filter((i) => Math.abs(after[i]!) > limit);
    expect(kept.length / after.length).toBeGreaterThan(0.35);
    expect(kept.length / after.length).toBeLessThan(0.65);
    for (const i of kept) expect(Math.abs(after[i]! - 2 * before[i]!)).toBeLessThan(2 * limit);
  });

  it('is the same for the same seed, and the plain sum at density 1', async () => {
    const paths = [await adapter(1), await adapter(2)];
    const at = (seed: number, density = 0.5) => combined(paths, { ...dare, density, seed });
    const [one, same, other, all] = [await at(1), await at(1), await at(2), await at(1, 1)];
    expect(readFileSync(one.output).equals(readFileSync(same.output))).toBe(true);
    expect(one.deltas).not.toEqual(other.deltas);
    const sum = await combined(paths);
    expectNear(all.deltas['net.two']!, sum.deltas['net.two']!);
  });
});

describe('combining is refused', () => {
  const cases: readonly [string, Partial<CombineOptions>, string][] = [
    ['for another number of weights', { weights: [1] }, '1 weights for 2 adapter sets'],
    ['for a weight that is no number', { weights: [1, Number.NaN] }, '`weights`[1] is NaN'],
    ['without a density', { method: 'ties' }, '`density` is missing'],
    ['for a negative density', { method: 'dare', density: -0.1 }, '`density` is -0.1'],
    ['for a density of 0', { method: 'dare', density: 0 }, '`density` is 0'],
    [
      'for a density that has no effect',
      { density: 0.5 },
      '`density` has no effect without `method` ties or dare',
    ],
    [
      'for a rank that has no effect',
      { rank: 4 },
      '`rank` has no effect without `method` svd, ties or dare',
    ],
    [
      'for blocks without a structure',
      { method: 'svd', blocks: 2 },
      '`blocks` has no effect without `structure`',
    ],
    [
      'for a rank that blocks cannot share',
      { method: 'svd', rank: 5 },
      'rank 5 is not a multiple of 2',
    ],
  ];
  it.each(cases)('%s', async (_, options, message) => {
    const paths = [await adapter(1), await adapter(2)];
    const output = folder.fresh('combined.safetensors');
    const error = await failure(() => combine(paths, { output, ...options }), 'invalid-argument');
    expect(error.message).toContain(message);
    expect(existsSync(output)).toBe(false);
  });

  it('for sets of layers of other sizes', async () => {
    const other = model({
      nodes: [node('MatMul', ['x', 'w'], 'y', {}, '/net/one/MatMul')],
      initializers: [tensor('w', [IN, 4])],
      inputs: ['x'],
      outputs: ['y'],
    });
    const narrow = folder.fresh('narrow.safetensors');
    await extract(folder.write(await insertInto(other, { rank: 4, blocks: 2 })), {
      output: narrow,
    });
    const paths = [await adapter(1), narrow];
    const error = await failure(
      () => combine(paths, { output: folder.fresh('combined.safetensors') }),
      'adapter-mismatch',
    );
    expect(error.message).toMatch(/net\.one is 12 x 8 in .* and 12 x 4 in/);
  });

  it('for numbers that are none, and leaves nothing behind', async () => {
    const path = await adapter(1);
    const bytes = readFileSync(path);
    new DataView(bytes.buffer, bytes.byteOffset).setFloat32(bytes.length - 4, Number.NaN, true);
    writeFileSync(path, bytes);
    for (const output of [folder.fresh('combined.safetensors'), folder.fresh('peft')]) {
      const error = await failure(
        () => combine([path, path], { output, method: 'svd' }),
        'invalid-adapter',
      );
      expect(error.message).toContain('holds NaN');
      expect(existsSync(output)).toBe(false);
    }
  });

  it('onto one of its inputs', async () => {
    const path = await adapter(1, { structure: 'global' });
    const peft = folder.fresh('peft');
    await combine([path], { output: peft });
    for (const output of [path, peft]) {
      const error = await failure(
        () => combine([path, peft], { output, force: true }),
        'invalid-argument',
      );
      expect(error.message).toContain('is an input');
    }
  });
});
