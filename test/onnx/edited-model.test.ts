/** An edited model that is read without being written. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ByteSource } from '../../src/onnx/byte-source.js';
import { collect, MessageEdit } from '../../src/onnx/edit.js';
import { editedModel } from '../../src/onnx/edited-model.js';
import { parseModel } from '../../src/onnx/parse.js';
import { addInitializer, renameTensor } from '../../src/onnx/rewrite.js';
import { FileSource, MemorySource } from '../../src/onnx/source.js';
import { temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';

const files = temporaryFolder();

const bytes = () =>
  model({
    nodes: [node('MatMul', ['x', 'w'], 'y')],
    initializers: [tensor('w', [3, 2]), tensor('unused', [2])],
    inputs: [value('x', ['n', 3])],
    outputs: ['y'],
  });

/** A model with a tensor renamed, and one whose numbers are computed when it is written. */
async function edited(source: ByteSource = new MemorySource(bytes())) {
  const base = parseModel(source);
  const edit = new MessageEdit(base.source, base.range);
  const unused = base.graph.initializers.get('unused')!;
  renameTensor(edit, base, { tensor: unused, graph: base.graph }, 'renamed');
  const chunks = () => [Uint8Array.of(1, 2), Uint8Array.of(3, 4)];
  const data = { length: 4, chunks };
  addInitializer(edit, base, { name: 'computed', dtype: 'uint8', dims: [4], data });
  return { whole: await collect(edit.pieces()), model: await editedModel(base, edit) };
}

describe('an edited model', () => {
  it('has what the edit says', async () => {
    const { graph } = (await edited()).model;
    expect([...graph.initializers.keys()]).toEqual(['w', 'renamed', 'computed']);
    expect(graph.nodes.map(({ inputs }) => inputs)).toEqual([['x', 'w']]);
  });

  it('reads as the file that would be written, wherever a reading starts and ends', async () => {
    const { whole, model } = await edited();
    const { source } = model;
    expect(source.size).toBe(whole.length);
    for (let start = 0; start < whole.length; start += 7) {
      for (const end of [start, start + 1, start + 50, whole.length]) {
        const stop = Math.min(end, whole.length);
        expect(source.read(start, stop)).toEqual(whole.slice(start, stop));
      }
      expect(source.byteAt(start)).toBe(whole[start]);
    }
    expect(() => source.byteAt(whole.length)).toThrow(RangeError);
  });

  it('knows which of its bytes are in the file, and where there', async () => {
    const path = files.write(bytes());
    const { whole, model } = await edited(new FileSource(path));
    const file = readFileSync(path);
    const ends = [1, 10, 50];
    const places = ends.flatMap((length) =>
      Array.from({ length: whole.length - length }, (_, start) => {
        const place = model.source.placeOf(start, start + length);
        if (place) {
          const stored = file.subarray(place.start, place.start + length);
          expect(stored.equals(whole.subarray(start, start + length))).toBe(true);
        }
        return place?.path;
      }),
    );
    expect(new Set(places)).toEqual(new Set([path, undefined]));
    const data = (name: string) => {
      const { data } = model.graph.initializers.get(name)!;
      const { value, end } = (data as { field: { value: number; end: number } }).field;
      return model.source.placeOf(value, end);
    };
    expect([data('w')?.path, data('computed')]).toEqual([path, undefined]);
    model.close();
  });
});
