/** Adapters of every kind in models: made, trained, folded, moved and taken out again. */
import { readFileSync } from 'node:fs';
import { describe, expect, it, test } from 'vitest';
import { openAdapter } from '../../../src/adapters/files/open-adapter.js';
import type { KindName } from '../../../src/adapters/structure/choices.js';
import { adapterBytes } from '../../../src/browser/adapter-bytes.js';
import { stepManifestOf } from '../../../src/browser/step-manifest.js';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { inspect } from '../../../src/commands/inspect.js';
import { merge } from '../../../src/commands/merge.js';
import { resolveTrainOptions } from '../../../src/commands/options/train.js';
import { patch } from '../../../src/commands/patch.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { insertInto, randomNumbers, trained } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { feed, maxDifference, run } from '../../support/run.js';
import { zooFeeds, zooModel } from '../../support/zoo.js';
import { tinyData, tinyModel, trainTiny } from '../../training/tiny.js';

const folder = temporaryFolder();
const OPTIONS = { rank: 4, blocks: 2, targets: ['all'] } as const;

/** The kinds but for plain LoRA, which all other tests are about. */
const KINDS: readonly KindName[] = ['dora', 'hira'];

/** The patched tiny model and what training made of it. */
async function trainedTiny(kind: KindName, more: Parameters<typeof trainTiny>[2] = {}) {
  const base = folder.write(tinyModel());
  const patched = await patch(base, { ...OPTIONS, kind, output: folder.fresh() });
  const run = { model: patched.output, data: folder.write(tinyData(), 'data.safetensors') };
  const result = await trainTiny(folder, run, { steps: 8, lr: 0.05, ...more });
  return { base, patched, run, output: result.output };
}

const X = { x: feed([3, 6], [...randomNumbers(9, 18)]) };

describe.each(KINDS)('%s', (kind) => {
  it('starts as the model, to rounding', async () => {
    const base = folder.write(tinyModel());
    const output = folder.fresh();
    const { verification, adapters } = await patch(base, {
      ...OPTIONS,
      kind,
      output,
      verify: true,
    });
    expect(verification!.passed).toBe(true);
    expect(adapters.map((one) => one.kind)).toEqual([kind, kind]);
    const y = async (path: string) => (await run(path, X)).y!.data;
    expect(maxDifference(await y(output), await y(base))).toBeLessThan(1e-6);
  });

  it('trains, folds into the weights, and comes off bit for bit', async () => {
    const { base, patched, output } = await trainedTiny(kind);
    const y = async (path: string) => (await run(path, X)).y!.data;
    expect(maxDifference(await y(output), await y(base))).toBeGreaterThan(1e-2);
    const merged = await merge(output, { output: folder.fresh() });
    expect(merged.verification!.passed).toBe(true);
    expect(merged.merged.map((one) => one.kind)).toEqual(['in place', 'in place']);
    expect(maxDifference(await y(merged.output), await y(output))).toBeLessThan(1e-5);
    const back = await unpatch(output, { output: folder.fresh() });
    expect(sameFiles(back.output, base)).toBe(true);
    const { sets, targets } = await inspect(output);
    expect(sets[0]!.parameters).toBe(patched.parameters.trainable);
    expect(targets.map(({ adapter }) => adapter?.kind)).toEqual([kind, kind]);
  });

  it.each(['adapter.safetensors', 'peft'])('travels as %s', async (name) => {
    // PEFT has no blocks of this kind: they travel as one of a higher rank.
    const saved = folder.fresh(name);
    const { base, output } = await trainedTiny(kind, name === 'peft' ? {} : { saveAdapter: saved });
    if (name === 'peft') await extract(output, { output: saved });
    const applied = await apply(base, saved, { output: folder.fresh() });
    const y = async (path: string) => (await run(path, X)).y!.data;
    expect(maxDifference(await y(applied.output), await y(output))).toBeLessThan(1e-6);
    if (name !== 'peft') expect(sameFiles(applied.output, output)).toBe(true);
  });

  it('goes on from a checkpoint as if it had not stopped', async () => {
    const { run: tiny, output } = await trainedTiny(kind, { steps: 6 });
    const how = { steps: 6, lr: 0.05, checkpoint: folder.fresh('checkpoint') };
    const controller = new AbortController();
    const onProgress = (progress: { phase: string; done: number }) => {
      if (progress.phase === 'training' && progress.done === 3) controller.abort();
    };
    const stopped = () =>
      trainTiny(folder, tiny, { ...how, signal: controller.signal, onProgress });
    await failure(stopped, 'aborted');
    const resumed = await trainTiny(folder, tiny, { ...how, resume: true });
    expect(sameFiles(resumed.output, output)).toBe(true);
  });

  it('trains in half precision, and folds into it', async () => {
    const half = model({
      nodes: [
        node('Cast', ['x'], 'in', { to: 10 }),
        node('MatMul', ['in', 'w1'], 'h', {}, 'first'),
        node('Tanh', ['h'], 't'),
        node('MatMul', ['t', 'w2'], 'out', {}, 'second'),
        node('Cast', ['out'], 'y', { to: 1 }),
      ],
      initializers: [
        tensor('w1', [6, 8], [...randomNumbers(1, 48)], 'float16'),
        tensor('w2', [8, 4], [...randomNumbers(2, 32)], 'float16'),
      ],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
    });
    const { output } = await patch(folder.write(half), {
      ...OPTIONS,
      kind,
      output: folder.fresh(),
    });
    const data = folder.write(tinyData(), 'data.safetensors');
    const trained = await trainTiny(folder, { model: output, data }, { steps: 12, lr: 0.05 });
    expect(trained.loss!.last).toBeLessThan(trained.loss!.first);
    const merged = await merge(trained.output, { output: folder.fresh() });
    expect(merged.verification!.passed).toBe(true);
  });

  it('comes out of a step graph as an adapter file', async () => {
    const { base, run: tiny } = await trainedTiny(kind, { steps: 1 });
    const emitStepGraph = folder.fresh('step.onnx');
    const { data } = tiny;
    await runTraining(
      tiny.model,
      resolveTrainOptions({ data, loss: 'mse', batchSize: 4, emitStepGraph }),
    );
    const manifest = stepManifestOf(readFileSync(emitStepGraph));
    const theta = new Float32Array(manifest.state.size).fill(0.5);
    const saved = folder.write(adapterBytes(manifest, theta), 'adapter.safetensors');
    const { adapters, parameters } = await apply(base, saved, { output: folder.fresh() });
    expect(adapters.map((one) => one.kind)).toEqual([kind, kind]);
    expect(parameters.trainable).toBe(theta.length);
  });

  it('may stand on a quantized weight', async () => {
    const base = zooModel('bert-qdq');
    const how = { kind, rank: 4, blocks: 2, targets: ['query'], output: folder.fresh() };
    const { output, verification } = await patch(base, { ...how, verify: true });
    expect(verification!.passed).toBe(true);
    const [before, after] = [
      await run(base, zooFeeds('bert-qdq')),
      await run(output, zooFeeds('bert-qdq')),
    ];
    const [name] = Object.keys(before);
    expect(maxDifference(after[name!]!.data, before[name!]!.data)).toBeLessThan(1e-4);
  });

  it('is refused where the weight is packed in its operator, and beside other adapters', async () => {
    const packed = () => patch(zooModel('llama-q4'), { kind, output: folder.fresh() });
    expect((await failure(packed, 'unsupported')).message).toContain('packed');
    const one = folder.write(await insertInto(tinyModel(), { ...OPTIONS, factors: trained }));
    const second = () => patch(one, { ...OPTIONS, kind, name: 'two', output: folder.fresh() });
    expect((await failure(second, 'unsupported')).message).toContain('"default"');
  });
});

