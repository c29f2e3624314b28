/** What we write runs in ONNX Runtime Web, and computes there what it does in onnxruntime-node. */
import { describe, expect, it } from 'vitest';
import { foldAdapters } from '../../src/lora/merge.js';
import { patchFile, trained } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { expectClose, run } from '../support/run.js';
import { zooCases, zooFeeds, zooModel } from '../support/zoo.js';
import { runInWeb } from './ort-web.js';

const folder = temporaryFolder();

/** No layer of theirs can take an adapter. */
const integerOnly = ['bert-int8-channel', 'bert-int8-dynamic'];

/** Relative to the largest output. llama-q4 rounds what it multiplies to 8 bits, each build in its way. */
const tolerances: Record<string, number> = { 'bert-fp16': 2e-3, 'llama-q4': 0.05 };

describe.each(zooCases.filter((name) => !integerOnly.includes(name)))('%s', (name) => {
  const tolerance = tolerances[name] ?? 1e-4;

  it('runs patched and merged in ONNX Runtime Web', async () => {
    const base = zooModel(name);
    const [patched, merged] = [folder.fresh(), folder.fresh()];
    await patchFile(base, patched, { factors: (planned) => trained(planned, 3, 0.1) });
    await foldAdapters(patched, { output: merged });
    const feeds = zooFeeds(name);
    const expected = await run(patched, feeds);
    const inWeb = await runInWeb(patched, feeds);
    expectClose(inWeb, expected, tolerance);
    expectClose(await runInWeb(merged, feeds), await run(merged, feeds), tolerance);
    const untouched = await runInWeb(base, feeds);
    expect(() => expectClose(untouched, inWeb, 1e-3)).toThrow();
  });
});
