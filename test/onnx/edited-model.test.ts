/** An edited model that is read without being written. */
import { describe, expect, it } from 'vitest';
import { collect, MessageEdit } from '../../src/onnx/edit.js';
import { editedModel } from '../../src/onnx/edited-model.js';
import { parseModel } from '../../src/onnx/parse.js';
import { addInitializer, renameTensor } from '../../src/onnx/rewrite.js';
import { MemorySource } from '../../src/onnx/source.js';
import { model, node, tensor, value } from '../support/models.js';

/** A model with a tensor renamed, and one whose numbers are computed when it is written. */
async function edited() {
  const bytes = model({
    nodes: [node('MatMul', ['x', 'w'], 'y')],
    initializers: [tensor('w', [3, 2]), tensor('unused', [2])],
    inputs: [value('x', ['n', 3])],
    outputs: ['y'],
  });
  const base = parseModel(new MemorySource(bytes));
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
});
