import { describe, expect, it } from 'vitest';
import type { NewAdapter } from '../../src/adapters/factors/factors.js';
import { foldAdapters, merge } from '../../src/commands/merge.js';
import { verifyMerged } from '../../src/commands/references.js';
import { type MergeOptions, withUnmerged } from '../../src/commands/unmerged.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import {
  body,
  model,
  type NodeProto,
  node,
  type TensorProto,
  tensor,
  value,
} from '../support/models.js';

const folder = temporaryFolder();

/** Holds any file against the model at `path` with its adapters folded. */
function check(path: string, output: string, options: MergeOptions) {
  return withUnmerged(path, options, (unmerged) => verifyMerged(unmerged, path, output, options));
}

const SIZE = 32;

interface Kind {
  readonly dtype: 'float32' | 'float16';
  /** One layer, whose outputs are about `size` times as large as its inputs. */
  layer(name: string, x: string, y: string, size: number): [NodeProto[], TensorProto[]];
}

const seedOf = (name: string) => name.charCodeAt(1);
const deviation = Math.sqrt(3 / SIZE);

const float = (dtype: Kind['dtype']): Kind => ({
  dtype,
  layer: (name, x, y, size) => {
    const numbers = randomNumbers(seedOf(name), SIZE * SIZE, size * deviation);
    return [
      [node('MatMul', [x, `${name}w`], y, {}, name)],
      [tensor(`${name}w`, [SIZE, SIZE], numbers, dtype)],
    ];
  },
});

const kinds: Record<string, Kind> = {
  float32: float('float32'),
  float16: float('float16'),
  int8: {
    dtype: 'float32',
    layer: (name, x, y, size) => {
      const steps = randomNumbers(seedOf(name), SIZE * SIZE, 100).map(Math.round);
      return [
        [
          node('DequantizeLinear', [`${name}q`, `${name}s`], `${name}w`),
          node('MatMul', [x, `${name}w`], y, {}, name),
        ],
        [
          tensor(`${name}q`, [SIZE, SIZE], steps, 'int8'),
          tensor(`${name}s`, [], [(size * deviation) / 100]),
        ],
      ];
    },
  },
  int4: {
    dtype: 'float32',
    layer: (name, x, y, size) => {
      const bytes = randomNumbers(seedOf(name), (SIZE * SIZE) / 2).map((v) =>
        Math.floor((v + 1) * 127.9),
      );
      const scales = new Float64Array((SIZE * SIZE) / 16).fill((size * deviation) / 8);
      const attributes = { K: SIZE, N: SIZE, bits: 4, block_size: 16 };
      return [
        [node('com.microsoft:MatMulNBits', [x, `${name}q`, `${name}s`], y, attributes, name)],
        [
          tensor(`${name}q`, [SIZE, SIZE / 16, 8], bytes, 'uint8'),
          tensor(`${name}s`, [scales.length], scales),
        ],
      ];
    },
  },
};

/** `y = l2(tanh(l1(x)))`, where y is about `size`. */
function network({ dtype, layer }: Kind, size: number): string {
  const [first, second] = [layer('l1', 'x', 'h', 1), layer('l2', 't', 'y', size)];
  const bytes = model({
    opset: 21,
    nodes: [...first[0], node('Tanh', ['h'], 't'), ...second[0]],
    initializers: [...first[1], ...second[1]],
    inputs: [value('x', ['n', SIZE], dtype)],
    outputs: [value('y', undefined, dtype)],
  });
  return folder.write(bytes);
}

type Factors = (adapters: readonly NewAdapter[]) => NewAdapter[];

/** Adapters that move each layer by `share`, the second one by that of its size. */
const adapters =
  (size: number, share: number): Factors =>
  (all) =>
    trained(all, 1, 1).map((one, i) => ({
      ...one,
      values: (factor) => {
        const by = factor === 'a' ? 0.25 : share * (i === 1 ? size : 1) * 0.2;
        return one.values(factor).map((v) => v * by);
      },
    }));

const changed =
  (factors: Factors, which: number, change: (b: Float64Array) => Float64Array): Factors =>
  (all) =>
    factors(all).map((one, i) => ({
      ...one,
      values: (factor) => {
        const values = one.values(factor);
        return factor === 'b' && i === which ? change(values) : values;
      },
    }));

const OPTIONS = { rank: 4, blocks: 2 };

async function patched(base: string, factors: Factors): Promise<string> {
  const path = folder.fresh();
  await patchFile(base, path, { ...OPTIONS, factors });
  return path;
}

async function folded(path: string, scale = 1): Promise<string> {
  const output = folder.fresh();
  await foldAdapters(path, { output, scale });
  return output;
}

describe.each([
  ['float32', 1e-30],
  ['float32', 1e-6],
  ['float32', 1],
  ['float32', 1e30],
  ['float16', 1e-3],
  ['float16', 1],
  ['float16', 1e3],
  ['int8', 1e-30],
  ['int8', 1e30],
  ['int4', 1e-30],
  ['int4', 1e30],
] as const)('outputs of %s around %d', (kind, size) => {
  it('prove a right fold and no other', async () => {
    const base = network(kinds[kind]!, size);
    const right = adapters(size, 0.3);
    const path = await patched(base, right);
    const wrong = {
      half: await folded(path, 0.5),
      'not folded': base,
      'without the first layer': await folded(
        await patched(
          base,
          changed(right, 0, (b) => b.fill(0)),
        ),
      ),
      'with its numbers turned around': await folded(
        await patched(
          base,
          changed(right, 1, (b) => b.reverse()),
        ),
      ),
    };
    const found = await check(path, await folded(path), {});
    expect(found).toMatchObject({ passed: true, proven: true });
    for (const [what, output] of Object.entries(wrong)) {
      expect((await check(path, output, {})).passed, what).toBe(false);
    }
  });
});

describe('merge', () => {
  it('says that adapters at their start prove nothing', async () => {
    const path = folder.fresh();
    await patchFile(network(kinds.float32!, 1), path, OPTIONS);
    const { verification } = await merge(path, { output: folder.fresh() });
    expect(verification).toMatchObject({
      passed: true,
      proven: false,
      moved: { maxAbsDiff: 0 },
      reason: 'the adapters move nothing on these samples',
    });
  });

  it('runs both branches that a bool chooses between', async () => {
    const { layer } = kinds.float32!;
    const branch = (name: string) => {
      const [nodes, initializers] = layer(name, 'x', `${name}y`, 1);
      return { graph: body({ nodes, initializers, outputs: [`${name}y`] }) };
    };
    const base = folder.write(
      model({
        nodes: [
          node('If', ['use_cache'], 'y', { then_branch: branch('l1'), else_branch: branch('l2') }),
        ],
        inputs: [value('x', ['n', SIZE]), value('use_cache', [1], 'bool')],
        outputs: [value('y', ['n', SIZE])],
      }),
    );
    const right = adapters(1, 0.3);
    const path = await patched(base, right);
    const found = await check(path, await folded(path), {});
    expect(found).toMatchObject({ samples: 6, passed: true, proven: true });
    for (const which of [0, 1]) {
      const other = await patched(
        base,
        changed(right, which, (b) => b.fill(0)),
      );
      expect((await check(path, await folded(other), {})).passed).toBe(false);
    }
  });
});
