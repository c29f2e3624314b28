/** What we write runs in ONNX Runtime Web, and computes there what it does in onnxruntime-node. */
import type { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import type { SlotSummary } from '../../src/adapters/slots/summary.js';
import { foldAdapters } from '../../src/commands/merge.js';
import { patch } from '../../src/commands/patch.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { expectClose, expectSame, feed, run } from '../support/run.js';
import { zooCases, zooFeeds, zooModel } from '../support/zoo.js';
import { runInWeb } from './ort-web.js';

const folder = temporaryFolder();

/** No layer of theirs can take an adapter. */
/** Relative to the largest output. Some round what they multiply to 8 bits, each build in its way. */
const tolerances: Record<string, number> = {
  'bert-fp16': 2e-3,
  'bert-int8-channel': 0.05,
  'bert-int8-dynamic': 0.05,
  'llama-q4': 0.05,
};

describe.each(zooCases)('%s', (name) => {
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

  it('runs with slots: empty it is the base, filled what onnxruntime-node makes of it', async () => {
    const base = zooModel(name);
    const output = folder.fresh();
    const { slots } = await patch(base, { output, slots: 'required' });
    const feeds = zooFeeds(name);
    const empty = { ...feeds, ...filled(slots!, 0) };
    const untouched = await runInWeb(base, feeds);
    expectSame(await runInWeb(output, empty), untouched);
    const three = { ...feeds, ...filled(slots!, 3) };
    const inWeb = await runInWeb(output, three);
    expectClose(inWeb, await run(output, three), tolerance);
    expect(() => expectClose(untouched, inWeb, 1e-3)).toThrow();
  });
});

/** Random factors of a rank for every slot. */
function filled(slots: readonly SlotSummary[], rank: number): Record<string, Tensor> {
  return Object.fromEntries(
    slots.flatMap(({ a, b, dtype, shape: [rows, columns] }, i) => [
      [a, feed([rows, rank], randomNumbers(i, rows * rank, 0.3), dtype)],
      [b, feed([rank, columns], randomNumbers(99 + i, rank * columns, 0.3), dtype)],
    ]),
  );
}
