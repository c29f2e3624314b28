/** DoRA: adapters that bring the columns of a weight to magnitudes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, test } from 'vitest';
import type { NewAdapter } from '../../../src/adapters/factors/factors.js';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { inspect } from '../../../src/commands/inspect.js';
import { merge } from '../../../src/commands/merge.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { openSafetensors } from '../../../src/formats/safetensors.js';
import {
  type InsertOptions,
  insertInto,
  patchFile,
  randomNumbers,
  trained,
} from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import {
  model,
  type NodeProto,
  node,
  type TensorProto,
  tensor,
  value,
} from '../../support/models.js';
import { expectClose, feed, maxDifference, run } from '../../support/run.js';
import { ZOO, zooFeeds, zooModel } from '../../support/zoo.js';

const folder = temporaryFolder();
const [IN, OUT, ROWS] = [4, 6, 2];
const X = [...randomNumbers(3, ROWS * IN)];
const W = [...randomNumbers(4, IN * OUT)];
const BIAS = [...randomNumbers(5, OUT)];
const M = randomNumbers(6, OUT).map((m) => 1 + m / 2);

/** The adapters as DoRA with these magnitudes. */
const asDora = (
  adapters: readonly NewAdapter[],
  magnitude: (adapter: NewAdapter) => Float64Array = () => M,
): NewAdapter[] =>
  adapters.map((adapter) => ({
    ...adapter,
    record: { ...adapter.record, kind: 'dora' },
    own: { magnitude: () => magnitude(adapter) },
  }));
const withMagnitude = (planned: readonly NewAdapter[]) => asDora(trained(planned));
const OPTIONS: InsertOptions = { rank: 2, blocks: 1, factors: withMagnitude, targets: ['re:.*'] };

