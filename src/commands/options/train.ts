import { headOption } from '../../adapters/edit/adapter-options.js';
import { ofRows } from '../../data/data-kind.js';
import { dataOption } from '../../data/data-options.js';
import { noteOption, outputOption, writeOptions } from '../../onnx/write-options.js';
import { seedOption } from '../../options/common.js';
import {
  type Condition,
  type OptionsOf,
  option,
  type ResolvedOf,
  restricted,
  varied,
} from '../../options/option.js';
import { resolveOptions } from '../../options/resolve.js';
import { path, toggle } from '../../options/schemas.js';
import { providerOption, threadsOption } from '../../runtime/options.js';
import { lossDataOptions } from '../../training/loss-data-options.js';
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
const { epochs, steps } = lengthOptions;
const { lr, schedule, warmup } = stepOptions;

/** A step that is only written runs once, for its check. */
const runsStep: Condition = {
  holds: ({ emitStepGraph, guard }) => emitStepGraph === undefined || guard === true,
  otherwise: 'with `emitStepGraph` and `guard: false`: nothing runs',
  remedy: 'leave out `guard: false`',
};

/** The dropout of a step that is only written is fed by whoever runs it. */
const isRandom: Condition = {
  holds: ({ emitStepGraph, guard, shuffle, dropout, head }) =>
    head !== undefined || (emitStepGraph === undefined ? shuffle || dropout !== 0 : guard) === true,
  otherwise: 'where nothing is drawn at random',
  remedy: 'let something be drawn: the order of the samples, `dropout`, or the start of a `head`',
};

const [ofTexts] = ofRows.when;

/** Of texts that are read, and of those that the model writes. */
const hasTexts: Condition = {
  ...ofTexts,
  holds: (options) => options.samplePrompt !== undefined || ofTexts.holds(options),
  remedy: `${ofTexts.remedy} or a \`samplePrompt\``,
};

export const trainOptions = {
  ...dataOption,
  ...restricted(sampleOptions, ofRuns),
  ...lossDataOptions,
  tokenizer: varied(lossDataOptions.tokenizer, { when: [hasTexts] }),
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
  ...restricted({ epochs, steps }, ofRuns),
  ...stepOptions,
  ...restricted({ lr, schedule, warmup }, ofRuns),
  ...evaluationOptions,
  ...restricted(writingOptions, ofRuns),
  ...restricted(checkpointOptions, ofRuns),
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
  ...restricted(providerOption, ofRuns),
  ...restricted(threadsOption, { when: [runsStep] }),
  ...restricted(seedOption, { when: [isRandom] }),
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
