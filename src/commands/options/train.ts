import { headOption } from '../../adapters/edit/adapter-options.js';
import { dataOption, dataOptions } from '../../data/data-options.js';
import { noteOption, outputOption, writeOptions } from '../../onnx/write-options.js';
import { seedOption } from '../../options/common.js';
import {
  type OptionsOf,
  option,
  type ResolvedOf,
  restricted,
  varied,
} from '../../options/option.js';
import { resolveOptions } from '../../options/resolve.js';
import { path, toggle } from '../../options/schemas.js';
import { providerOption, threadsOption } from '../../runtime/options.js';
import { guardOption, lossSettings } from '../../training/loss-settings.js';
import { lossTrainOptions } from '../../training/losses/index.js';
import {
  checkpointOptions,
  evaluationOptions,
  lengthOptions,
  type RunOptions,
  sampleOptions,
  stepOptions,
  writingOptions,
} from '../../training/run-options.js';
import { theNameOption } from './name.js';

/** Files of a run; one that only writes its step graph leaves none of them. */
const runOutputs = {
  ...outputOption('model.trained.onnx'),
  /** A file for the adapters alone. */
  saveAdapter: option(path, {
    group: 'Output',
    value: 'PATH',
    summary: 'write the adapters to a file of their own as well',
    example: '--save-adapter adapter.safetensors',
  }),
  /** A file for one JSON line a step and an evaluation. */
  log: option(path, {
    group: 'Output',
    value: 'FILE',
    summary: 'one JSON line for each step and evaluation',
    example: '--log run.jsonl',
  }),
  /** An SVG file for the curves. */
  plot: option(path, {
    group: 'Output',
    value: 'FILE',
    summary: 'the loss curve as an SVG picture',
    example: '--plot run.svg',
  }),
  /** A folder for the curves, as TensorBoard reads them. */
  tensorboard: option(path, {
    group: 'Output',
    value: 'DIR',
    summary: 'the curves for TensorBoard',
    example: '--tensorboard runs/a',
  }),
  /** An HTML file that tells the whole run: curves, measures, settings, what the adapters changed. */
  report: option(path, {
    group: 'Output',
    value: 'FILE',
    summary: 'one HTML page with curves, measures, settings and what changed where',
    example: '--report run.html',
  }),
};

const ofRuns = { notWith: ['emitStepGraph'] };

export const trainOptions = {
  ...dataOption,
  ...sampleOptions,
  evalData: varied(sampleOptions.evalData, ofRuns),
  ...dataOptions,
  ...lossSettings,
  ...lossTrainOptions,
  ...theNameOption,
  ...headOption,
  /** Whether the biases of adapted layers train too. */
  trainBias: option(toggle, {
    group: 'Adapters',
    default: false,
    summary: 'train the biases of the adapted layers too',
    example: '--train-bias',
  }),
  ...lengthOptions,
  ...stepOptions,
  ...evaluationOptions,
  ...restricted(writingOptions, ofRuns),
  ...checkpointOptions,
  checkpoint: varied(checkpointOptions.checkpoint, ofRuns),
  ...guardOption,
  ...restricted(runOutputs, ofRuns),
  /** Write the step graph here instead of running it. */
  emitStepGraph: option(path, {
    group: 'Output',
    value: 'FILE',
    summary: 'write the training step as an ONNX model, instead of running it',
    example: '--emit-step-graph step.onnx',
  }),
  ...writeOptions,
  ...providerOption,
  ...threadsOption,
  ...seedOption,
  ...noteOption,
};

/** Options of `train`. */
export interface TrainOptions extends OptionsOf<typeof trainOptions> {}

/** Options with nothing left open. */
export type ResolvedTrainOptions = ResolvedOf<typeof trainOptions> & RunOptions;

/** @throws OnnxLoraError `invalid-argument` naming the option */
export function resolveTrainOptions(given: TrainOptions): ResolvedTrainOptions {
  const { onNote = () => {}, onProgress = () => {}, ...options } = given;
  return {
    ...resolveOptions(trainOptions, { ...options, onNote, onProgress }, 'train'),
    onNote,
    onProgress,
  };
}
