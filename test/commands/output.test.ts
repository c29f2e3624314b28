/** Where models and their data go: names that are ours, and never an input. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply } from '../../src/commands/apply.js';
import { extract } from '../../src/commands/extract.js';
import { merge } from '../../src/commands/merge.js';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { fromFloat64 } from '../../src/onnx/dtype.js';
import { safetensors } from '../data/data.js';
import { randomNumbers } from '../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import { model, node, pattern, tensor, value } from '../support/models.js';
import { expectSame, feed, run } from '../support/run.js';
import { trainTiny } from '../training/tiny.js';

const files = temporaryFolder();
const X = { x: feed([2, 6], pattern(12)) };

/** `y = x·w1·w2` in a folder of its own, with its weights at these locations. */
function external(first: string, second = first): string {
  const weights = [
    { name: 'w1', dims: [6, 8], location: first, offset: 0 },
    { name: 'w2', dims: [8, 4], location: second, offset: first === second ? 192 : 0 },
  ];
  const initializers = weights.map(({ name, dims, location, offset }) => {
    const { rawData: _, ...shell } = tensor(name, dims);
    const length = 4 * dims[0]! * dims[1]!;
    const entries = Object.entries({ location, offset: `${offset}`, length: `${length}` });
    const externalData = entries.map(([key, text]) => ({ key, value: text }));
    return { ...shell, dataLocation: 1, externalData };
  });
  const path = files.write(
    model({
      nodes: [
        node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
        node('MatMul', ['h', 'w2'], 'y', {}, 'second'),
      ],
      initializers,
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
    }),
  );
  for (const location of [first, second]) {
    const data = join(dirname(path), location);
    mkdirSync(dirname(data), { recursive: true });
    writeFileSync(
      data,
      fromFloat64(
        'float32',
        pattern(80).map((number) => number / 4),
      ),
    );
  }
  return path;
}

const options = { rank: 2, blocks: 2, targets: ['all'] };

/** Everything in the folder of a path. */
function around(path: string): string[] {
  return readdirSync(dirname(path), { recursive: true }).map(String).sort();
}

describe('data that go with an output to another folder get names of ours', () => {
  it.each([
    '.ssh/authorized_keys',
    'weights/w.bin',
    'Makefile',
    '.bashrc',
    './conftest.py',
    'w.data',
  ])('where the model calls them %s', async (location) => {
    const base = external(location);
    const patched = files.fresh('out.onnx');
    await patch(base, { ...options, output: patched });
    expect(around(patched)).toEqual(['out.onnx', 'out.onnx.data']);
    expectSame(await run(patched, X), await run(base, X));

    const merged = files.fresh('merged.onnx');
    await merge(patched, { output: merged });
    expect(around(merged)).toEqual(['merged.onnx', 'merged.onnx.data']);

    const adapter = files.fresh('a.safetensors');
    await extract(patched, { output: adapter });
    const applied = files.fresh('applied.onnx');
    await apply(base, adapter, { output: applied });
    expect(around(applied)).toEqual(['applied.onnx', 'applied.onnx.data']);

    const back = join(dirname(base), 'back.onnx');
    await unpatch(patched, { output: back });
    expect(sameFiles(back, base)).toBe(true);
  });

  it('when a model is trained', async () => {
    const patched = join(dirname(external('.npmrc')), 'model.lora.onnx');
    await patch(join(dirname(patched), 'model.onnx'), { ...options, output: patched });
    const target = ['float32', [8, 4], [...randomNumbers(2, 32)]] as const;
    const x = ['float32', [8, 6], [...randomNumbers(1, 48)]] as const;
    const data = files.write(safetensors({ x: [...x], target: [...target] }), 'data.safetensors');
    const { output } = await trainTiny(files, { model: patched, data }, { steps: 1 });
    expect(around(output)).toEqual(['trained.onnx', 'trained.onnx.data']);
    expect((await run(output, X)).y!.dims).toEqual([2, 4]);
  });

  it('one each, where they are several', async () => {
    const base = external('a.txt', 'b.txt');
    const patched = files.fresh('out.onnx');
    await patch(base, { ...options, output: patched });
    expect(around(patched)).toEqual(['1.out.onnx.data', 'out.onnx', 'out.onnx.data']);
    expectSame(await run(patched, X), await run(base, X));
  });

  it('also where the model calls its data as the output is called', async () => {
    const base = external('out.onnx');
    const patched = files.fresh('out.onnx');
    await patch(base, { ...options, output: patched });
    expectSame(await run(patched, X), await run(base, X));
    const beside = () => patch(base, { output: join(dirname(base), 'out.onnx'), force: true });
    expect((await failure(beside, 'invalid-argument')).message).toContain('is an input');
  });
});