test('DoRA beside what pissa leaves of a weight travels to PEFT, and folds', async () => {
  const base = folder.write(tinyModel());
  const options = { ...OPTIONS, kind: 'dora', blocks: 1, init: 'pissa', verify: true } as const;
  const patched = await patch(base, { ...options, output: folder.fresh() });
  expect(patched.verification!.passed).toBe(true);
  const tiny = { model: patched.output, data: folder.write(tinyData(), 'data.safetensors') };
  const { output } = await trainTiny(folder, tiny, { steps: 8, lr: 0.05 });
  const saved = folder.fresh('peft');
  await extract(output, { output: saved });
  const applied = await apply(base, saved, { output: folder.fresh() });
  const y = async (path: string) => (await run(path, X)).y!.data;
  expect(maxDifference(await y(applied.output), await y(output))).toBeLessThan(1e-5);
});

test('DoRA is refused on a column without a direction', async () => {
  const base = folder.write(
    model({
      nodes: [node('MatMul', ['x', 'w'], 'y', {}, '/layer/MatMul')],
      initializers: [tensor('w', [2, 3], [1, 0, 2, 3, 0, 1])],
      inputs: [value('x', ['n', 2])],
      outputs: ['y'],
    }),
  );
  const make = () => patch(base, { kind: 'dora', rank: 1, blocks: 1, output: folder.fresh() });
  expect((await failure(make, 'unsupported')).message).toContain('column 1');
});

test('magnitudes start as the norms of columns, whatever the layout of the weight', async () => {
  const W = [3, 0, 1, 4, 2, 2];
  const base = folder.write(
    model({
      nodes: [node('Gemm', ['x', 'w'], 'h', { transB: 1, alpha: { float: 2 } }, '/layer/Gemm')],
      initializers: [tensor('w', [3, 2], W)],
      inputs: [value('x', ['n', 2])],
      outputs: ['h'],
    }),
  );
  const { output } = await patch(base, {
    kind: 'dora',
    rank: 1,
    blocks: 1,
    output: folder.fresh(),
  });
  const saved = folder.fresh('adapter.safetensors');
  await extract(output, { output: saved });
  const file = openAdapter(saved);
  const [adapter] = file.adapters;
  const found = adapter!.own!.magnitude!();
  file.close();
  expect(maxDifference(found, [6, 2 * Math.hypot(1, 4), 2 * Math.hypot(2, 2)])).toBeLessThan(1e-6);
});
