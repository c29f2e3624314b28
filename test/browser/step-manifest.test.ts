/** A page runs the step graphs of every optimizer that is fed what the page can compute. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { stepManifestOf } from '../../src/browser/step-manifest.js';
import { temporaryFolder } from '../support/files.js';
import { tinyRun, trainTiny } from '../training/tiny.js';

const files = temporaryFolder();

/** A step graph of AdamW, in which a word is another one of as many letters. */
async function renamed(from: string, to: string): Promise<Uint8Array> {
  const emitStepGraph = files.fresh('step.onnx');
  await trainTiny(files, await tinyRun(files), { output: undefined, emitStepGraph });
  const bytes = readFileSync(emitStepGraph, 'latin1');
  expect(bytes).toContain(from);
  return Buffer.from(bytes.replaceAll(from, to), 'latin1');
}

it('whatever the optimizer is called', async () => {
  const { optimizer } = stepManifestOf(await renamed('"adamw"', '"other"'));
  expect(optimizer.name).toBe('other');
});

it('but not of one that is fed another number', async () => {
  const model = await renamed('correction2', 'correction9');
  expect(() => stepManifestOf(model)).toThrow(
    'the scalar correction9 is not one that is known here',
  );
});
