/** A run that is killed and resumed ends where an unbroken one does, bit for bit. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { TrainOptions } from '../../../src/commands/options/train.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import {
  logOf,
  type TinyRun,
  tinyData,
  tinyOptions,
  tinyRun,
  trainTiny,
} from '../../training/tiny.js';

const files = temporaryFolder();

/** Where a run leaves its files. */
function runIn(name: string) {
  const output = files.fresh(`${name}.onnx`);
  return { output, log: `${output}.jsonl`, checkpoint: `${output}.checkpoints` };
}

/** Runs in a process of its own; is killed `delay` ms behind the line `step`, where there is one. */
async function inProcess(run: TinyRun, options: Partial<TrainOptions>, step?: number, delay = 0) {
  const child = fileURLToPath(new URL('../../training/resume-child.mjs', import.meta.url));
  const json = JSON.stringify(tinyOptions(run, options));
  // A machine that is busy elsewhere may be late with the kill: the run does not end before.
  const last = step === undefined ? [] : [String(step + 60)];
  const trainer = spawn(process.execPath, [child, run.model, json, ...last], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(trainer, 'exit');
  for await (const line of createInterface(trainer.stdout)) if (Number(line) === step) break;
  if (step === undefined) return expect(await exit).toEqual([0, null]);
  await setTimeout(delay);
  trainer.kill('SIGKILL');
  expect(await exit).toEqual([null, 'SIGKILL']);
}

describe('a run that is killed again and again', () => {
  it.each<[string, Partial<TrainOptions>]>([
    ['in the order of the file', { shuffle: false, checkpointEvery: 1 }],
    ['with SGD and accumulated batches', { optimizer: 'sgd', accumulate: 3, checkpointEvery: 5 }],
    ['that keeps the best', { keepBest: true, evalEvery: 4, checkpointEvery: 6, lr: 0.3 }],
  ])('%s', async (_, given) => {
    const run = await tinyRun(files);
    const evalData = given.keepBest ? files.write(tinyData(9, 5), 'eval.safetensors') : undefined;
    const options = { ...given, evalData, steps: 240 };
    const [whole, broken] = [runIn('whole'), runIn('broken')];
    const unbroken = await trainTiny(files, run, { ...options, ...whole });
    const pieces = { ...options, ...broken, resume: true };
    await inProcess(run, pieces, 40, 1);
    await inProcess(run, pieces, 110, 4);
    await inProcess(run, pieces);
    expect(sameFiles(broken.output, whole.output)).toBe(true);
    expect(logOf(broken.log)).toEqual(logOf(whole.log));
    const again = await trainTiny(files, run, { ...pieces, force: true });
    expect(again).toMatchObject({ steps: 240, loss: unbroken.loss });
    expect([again.eval, again.best]).toEqual([unbroken.eval, unbroken.best]);
  });
});

/** Lets a run be stopped as by Ctrl-C behind its `count`-th progress message of a phase. */
function stopAt(phase: string, count: number) {
  const controller = new AbortController();
  let seen = 0;
  const onProgress = (progress: { phase: string }) => {
    if (progress.phase === phase && ++seen === count) controller.abort();
  };
  return { signal: controller.signal, onProgress };
}

describe('a run that is interrupted', () => {
  it.each([
    ['between two updates', 'training', 5],
    ['while it evaluates', 'evaluating', 5],
    ['while it evaluates for the last time', 'evaluating', 17],
  ])('%s says how to go on, and then ends as an unbroken one', async (_, phase, count) => {
    const run = await tinyRun(files);
    const evalData = files.write(tinyData(9, 5), 'eval.safetensors');
    const options = { accumulate: 2, steps: 12, evalData, evalEvery: 2, keepBest: true, lr: 0.3 };
    const [whole, broken] = [files.fresh('whole.onnx'), files.fresh('broken.onnx')];
    const [wholeLog, log] = [files.fresh('whole.jsonl'), files.fresh('broken.jsonl')];
    const unbroken = await trainTiny(files, run, { ...options, output: whole, log: wholeLog });
    const pieces = { ...options, output: broken, log };
    const stopped = await failure(
      () => trainTiny(files, run, { ...pieces, ...stopAt(phase, count) }),
      'aborted',
    );
    const checkpoint = `${broken}.checkpoint`;
    expect(stopped.hint).toContain(`checkpoint: "${checkpoint}", resume: true`);
    const resumed = await trainTiny(files, run, { ...pieces, checkpoint, resume: true });
    expect(sameFiles(broken, whole)).toBe(true);
    expect(logOf(log)).toEqual(logOf(wholeLog));
    expect([resumed.eval, resumed.best]).toEqual([unbroken.eval, unbroken.best]);
  });

  it('with Lion and LoRA+ ends as an unbroken one', async () => {
    const run = await tinyRun(files);
    const [whole, broken] = [files.fresh('whole.onnx'), files.fresh('broken.onnx')];
    const options = { optimizer: 'lion', lrRatio: 4, steps: 12 } as const;
    await trainTiny(files, run, { ...options, output: whole });
    const pieces = { ...options, output: broken };
    await failure(() => trainTiny(files, run, { ...pieces, ...stopAt('training', 5) }), 'aborted');
    await trainTiny(files, run, { ...pieces, checkpoint: `${broken}.checkpoint`, resume: true });
    expect(sameFiles(broken, whole)).toBe(true);
  });

  it('within an accumulated update takes all of its batches again', async () => {
    const run = await tinyRun(files);
    const [whole, broken] = [files.fresh('whole.onnx'), files.fresh('broken.onnx')];
    const options = { accumulate: 4, steps: 6 };
    await trainTiny(files, run, { ...options, output: whole });
    const signal = abortedAtQuestion(11);
    const pieces = { ...options, output: broken };
    await failure(() => trainTiny(files, run, { ...pieces, signal }), 'aborted');
    const checkpoint = `${broken}.checkpoint`;
    await trainTiny(files, run, { ...pieces, checkpoint, resume: true });
    expect(sameFiles(broken, whole)).toBe(true);
  });
});

/** A signal that is asked before each batch; aborted from the `count`-th question on. */
function abortedAtQuestion(count: number): AbortSignal {
  let asked = 0;
  const { signal } = new AbortController();
  return Object.defineProperty(signal, 'aborted', { get: () => ++asked >= count });
}
