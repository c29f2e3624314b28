import { deflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { manifestKey } from '../../../src/adapters/model/manifest.js';
import { packManifest, unpackManifest } from '../../../src/adapters/model/manifest-text.js';
import { inspect } from '../../../src/commands/inspect.js';
import { patch } from '../../../src/commands/patch.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { collect, MessageEdit } from '../../../src/onnx/edit.js';
import { metadataRecord } from '../../../src/onnx/encode.js';
import { openModel } from '../../../src/onnx/parse.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';

const files = temporaryFolder();
const long = JSON.stringify(Array.from({ length: 100_000 }, (_, i) => `model.experts.${i}.weight`));

/** Layers in a row, under names of 300 characters. */
function named(layers: number): Uint8Array {
  const path = (i: number) => `/${'experts/'.repeat(36)}${i}/MatMul`;
  const x = (i: number) => (i === 0 ? 'x' : `h${i}`);
  return model({
    nodes: Array.from({ length: layers }, (_, i) =>
      node('MatMul', [x(i), `w${i}`], x(i + 1), {}, path(i)),
    ),
    initializers: Array.from({ length: layers }, (_, i) => tensor(`w${i}`, [2, 2])),
    inputs: [value('x', ['n', 2])],
    outputs: [x(layers)],
  });
}

/** The text of the manifest, and the model with another text in its place. */
async function manifestOf(path: string, other?: (text: string) => string) {
  const opened = openModel(path);
  const entry = opened.metadata.find(({ key }) => key === manifestKey('default'))!;
  const text = entry.value();
  const edit = new MessageEdit(opened.source, opened.range);
  edit.replace(entry.field, ...metadataRecord(entry.key, other?.(text) ?? text));
  const changed = files.write(await collect(edit.pieces()));
  opened.close();
  return { text, changed };
}

describe('the text of a manifest', () => {
  it('is its JSON where that is short', () => {
    expect(packManifest('{"version":1}')).toBe('{"version":1}');
    expect(unpackManifest('{"version":1}', 0)).toBe('{"version":1}');
  });

  it('is deflated where it is long, and comes back', () => {
    const packed = packManifest(long);
    expect(packed.length).toBeLessThan(long.length / 5);
    expect(unpackManifest(packed, 0)).toBe(long);
  });

  it('unpacks to what the model may name, and no further', () => {
    const bomb = deflateSync(Buffer.alloc(17 * 2 ** 20, ' '));
    const text = `deflate:${bomb.toString('base64')}`;
    expect(() => unpackManifest(text, 1000)).toThrow();
    expect(unpackManifest(text, 18 * 2 ** 20)).toHaveLength(17 * 2 ** 20);
  });
});

describe('a model with a long manifest', () => {
  const small = { rank: 1, blocks: 1 };

  it('is read and goes back, deflated and as older versions wrote it', async () => {
    const base = files.write(named(300));
    const patched = files.fresh();
    await patch(base, { ...small, output: patched });
    const { text, changed } = await manifestOf(patched, (packed) => unpackManifest(packed, 1e9));
    expect(text.startsWith('deflate:')).toBe(true);
    for (const path of [patched, changed]) {
      expect((await inspect(path)).summary.adapted).toBe(300);
      const restored = files.fresh();
      await unpatch(path, { output: restored });
      expect(sameFiles(restored, base)).toBe(true);
    }
  });

  it('is refused where it cannot be unpacked', async () => {
    const patched = files.fresh();
    await patch(files.write(named(300)), { ...small, output: patched });
    const { changed } = await manifestOf(patched, (text) => text.slice(0, text.length / 2));
    const { message } = await failure(() => inspect(changed), 'invalid-manifest');
    expect(message).toContain(manifestKey('default'));
  });

  // The reader took 16 MB: what older versions wrote for 18,432 layers has 31.
  it('is read at more than 16 MB', async () => {
    const patched = files.fresh();
    await patch(files.write(named(2)), { ...small, output: patched });
    const { changed } = await manifestOf(patched, (text) => text + ' '.repeat(17 * 2 ** 20));
    expect((await inspect(changed)).summary.adapted).toBe(2);
  });
});
