import { expect, it } from 'vitest';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { removeAdapters } from '../../src/commands/unpatch.js';
import { collect, MessageEdit } from '../../src/onnx/edit.js';
import { insertInto } from '../support/adapters.js';
import { model, node, tensor } from '../support/models.js';
import { parse } from '../support/wire.js';

/** A model whose layer and weight have a name in Latin-1, which UTF-8 forbids. */
function latin1Model(irVersion: number): Uint8Array {
  const bytes = Buffer.from(
    model({
      nodes: [node('MatMul', ['x', 'w~'], 'y~', {}, '/layer~/MatMul')],
      initializers: [tensor('w~', [8, 4])],
      inputs: ['x'],
      outputs: ['y~'],
      irVersion,
    }),
  );
  return bytes.map((byte) => (byte === '~'.charCodeAt(0) ? 0xe9 : byte));
}

it.each([3, 8])(
  'names that are not UTF-8 keep their bytes everywhere (IR %i)',
  async (irVersion) => {
    const original = latin1Model(irVersion);
    const patched = parse(await insertInto(original, { rank: 4, blocks: 2 }));
    const made = new Set(patched.graph.nodes.flatMap(({ outputs }) => outputs));
    for (const name of patched.graph.initializers.keys()) made.add(name);
    const read = patched.graph.nodes.flatMap(({ inputs }) => inputs);
    expect(read.filter((name) => name !== 'x' && !made.has(name))).toEqual([]);

    const edit = new MessageEdit(patched.source, patched.range);
    const adapted = new PatchedModel(patched);
    removeAdapters(adapted, adapted.sets, edit);
    expect(await collect(edit.pieces())).toEqual(new Uint8Array(original));
  },
);
