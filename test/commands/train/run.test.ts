/** Whole runs of a small model: what comes out, when they stop, and what they leave. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { unpatch } from '../../../src/commands/unpatch.js';
import { openSafetensors } from '../../../src/formats/safetensors.js';
import { openModel } from '../../../src/onnx/parse.js';
import { checkpointFile } from '../../../src/training/checkpoint.js';
import { safetensors } from '../../data/data.js';
import { insertInto } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { feed, maxDifference, run } from '../../support/run.js';
import { logOf, tinyData, tinyModel, tinyRun, trainTiny } from '../../training/tiny.js';

const files = temporaryFolder();

describe('a run', () => {
  it('is a function of its seed', async () => {
    const tiny = await tinyRun(files);
    const outputOf = async (seed: number) =>
      (await trainTiny(files, tiny, { steps: 9, seed })).output;
    const first = await outputOf(3);
    expect(sameFiles(await outputOf(3), first)).toBe(true);
    expect(sameFiles(await outputOf(4), first)).toBe(false);
  });

  it('makes the loss of its own data small', async () => {
    const tiny = await tinyRun(files);
    const { loss, steps } = await trainTiny(files, tiny, { epochs: 20, lr: 0.02 });
    // 22 samples are 6 batches of 4.
    expect(steps).toBe(120);
    expect(loss!.last).toBeLessThan(loss!.first / 4);
  });

  it('rounds a part of an epoch up to whole updates', async () => {
    const tiny = await tinyRun(files);
    expect(await trainTiny(files, tiny, { epochs: 0.4, accumulate: 2 })).toMatchObject({
      steps: 2,
    });
  });
});

it('a run tells its own nodes from those of a model that have such names', async () => {
  const names = ['add', 'cast', 'concat', 'matmul', 'mul', 'reshape', 'slice', 'transpose'];
  const named = (call: (operator: string, i: number) => string) =>
    model({
      nodes: [
        node('MatMul', ['x', 'w1'], 'h0', {}, 'first'),
        ...names.map((name, i) => node('Tanh', [`h${i}`], `h${i + 1}`, {}, call(name, i))),
        node('MatMul', [`h${names.length}`, 'w2'], 'y', {}, 'second'),
      ],
      initializers: [tensor('w1', [6, 8]), tensor('w2', [8, 4])],
      inputs: [value('x', ['batch', 6])],
      outputs: [value('y', ['batch', 4])],
    });
  const losses = [named((name) => name), named((_, i) => `tanh ${i}`)].map(async (bytes) => {
    const path = files.write(await insertInto(bytes, { rank: 4, blocks: 2, targets: ['all'] }));
    const data = files.write(tinyData(), 'data.safetensors');
    return (await trainTiny(files, { model: path, data }, { steps: 4, batchSize: 11 })).loss;
  });
  const [like, other] = await Promise.all(losses);
  expect(like).toEqual(other);
});

describe('a run whose loss is not finite', () => {
  it('stops, names the step and the learning rate, and keeps a finite state', async () => {
    const tiny = await tinyRun(files);
    const output = files.fresh('trained.onnx');
    const log = files.fresh('log.jsonl');
    const wild = { optimizer: 'sgd', lr: 1e12, clip: 0, momentum: 0, steps: 50 } as const;
    const { message, hint } = await failure(
      () => trainTiny(files, tiny, { ...wild, output, log }),
      'diverged',
    );
    const done = logOf(log).length;
    expect(message).toMatch(
      new RegExp(`^step ${done + 1}: the .* is (NaN|Infinity), expected a finite`),
    );
    expect(hint).toContain('learning rate (1000000000000)');
    const checkpoint = `${output}.checkpoint`;
    expect(hint).toContain(
      `after step ${done} is kept: go on with \`checkpoint: "${checkpoint}", resume: true`,
    );
    expect(existsSync(output)).toBe(false);
    const kept = openSafetensors(checkpointFile(checkpoint));
    expect(kept.readFloat32('theta').every(Number.isFinite)).toBe(true);
    kept.close();
  });

  it('leaves the checkpoint that it had, from which other rates lead on', async () => {
    const tiny = await tinyRun(files);
    const checkpoint = files.fresh('checkpoints');
    const options = { optimizer: 'sgd', clip: 0, momentum: 0, steps: 50, checkpoint } as const;
    // A long warm-up: the first steps are harmless.
    const wild = { ...options, lr: 1e3, warmup: 1000, checkpointEvery: 2 };
    const { hint } = await failure(() => trainTiny(files, tiny, wild), 'diverged');
    const step = Number(/after step (\d+) is kept/.exec(hint!)![1]);
    expect(step % 2).toBe(0);
    expect(hint).toContain(`checkpoint: "${checkpoint}", resume: true, force: true`);
    const tame = { ...options, lr: 1e-3, clip: 1, checkpointEvery: 2, resume: true };
    const { message } = await failure(() => trainTiny(files, tiny, tame), 'checkpoint');
    expect(message).toContain('lr was 1000, is 0.001; warmup was 1000, is 0; clip was 0, is 1');
    expect(await trainTiny(files, tiny, { ...tame, force: true })).toMatchObject({ steps: 50 });
    const other = { ...tame, force: true, batchSize: 2 };
    expect((await failure(() => trainTiny(files, tiny, other), 'checkpoint')).message).toContain(
      'of another run: batchSize was 4, is 2',
    );
  });

  it('at the first batch is the model itself', async () => {
    const tiny = {
      model: files.write(await overflowing(1e30)),
      data: files.write(tinyData(), 'data.safetensors'),
    };
    const output = files.fresh('trained.onnx');
    const { message, hint } = await failure(
      () => trainTiny(files, tiny, { output, steps: 3 }),
      'diverged',
    );
    expect(message).toMatch(/^step 1: the loss is (NaN|Infinity)/);
    expect(hint).toMatch(/the model itself overflows .*\n?.*no state/s);
    expect(hint).not.toContain('learning rate');
    expect(existsSync(`${output}.checkpoint`)).toBe(false);
  });

  it('leaves what an older one kept where it is', async () => {
    const tiny = await tinyRun(files);
    const output = files.fresh('trained.onnx');
    const wild = { optimizer: 'sgd', lr: 1e12, clip: 0, momentum: 0, steps: 50, output } as const;
    const kept = checkpointFile(`${output}.checkpoint`);
    await failure(() => trainTiny(files, tiny, wild), 'diverged');
    const before = readFileSync(kept);
    const { hint } = await failure(() => trainTiny(files, tiny, { ...wild, seed: 1 }), 'diverged');
    expect(readFileSync(kept).equals(before)).toBe(true);
    expect(hint).toContain(`checkpoint: "${output}.checkpoint-2", resume: true`);
    expect(existsSync(checkpointFile(`${output}.checkpoint-2`))).toBe(true);
  });

  it('that only its last update made so is not written either', async () => {
    const tiny = await tinyRun(files);
    const output = files.fresh('trained.onnx');
    const wild = { optimizer: 'sgd', lr: 3e38, clip: 0, schedule: 'constant', steps: 1 } as const;
    const { message } = await failure(
      () => trainTiny(files, tiny, { ...wild, output }),
      'diverged',
    );
    expect(message).toContain('step 1: its update overflows');
    expect(existsSync(output)).toBe(false);
  });

  it('names the samples that made it so, and keeps the state in front of them', async () => {
    const tiny = await tinyRun(files);
    const targets = new Array(22 * 4).fill(0.5).fill(3e38, 9 * 4, 10 * 4);
    const data = files.write(
      safetensors({ x: ['float32', [22, 6], 1], target: ['float32', [22, 4], targets] }),
      'data.safetensors',
    );
    const output = files.fresh('trained.onnx');
    const { message, hint } = await failure(
      () => trainTiny(files, { ...tiny, data }, { output, shuffle: false, steps: 6 }),
      'diverged',
    );
    expect(message).toMatch(/^step 3: the loss is Infinity, expected a finite number \(.*9/);
    expect(hint).toContain(`after step 2 is kept: go on with \`checkpoint: "${output}.checkpoint"`);
    expect(existsSync(checkpointFile(`${output}.checkpoint`))).toBe(true);
  });

  it('in an evaluation stops there', async () => {
    const tiny = await tinyRun(files);
    const evalData = files.write(
      safetensors({ x: ['float32', [2, 6], 1], target: ['float32', [2, 4], 3e38] }),
      'eval.safetensors',
    );
    const { message } = await failure(
      () => trainTiny(files, tiny, { evalData, evalEvery: 2, steps: 4 }),
      'diverged',
    );
    expect(message).toContain('the evaluation after step 2: the loss is Infinity');
  });
});

const tinyRunOptions = { rank: 4, blocks: 2, targets: ['all'] };

function overflowing(scale: number): Promise<Uint8Array> {
  const bytes = model({
    nodes: [node('MatMul', ['x', 'w'], 'h', {}, 'layer'), node('Mul', ['h', 'large'], 'y')],
    initializers: [tensor('w', [6, 4]), tensor('large', [], [scale])],
    inputs: [value('x', ['batch', 6])],
    outputs: [value('y', ['batch', 4])],
  });
  return insertInto(bytes, tinyRunOptions);
}

describe('evaluations', () => {
  /** One sample for training and its opposite for evaluation: the better the one, the worse the other. */
  async function opposites() {
    const x = [1, -1, 0.5, 2, -0.5, 1];
    const sample = (sign: number) =>
      safetensors({
        x: ['float32', [1, 6], x],
        target: ['float32', [1, 4], [5, 5, 5, 5].map((v) => v * sign)],
      });
    const tiny = {
      model: files.write(await insertInto(tinyModel(), tinyRunOptions)),
      data: files.write(sample(1), 'data.safetensors'),
    };
    return { tiny, evalData: files.write(sample(-1), 'eval.safetensors') };
  }

  it('come every so many steps and at the end', async () => {
    const { tiny, evalData } = await opposites();
    const log = files.fresh('log.jsonl');
    await trainTiny(files, tiny, { evalData, evalEvery: 4, steps: 10, log });
    const evaluated = logOf(log).flatMap((record) => ('eval' in record ? [record] : []));
    expect(evaluated.map((record) => (record as unknown as { step: number }).step)).toEqual([
      4, 8, 10,
    ]);
  });

  it('stop a run that gets no better, and the best is what is written', async () => {
    const { tiny, evalData } = await opposites();
    const options = { evalData, evalEvery: 2, earlyStop: 3, keepBest: true, steps: 100 };
    const result = await trainTiny(files, tiny, options);
    // The first evaluation is the best, and three follow it.
    expect(result).toMatchObject({ steps: 8, best: { step: 2 } });
    expect(result.eval!.loss).toBeGreaterThan(result.best!.loss);
    const feeds = { x: feed([1, 6], [1, -1, 0.5, 2, -0.5, 1]) };
    const { y } = await run(result.output, feeds, 'all');
    const loss = y!.data.reduce((sum, value) => sum + (value + 5) ** 2, 0) / 4;
    expect(loss).toBeCloseTo(result.best!.loss, 4);
  });
});

