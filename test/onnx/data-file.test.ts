import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { foldAdapters } from '../../src/commands/merge.js';
import { fromFloat64 } from '../../src/onnx/dtype.js';
import { ExternalFiles, externalLocations } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { insertInto, trained } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model, node, pattern, type TensorProto } from '../support/models.js';
import { expectClose, feed, run } from '../support/run.js';

const files = temporaryFolder();
const x = { x: feed([2, 4], pattern(8)) };
const BYTES = 4 * 4 * 4;

interface Place {
  readonly file: string;
  readonly offset?: number;
  /** The entries name no length. */
  readonly open?: boolean;
}

function stored(name: string, { file, offset = 0, open = false }: Place): TensorProto {
  const entries = {
    location: file,
    offset: String(offset),
    ...(open ? {} : { length: `${BYTES}` }),
  };
  return {
    name,
    dims: [4, 4],
    dataType: 1,
    dataLocation: 1,
    externalData: Object.entries({ ...entries, checksum: 'abc' }).map(([key, value]) => ({
      key,
      value,
    })),
  };
}

/** A chain of 4x4 layers with weights w0, w1 … at these places; the first ones get adapters. */
async function chain(places: readonly Place[], adapted = 1): Promise<string> {
  const folder = files.fresh('folder');
  mkdirSync(folder);
  const contents = new Map<string, Uint8Array>();
  places.forEach(({ file, offset = 0 }, i) => {
    const bytes = new Uint8Array(Math.max(contents.get(file)?.length ?? 0, offset + BYTES));
    bytes.set(contents.get(file) ?? []);
    const numbers = pattern(16).map((value) => value / 4 + i);
    bytes.set(fromFloat64('float32', numbers), offset);
    contents.set(file, bytes);
  });
  for (const [file, bytes] of contents) writeFileSync(join(folder, file), bytes);
  const base = model({
    nodes: places.map((_, i) =>
      node('MatMul', [i === 0 ? 'x' : `y${i - 1}`, `w${i}`], `y${i}`, {}, `n${i}`),
    ),
    initializers: places.map((place, i) => stored(`w${i}`, place)),
    inputs: ['x'],
    outputs: [`y${places.length - 1}`],
  });
  const path = join(folder, 'model.onnx');
  const targets = places.map((_, i) => `n${i}`).slice(0, adapted);
  const patched = await insertInto(base, {
    targets,
    rank: 4,
    blocks: 2,
    perNode: true,
    factors: trained,
  });
  writeFileSync(path, patched);
  return path;
}

async function merge(path: string, output: string) {
  await foldAdapters(path, { output });
  expectClose(await run(output, x), await run(path, x), 1e-6);
  const merged = openModel(output);
  const data = new ExternalFiles(merged);
  const reader = new TensorReader(merged, data);
  const facts = {
    locations: externalLocations(merged).sort(),
    weight: (name: string) => reader.bytes(merged.graph.initializers.get(name)!),
    tensor: (name: string) => merged.graph.initializers.get(name)!.data,
  };
  return Object.assign(facts, {
    close: () => {
      data.close();
      merged.close();
    },
  });
}

const beside = (path: string) => join(path, '..', 'merged.onnx');

describe('merging into external data', () => {
  it('makes a new file of the one that changes and leaves the other', async () => {
    const path = await chain([{ file: 'a.data' }, { file: 'b.data' }]);
    const merged = await merge(path, beside(path));
    expect(merged.locations).toEqual(['b.data', 'merged.onnx.data']);
    merged.close();
  });

  it('moves all tensors of a changed file, wherever they were in it', async () => {
    const path = await chain(
      [
        { file: 'a.data', offset: 64 },
        { file: 'a.data', offset: 0 },
        { file: 'a.data', offset: 1000 },
      ],
      1,
    );
    const before = readFileSync(join(path, '..', 'a.data'));
    const merged = await merge(path, beside(path));
    expect(merged.locations).toEqual(['merged.onnx.data']);
    expect(Buffer.compare(merged.weight('w1'), before.subarray(0, 64))).toBe(0);
    expect(Buffer.compare(merged.weight('w2'), before.subarray(1000, 1064))).toBe(0);
    expect(readFileSync(join(path, '..', 'merged.onnx.data'))).toHaveLength(before.length);
    merged.close();
  });

  it('puts several changed files behind each other, each on a page', async () => {
    const path = await chain([{ file: 'a.data', offset: 8 }, { file: 'b.data' }], 2);
    const merged = await merge(path, beside(path));
    expect(merged.locations).toEqual(['merged.onnx.data']);
    expect(merged.tensor('w0')).toMatchObject({ offset: 8, length: BYTES });
    expect(merged.tensor('w1')).toMatchObject({ offset: 4096, length: BYTES });
    merged.close();
  });

  it('does not change another tensor that shares the bytes', async () => {
    const path = await chain([{ file: 'a.data' }, { file: 'a.data' }], 1);
    const before = readFileSync(join(path, '..', 'a.data'));
    const merged = await merge(path, beside(path));
    expect(Buffer.compare(merged.weight('w1'), before)).toBe(0);
    expect(Buffer.compare(merged.weight('w0'), before)).not.toBe(0);
    merged.close();
  });

  it('keeps two changed tensors apart that shared their bytes', async () => {
    const path = await chain([{ file: 'a.data' }, { file: 'a.data' }], 2);
    const merged = await merge(path, beside(path));
    expect(Buffer.compare(merged.weight('w1'), merged.weight('w0'))).not.toBe(0);
    merged.close();
  });

  it('knows tensors whose entries name no length', async () => {
    const path = await chain([
      { file: 'a.data', open: true },
      { file: 'a.data', offset: 64, open: true },
    ]);
    (await merge(path, beside(path))).close();
  });

  it('drops the checksum of a tensor that changed and no other', async () => {
    const path = await chain([{ file: 'a.data' }, { file: 'a.data', offset: 64 }]);
    (await merge(path, beside(path))).close();
    expect(
      readFileSync(beside(path))
        .toString('latin1')
        .match(/checksum/g),
    ).toHaveLength(1);
  });

  it('copies untouched files to another folder, under a name of ours', async () => {
    const path = await chain([{ file: 'a.data' }, { file: 'b.data' }]);
    const folder = files.fresh('folder');
    mkdirSync(folder);
    const merged = await merge(path, join(folder, 'merged.onnx'));
    expect(merged.locations).toEqual(['1.merged.onnx.data', 'merged.onnx.data']);
    merged.close();
  });

  it('takes another name where an untouched file has the one wanted', async () => {
    const path = await chain([{ file: 'a.data' }, { file: 'merged.onnx.data' }]);
    const folder = files.fresh('folder');
    mkdirSync(folder);
    for (const output of [beside(path), join(folder, 'merged.onnx')]) {
      const merged = await merge(path, output);
      expect(merged.locations).toEqual(['1.merged.onnx.data', 'merged.onnx.data']);
      merged.close();
    }
  });

  it('never writes over the data file that it reads', async () => {
    const path = await chain([{ file: 'merged.onnx.data' }]);
    const run = () => foldAdapters(path, { output: beside(path), force: true });
    const { message } = await failure(run, 'invalid-argument');
    expect(message).toContain(`${basename(beside(path))}.data is an input`);
  });
});