describe('unpatch', () => {
  it('gives plain data their name back, from folder to folder', async () => {
    const base = external('w.data');
    const [patched, again] = [files.fresh('out.onnx'), files.fresh('again.onnx')];
    await patch(base, { ...options, output: patched });
    await patch(patched, { ...options, name: 'second', output: again });
    const back = files.fresh('back.onnx');
    await unpatch(again, { output: back });
    expect(around(back)).toEqual(['back.onnx', 'w.data']);
    expect(sameFiles(back, base)).toBe(true);
  });

  it.each([
    ...['.ssh/authorized_keys', 'authorized_keys', 'conftest.py', 'package.json'],
    ...['pytorch_model.bin', 'pytorch_model-00001-of-00002.bin', 'training_args.bin'],
  ])('makes no file %s', async (location) => {
    const base = external(location);
    const patched = files.fresh('out.onnx');
    await patch(base, { ...options, output: patched });
    const back = files.fresh('back.onnx');
    await unpatch(patched, { output: back });
    expect(around(back)).toEqual(['back.onnx', 'back.onnx.data']);
    expectSame(await run(back, X), await run(base, X));
  });

  it('takes no name from its metadata that leads out of the folder', async () => {
    const base = external('w.data');
    const patched = files.fresh('out.onnx');
    await patch(base, { ...options, output: patched });
    const bytes = readFileSync(patched).toString('latin1').replace('"w.data"', '"../b.x"');
    writeFileSync(patched, bytes, 'latin1');
    const back = files.fresh('back.onnx');
    await unpatch(patched, { output: back });
    expect(around(back)).toEqual(['back.onnx', 'back.onnx.data']);
  });

  it('leaves a file alone that has the name of the data and holds something else', async () => {
    const base = external('w.data');
    const patched = files.fresh('out.onnx');
    await patch(base, { ...options, output: patched });
    const back = files.fresh('back.onnx');
    const other = join(dirname(back), 'w.data');
    writeFileSync(other, 'something else');
    await unpatch(patched, { output: back, force: true });
    expect(readFileSync(other, 'utf8')).toBe('something else');
    expectSame(await run(back, X), await run(base, X));
  });
});

describe('a model and its data that are replaced', () => {
  it('change with one rename: the new data have another name, and the old ones go', async () => {
    const [first, second] = [external('w.data'), external('w.data')];
    writeFileSync(
      join(dirname(second), 'w.data'),
      fromFloat64(
        'float32',
        pattern(80).map((number) => -number),
      ),
    );
    const output = files.fresh('out.onnx');
    await patch(first, { ...options, output });
    await patch(second, { ...options, output, force: true });
    expect(around(output)).toEqual(['1.out.onnx.data', 'out.onnx']);
    expectSame(await run(output, X), await run(second, X));
    await patch(first, { ...options, output, force: true });
    expect(around(output)).toEqual(['out.onnx', 'out.onnx.data']);
    expectSame(await run(output, X), await run(first, X));
  });

  it('keep old data that another model of the folder refers to', async () => {
    const [first, second] = [external('w.data'), external('w.data')];
    writeFileSync(join(dirname(second), 'w.data'), new Uint8Array(320));
    const output = files.fresh('out.onnx');
    await patch(first, { ...options, output });
    const beside = join(dirname(output), 'beside.onnx');
    await patch(output, { ...options, name: 'second', output: beside });
    await patch(second, { ...options, output, force: true });
    expectSame(await run(beside, X), await run(first, X));
  });

  it('are written once where the data are the same', async () => {
    const base = external('w.data');
    const output = files.fresh('out.onnx');
    await patch(base, { ...options, output });
    await patch(base, { ...options, output, force: true });
    expect(around(output)).toEqual(['out.onnx', 'out.onnx.data']);
    expect(existsSync(`${output}.data`)).toBe(true);
  });
});
