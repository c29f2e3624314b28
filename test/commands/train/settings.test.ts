/** A run resumes only with the options that it was started with, but for those that its numbers do not depend on. */
import { expect, it } from 'vitest';
import { resolveTrainOptions, trainOptions } from '../../../src/commands/options/train.js';
import { settingsOf } from '../../../src/commands/train/settings.js';
import { checkSettings } from '../../../src/training/checkpoint.js';
import type { ForwardGraph } from '../../../src/training/forward.js';

const samples =
  'which samples: their number is compared, and the recipe that texts and pixels are made by';
const measured = 'decides what is measured and kept, not what is learnt';
const shown = 'shows what is learnt';
const written = 'a place for files, which may move between two runs';
const machine = 'of the machine: a run may go on on another one, whose sums are rounded otherwise';
const caller = 'of the call, not of the run';

/** Options that a checkpoint is not compared in, with the reason. */
const left: Readonly<Record<string, string>> = {
  data: samples,
  labelField: samples,
  labels: samples,
  skipBadRows: samples,
  tokenizer: samples,
  textField: samples,
  textPairField: samples,
  textNegativeField: samples,
  maxLength: samples,
  truncate: samples,
  imageField: samples,
  imageSize: samples,
  mean: samples,
  std: samples,
  processor: samples,
  fit: samples,
  resample: samples,
  channels: samples,
  dictionary: samples,
  name: 'chooses the adapters, which are compared',
  head: 'is one of the adapters, which are compared',
  lossScale: 'a power of two, which rounds nothing; its value goes on with the checkpoint',
  evalData: 'which samples: their number and recipe are compared as `evalSamples`',
  evalEvery: measured,
  earlyStop: measured,
  keepBest: measured,
  samplePrompt: shown,
  sampleEvery: shown,
  sampleTokens: shown,
  log: written,
  plot: written,
  report: written,
  tensorboard: written,
  output: written,
  finalOutput: written,
  saveAdapter: written,
  checkpoint: written,
  checkpointEvery: 'decides how much is lost, not what is learnt',
  emitStepGraph: 'ends before the first step',
  guard: 'compares the step with the file, and changes neither',
  provider: machine,
  threads: machine,
  resume: caller,
  force: caller,
  alsoRead: caller,
  signal: caller,
  onProgress: caller,
  onNote: caller,
};

const options = resolveTrainOptions({ data: 'data.safetensors', loss: 'mse' });
const twelve = { size: 12 };
const of = (evaluated?: { size: number; recipe?: string }) =>
  settingsOf(options, { set: {} } as ForwardGraph, { trained: twelve, evaluated }, 0);
const compared = of();

it('a checkpoint is compared in every option that the numbers of a run depend on', () => {
  const others = Object.keys(trainOptions).filter((key) => !Object.hasOwn(compared, key));
  expect(others.toSorted()).toEqual(Object.keys(left).toSorted());
});

it('a checkpoint from before an optimizer came with an option of its own is resumed', () => {
  const { eps: _, ...older } = compared;
  expect(checkSettings('run', older, compared, false)).toEqual([]);
});

it('other samples to evaluate are named, and taken where that is wanted', () => {
  const [before, after] = [of({ size: 5 }), of({ size: 7, recipe: 'text in 64 tokens' })];
  expect(() => checkSettings('run', before, after, false)).toThrow(
    /evalSamples was 5, is 7, text in 64 tokens/,
  );
  expect(checkSettings('run', before, after, true)).toHaveLength(1);
  const { evalSamples: _, ...older } = before;
  expect(checkSettings('run', older, after, false)).toEqual([]);
});