const transposed = (matrix: readonly number[], rows: number, columns: number) =>
  Array.from(
    { length: matrix.length },
    (_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!,
  );

/** x · w, row-major. */
function product(x: ArrayLike<number>, w: ArrayLike<number>, inner: number): number[] {
  const [rows, columns] = [x.length / inner, w.length / inner];
  return Array.from({ length: rows * columns }, (_, at) => {
    const [row, column] = [Math.floor(at / columns), at % columns];
    let sum = 0;
    for (let i = 0; i < inner; i++) sum += x[row * inner + i]! * w[i * columns + column]!;
    return sum;
  });
}

/** What a layer with DoRA computes of X by its definition, without a bias. */
async function expected(options: InsertOptions, factor = 1): Promise<number[]> {
  // ΔW as the plain adapter makes it: its answer to the identity, less that of the base.
  const identity = Array.from({ length: IN * IN }, (_, i) => (i % (IN + 1) === 0 ? 1 : 0));
  const plain = model({
    nodes: [node('MatMul', ['x', 'w'], 'y')],
    initializers: [tensor('w', [IN, OUT], Array(IN * OUT).fill(0))],
    inputs: [value('x', ['n', IN])],
    outputs: ['y'],
  });
  const patched = await insertInto(plain, { ...options, factors: trained });
  const delta = (await run(patched, { x: feed([IN, IN], identity) })).y!.data;
  const sum = W.map((w, i) => factor * w + delta[i]!);
  const norms = M.map((_, column) => Math.hypot(...sum.filter((_, i) => i % OUT === column)));
  return product(
    X,
    sum.map((w, i) => (w * M[i % OUT]!) / norms[i % OUT]!),
    IN,
  );
}

interface Parts {
  readonly nodes: readonly NodeProto[];
  readonly initializers: readonly TensorProto[];
  readonly opset?: number;
}

const layer = ({ nodes, initializers, opset = 17 }: Parts, x: number[] = [ROWS, IN]) =>
  model({ nodes, initializers, inputs: [value('x', x)], outputs: ['y'], opset });
const matmul = (opset = 17) =>
  layer({
    nodes: [node('MatMul', ['x', 'w'], 'y')],
    initializers: [tensor('w', [IN, OUT], W)],
    opset,
  });
const gemm = () =>
  layer({
    nodes: [
      node('Gemm', ['x', 'w', 'b'], 'y', { transB: 1, alpha: { float: 2 }, beta: { float: 0.5 } }),
    ],
    initializers: [tensor('w', [OUT, IN], transposed(W, IN, OUT)), tensor('b', [OUT], BIAS)],
  });
const conv = () =>
  layer(
    {
      nodes: [node('Conv', ['x', 'w', 'b'], 'y', { strides: [1, 2] })],
      initializers: [
        tensor('w', [OUT, IN, 1, 1], transposed(W, IN, OUT)),
        tensor('b', [OUT], BIAS),
      ],
    },
    [1, IN, ROWS, 1],
  );
const leftHanded = () =>
  layer(
    {
      nodes: [node('MatMul', ['w', 'x'], 'y')],
      initializers: [tensor('w', [OUT, IN], transposed(W, IN, OUT))],
    },
    [IN, ROWS],
  );

async function outputOf(path: string | Uint8Array, x: Parameters<typeof feed>[1], dims: number[]) {
  return (await run(path, { x: feed(dims, x) })).y!.data;
}

const withBias = (y: readonly number[], scale = 1) => y.map((v, i) => v + scale * BIAS[i % OUT]!);

describe('a layer with DoRA', () => {
  test.each<[string, InsertOptions]>([
    ['LoRA', {}],
    ['a grid', { blocks: 2, rank: 4 }],
    ['a diagonal and a general part', { blocks: 2, rank: 2, structure: 'diagonal', hybrid: 1 }],
  ])('computes (W + ΔW) · diag(m / ‖W + ΔW‖): %s', async (_, more) => {
    const options = { ...OPTIONS, ...more };
    for (const opset of [8, 13, 17, 18]) {
      const y = await outputOf(await insertInto(matmul(opset), options), X, [ROWS, IN]);
      expect(maxDifference(y, await expected(options))).toBeLessThan(1e-5);
    }
  });

  test('does not scale the bias inside its operator: Gemm', async () => {
    const y = await outputOf(await insertInto(gemm(), OPTIONS), X, [ROWS, IN]);
    const product = await expected(OPTIONS, 2);
    expect(maxDifference(y, withBias(product, 0.5))).toBeLessThan(1e-5);
  });

  test('may be a 1x1 convolution, with a bias', async () => {
    const pixels = transposed(X, ROWS, IN);
    const y = await outputOf(await insertInto(conv(), OPTIONS), pixels, [1, IN, ROWS, 1]);
    const rows = transposed([...y], OUT, ROWS);
    expect(maxDifference(rows, withBias(await expected(OPTIONS)))).toBeLessThan(1e-5);
  });

  test('may have its weight on the left', async () => {
    const columns = transposed(X, ROWS, IN);
    const y = await outputOf(await insertInto(leftHanded(), OPTIONS), columns, [IN, ROWS]);
    const rows = transposed([...y], OUT, ROWS);
    expect(maxDifference(rows, await expected(OPTIONS))).toBeLessThan(1e-5);
  });

  test('may compute in half precision', async () => {
    const half = model({
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [tensor('w', [IN, OUT], W, 'float16')],
      inputs: [value('x', [ROWS, IN], 'float16')],
      outputs: [value('y', [ROWS, OUT], 'float16')],
    });
    const feeds = { x: feed([ROWS, IN], X, 'float16') };
    const { y } = await run(await insertInto(half, OPTIONS), feeds);
    expect(maxDifference(y!.data, await expected(OPTIONS))).toBeLessThan(5e-3);
  });
});

describe.each<[string, () => Uint8Array]>([
  ['MatMul', matmul],
  ['Gemm', gemm],
  ['Conv', conv],
  ['a weight on the left', leftHanded],
])('DoRA beside %s', (_, make) => {
  it('comes off bit for bit, and travels in an adapter file', async () => {
    const base = folder.write(make());
    const patched = folder.write(await insertInto(base, OPTIONS));
    const back = await unpatch(patched, { output: folder.fresh() });
    expect(sameFiles(back.output, base)).toBe(true);
    const adapter = folder.fresh('adapter.safetensors');
    const { parameters } = await extract(patched, { output: adapter });
    expect(parameters).toBe(2 * (IN + OUT) + OUT);
    const applied = await apply(base, adapter, { output: folder.fresh() });
    expect(sameFiles(applied.output, patched)).toBe(true);
    expect((await inspect(patched)).summary.adapterParameters).toBe(parameters);
  });

  it('folds into the weight where it is', async () => {
    const patched = folder.write(await insertInto(make(), OPTIONS));
    const { merged, output, verification } = await merge(patched, { output: folder.fresh() });
    expect(verification!.passed).toBe(true);
    expect(merged.map(({ kind }) => kind)).toEqual(['in place']);
    expect(readFileSync(output).length).toBe(make().length);
  });
});

describe('DoRA is refused', () => {
  const refused = async (run: () => unknown, message: string) => {
    expect((await failure(run, 'unsupported')).message).toContain(message);
  };

  it('on a layer that has an adapter, and the other way round', async () => {
    const one = await insertInto(matmul(), { ...OPTIONS, factors: trained, name: 'one' });
    await refused(() => insertInto(one, { ...OPTIONS, name: 'two' }), '"one"');
    const dora = await insertInto(matmul(), { ...OPTIONS, name: 'one' });
    await refused(() => insertInto(dora, { ...OPTIONS, factors: trained, name: 'two' }), '"one"');
  });

  it('where the weight is packed inside its operator', async () => {
    const output = folder.fresh();
    const dora = (planned: readonly NewAdapter[]) =>
      asDora(trained(planned), ({ record }) => new Float64Array(record.out));
    await refused(() => patchFile(zooModel('llama-q4'), output, { factors: dora }), 'packed');
  });

  it('by a merge with a scale', async () => {
    const patched = folder.write(await insertInto(matmul(), OPTIONS));
    await refused(() => merge(patched, { scale: 0.5, output: folder.fresh() }), 'DoRA');
  });

  it('with a column that has no direction', async () => {
    const zero = layer({
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [tensor('w', [IN, OUT], Array(IN * OUT).fill(0))],
    });
    const still = (planned: readonly NewAdapter[]) => asDora(planned);
    const patched = folder.write(await insertInto(zero, { ...OPTIONS, factors: still }));
    const folded = () => merge(patched, { output: folder.fresh() });
    expect((await failure(folded, 'invalid-adapter')).message).toContain('column 0');
  });
});

describe('DoRA on quantized weights', () => {
  it('folds into floats', async () => {
    const name = 'bert-qdq';
    const dora = (planned: readonly NewAdapter[]) =>
      asDora(trained(planned, 1, 0.05), ({ record }) => new Float64Array(record.out).fill(0.5));
    const patched = folder.fresh();
    await patchFile(zooModel(name), patched, { targets: ['query'], rank: 4, factors: dora });
    const { merged, verification } = await merge(patched, {
      output: folder.fresh(),
      quantized: 'dequantize',
    });
    expect(merged.every(({ kind }) => kind === 'dequantized')).toBe(true);
    expect(verification!.passed).toBe(true);
    const back = await unpatch(patched, { output: folder.fresh() });
    expect(sameFiles(back.output, zooModel(name))).toBe(true);
  });
});

describe('a PEFT folder with use_dora', () => {
  const base = zooModel('bert-cls-torchscript');
  const path = join(ZOO, 'adapters-extra/dora');
  const recorded = openSafetensors(join(path, 'expected.safetensors')).readFloat64('logits');

  it('gives the logits that PEFT recorded, beside the weights and folded', async () => {
    const { output } = await apply(base, path, { output: folder.fresh() });
    const logits = async (path: string) =>
      (await run(path, zooFeeds('bert-cls-torchscript'))).logits!;
    expect(maxDifference((await logits(output)).data, recorded)).toBeLessThan(1e-5);
    const merged = await merge(base, { adapter: path, output: folder.fresh() });
    expect(merged.verification!.passed).toBe(true);
    expect(maxDifference((await logits(merged.output)).data, recorded)).toBeLessThan(1e-5);
    expectClose(
      await run(merged.output, zooFeeds('bert-cls-torchscript')),
      await run(output, zooFeeds('bert-cls-torchscript')),
      1e-5,
    );
  });
});
