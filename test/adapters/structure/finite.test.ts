import { existsSync, readFileSync } from 'node:fs';
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { checkFold, finiteBytes } from '../../../src/adapters/structure/finite.js';
import { extract } from '../../../src/commands/extract.js';
import { foldAdapters, merge } from '../../../src/commands/merge.js';
import { patch } from '../../../src/commands/patch.js';
import type { FloatName } from '../../../src/onnx/dtype.js';
import { patchFile, trained } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';

const { onnx } = onnxProto;
const folder = temporaryFolder();

const layer = (dtype: FloatName, numbers?: number[], name = 'layer') =>
  folder.write(
    model({
      nodes: [node('MatMul', ['x', 'w'], 'y', {}, name)],
      initializers: [tensor('w', [8, 8], numbers, dtype)],
      inputs: [value('x', ['n', 8], dtype)],
      outputs: [value('y', undefined, dtype)],
    }),
  );

/** Adapters whose ΔW is about `size`. */
async function adapted(path: string, size: number): Promise<string> {
  const patched = folder.fresh();
  const factors = (all: Parameters<typeof trained>[0]) => trained(all, 1, Math.sqrt(size));
  await patchFile(path, patched, { rank: 4, blocks: 1, factors });
  return patched;
}

describe('a fold', () => {
  it('is refused where a weight overflows its type, also without the proof', async () => {
    const [path, output] = [await adapted(layer('float16'), 1e5), folder.fresh()];
    const error = await failure(() => foldAdapters(path, { output }), 'invalid-adapter');
    expect(error).toMatchObject({
      code: 'invalid-adapter',
      node: 'layer',
      message: expect.stringMatching(/^layer: its weight .* more than float16 can hold$/),
    });
    expect(existsSync(output)).toBe(false);
    await foldAdapters(await adapted(layer('float16'), 1e3), { output });
  });

  it('leaves numbers alone that were not finite before', async () => {
    const numbers = [Number.NaN, Number.NEGATIVE_INFINITY, ...new Array<number>(62).fill(1)];
    const path = await adapted(layer('float32', numbers), 1);
    const { merged } = await foldAdapters(path, { output: folder.fresh() });
    expect(merged[0]!.deltaNorm).toBeGreaterThan(0);
    expect(merged[0]!.weightNorm).toBeCloseTo(Math.sqrt(62));
  });

  it.each([
    ['float16', 65_519, 65_520],
    ['float32', 3.4028235e38, 3.4028236e38],
    ['bfloat16', 3.39e38, 3.4e38],
  ] as const)('knows the greatest number of %s', (dtype, largest, more) => {
    const before = Float64Array.of(0);
    expect(checkFold('l', dtype, before, Float64Array.of(largest)).deltaSquares).toBe(largest ** 2);
    expect(() => checkFold('l', dtype, before, Float64Array.of(-more))).toThrow('can hold');
    expect(() => finiteBytes(dtype, Float64Array.of(more), 'it')).toThrow(`more than ${dtype}`);
  });
});

it.each([1e308, 1e40, Number.POSITIVE_INFINITY])('alpha may not be %d', async (alpha) => {
  const options = { rank: 4, blocks: 1, alpha, output: folder.fresh() };
  const error = await failure(() => patch(layer('float32'), options), 'invalid-argument');
  expect(error).toMatchObject({
    message: expect.stringContaining('3.4e38'),
  });
});

it.each([1e308, Number.NaN])('merge may not scale by %d', async (scale) => {
  const path = await adapted(layer('float32'), 1);
  const error = await failure(
    () => merge(path, { scale, output: folder.fresh() }),
    'invalid-argument',
  );
  expect(error).toMatchObject({
    code: 'invalid-argument',
    message: expect.stringContaining('3.4e38'),
  });
});

it('merge refuses scales that only together are too large', async () => {
  const path = folder.fresh();
  await patchFile(layer('float32'), path, { rank: 4, blocks: 1, alpha: 1e38, factors: trained });
  const error = await failure(
    () => foldAdapters(path, { scale: 1e38, output: folder.fresh() }),
    'invalid-adapter',
  );
  expect(error).toMatchObject({
    code: 'invalid-adapter',
    message: expect.stringContaining('with `scale` 1e+38'),
  });
});

it('extract refuses adapters that are not finite', async () => {
  const path = folder.fresh();
  const broken = (all: Parameters<typeof trained>[0]) =>
    trained(all).map((one) => ({ ...one, values: () => new Float64Array(32).fill(0.5) }));
  await patchFile(layer('float32'), path, { rank: 4, blocks: 1, factors: broken });
  const damaged = onnx.ModelProto.decode(readFileSync(path));
  const factor = damaged.graph!.initializer!.find(({ name }) => name!.endsWith('/B'))!;
  factor.rawData = new Uint8Array(Float32Array.from({ length: 32 }, () => Number.NaN).buffer);
  const patched = folder.write(onnx.ModelProto.encode(damaged).finish());
  const error = await failure(
    () => extract(patched, { output: folder.fresh('a.safetensors') }),
    'invalid-adapter',
  );
  expect(error).toMatchObject({
    code: 'invalid-adapter',
    message: 'layer.B holds NaN, expected finite numbers',
  });
});

describe('records in the model', () => {
  it('refuse an empty name of a set', async () => {
    const options = { rank: 4, blocks: 1, name: '', output: folder.fresh() };
    const error = await failure(() => patch(layer('float32'), options), 'invalid-argument');
    expect(error.message).toContain('`name`');
  });

  it('refuse the name of a set that no reader takes', async () => {
    const options = { rank: 4, blocks: 1, name: 'n'.repeat(5000), output: folder.fresh() };
    const error = await failure(() => patch(layer('float32'), options), 'unsupported');
    expect(error).toMatchObject({
      code: 'unsupported',
      hint: expect.stringContaining('1 to 4096'),
    });
  });

  it('refuse the name of a node that no reader takes', async () => {
    const path = layer('float32', undefined, 'n'.repeat(5000));
    await failure(() => patch(path, { rank: 4, blocks: 1, output: folder.fresh() }), 'unsupported');
  });

  it('have the key of their set', async () => {
    const decoded = onnx.ModelProto.decode(readFileSync(await adapted(layer('float32'), 1)));
    decoded.metadataProps![0]!.key = 'onnx_lora.adapters.other';
    const path = folder.write(onnx.ModelProto.encode(decoded).finish());
    await failure(
      () => foldAdapters(path, { scale: 2, output: folder.fresh() }),
      'invalid-manifest',
    );
  });
});