const { onnx } = onnxProto;

/** The model written anew by a program that puts the adapters' numbers into a file of their own. */
function moveOut(path: string): string {
  const decoded = onnx.ModelProto.decode(readFileSync(path));
  const moved = files.fresh('moved.onnx');
  let offset = 0;
  const parts: Uint8Array[] = [];
  for (const one of decoded.graph!.initializer!) {
    if (!FACTOR.test(one.name!)) continue;
    const bytes = one.rawData!;
    const entries = { location: `${basename(moved)}.data`, offset, length: bytes.length };
    one.externalData = Object.entries(entries).map(([key, v]) => ({ key, value: String(v) }));
    one.dataLocation = onnx.TensorProto.DataLocation.EXTERNAL;
    one.rawData = new Uint8Array();
    parts.push(bytes);
    offset += bytes.length;
  }
  writeFileSync(`${moved}.data`, Buffer.concat(parts));
  writeFileSync(moved, onnx.ModelProto.encode(decoded).finish());
  return moved;
}

const FACTOR = /\/(A|B)$/i;

describe('the trained model', () => {
  /** Where two files of one length differ, as [start, end). */
  function differences(a: Buffer, b: Buffer): number[] {
    expect(a.length).toBe(b.length);
    return [...a.keys()].filter((i) => a[i] !== b[i]);
  }

  it('differs from the untrained one in the numbers of its adapters only', async () => {
    const tiny = await tinyRun(files);
    const { output } = await trainTiny(files, tiny, { steps: 5 });
    const opened = openModel(tiny.model);
    const ranges = [...opened.graph.initializers.values()].flatMap(({ name, data }) =>
      FACTOR.test(name) && data.kind === 'raw' ? [data.field] : [],
    );
    opened.close();
    expect(ranges).toHaveLength(4);
    const changed = differences(readFileSync(tiny.model), readFileSync(output));
    expect(changed.length).toBeGreaterThan(100);
    const inside = changed.filter((at) => ranges.some(({ value, end }) => at >= value && at < end));
    expect(inside).toEqual(changed);
  });

  it('gives the base model back, bit for bit', async () => {
    const tiny = await tinyRun(files);
    const { output } = await trainTiny(files, tiny, { steps: 5 });
    const base = files.fresh('base.onnx');
    await unpatch(output, { output: base });
    expect(readFileSync(base).equals(tinyModel())).toBe(true);
  });

  it('is the same where another program moved its adapters out of the file', async () => {
    const tiny = await tinyRun(files);
    const moved = { ...tiny, model: moveOut(tiny.model) };
    const feeds = {
      x: feed(
        [2, 6],
        Array.from({ length: 12 }, (_, i) => Math.sin(i)),
      ),
    };
    const inside = await trainTiny(files, tiny, { steps: 5 });
    const outside = await trainTiny(files, moved, { steps: 5 });
    const [expected, found] = [await run(inside.output, feeds), await run(outside.output, feeds)];
    expect(maxDifference(found.y!.data, expected.y!.data)).toBe(0);
    const base = files.fresh('base.onnx');
    await unpatch(outside.output, { output: base });
    const back = await run(base, feeds);
    expect(maxDifference(back.y!.data, (await run(tinyModel(), feeds)).y!.data)).toBe(0);
  });
});
