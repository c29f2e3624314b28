import type { TrainResult } from '../../src/commands/train/run.js';
import { seedOption } from '../../src/options/common.js';
import { optimizerNames, optimizerSummary } from '../../src/training/optimizers/index.js';
import { schedules } from '../../src/training/schedule.js';
import { defineCommand } from '../command.js';
import { legacy } from '../legacy.js';
import { forceOption, headOption, nameOption, outputOptions } from '../options.js';
import { bytes, duration, measure, plural, printable } from '../text.js';
import {
  batchOption,
  dataOption,
  guardOption,
  imageOptions,
  lossOptions,
  ofLosses,
  rowOptions,
  runtimeOptions,
  textOptions,
} from '../training-options.js';
import { guardLines } from '../verification.js';

export const trainCommand = defineCommand({
  name: 'train',
  summary: 'train the adapters of a patched model',
  description:
    'Runs forward, backward and the optimizer as one graph in ONNX Runtime. The base weights stay as they are. Ctrl-C stops after the current step and saves a checkpoint.',
  positionals: {
    model: { value: 'MODEL', summary: 'a patched model: an .onnx file, or its folder' },
  },
  options: {
    ...seedOption,
    ...legacy({
      ...dataOption,
      evalData: {
        type: 'path',
        group: 'Data',
        value: 'FILE',
        summary: 'samples to evaluate on, which are not trained on',
        example: '--eval-data test.safetensors',
      },
      shuffle: {
        type: 'boolean',
        group: 'Data',
        onByDefault: true,
        summary: 'take the samples in the order of the file',
        example: '--no-shuffle',
      },
      ...rowOptions,
      ...textOptions,
      ...imageOptions,
      ...lossOptions,
      labelSmoothing: {
        type: 'number',
        group: 'Loss',
        value: 'SHARE',
        default: 0,
        summary: ofLosses('labelSmoothing', 'share of the target that is spread over all answers'),
        example: '--label-smoothing 0.1',
      },
      temperature: {
        type: 'number',
        group: 'Loss',
        value: 'T',
        default: 1,
        summary: ofLosses('temperature', 'what both sides are divided by'),
        example: '--temperature 2',
      },
      name: { ...nameOption.name, default: 'the only one' },
      ...headOption,
      trainBias: {
        type: 'boolean',
        group: 'Adapters',
        summary: 'train the biases of the adapted layers too',
        example: '--train-bias',
      },
      epochs: {
        type: 'number',
        group: 'Training',
        value: 'N',
        default: 3,
        summary: 'passes over the data',
        example: '--epochs 10',
      },
      steps: {
        type: 'integer',
        group: 'Training',
        value: 'N',
        summary: 'number of updates, instead of epochs',
        example: '--steps 500',
      },
      ...batchOption,
      accumulate: {
        type: 'integer',
        group: 'Training',
        value: 'N',
        default: 1,
        summary: 'gradient accumulation: batches per update',
        example: '--accumulate 4',
      },
      lossScale: {
        type: 'string',
        group: 'Optimizer',
        value: 'N|auto',
        default: 'auto',
        summary: 'a power of two that the loss is multiplied by for the backward pass',
        example: '--loss-scale 1024',
      },
      lr: {
        type: 'number',
        group: 'Optimizer',
        value: 'RATE',
        default: '0.0005, of lion 0.0001',
        summary: 'peak learning rate',
        example: '--lr 1e-3',
      },
      lrRatio: {
        type: 'number',
        group: 'Optimizer',
        value: 'RATIO',
        default: 1,
        summary: 'LoRA+: learning rate of B, and of biases, over that of A',
        example: '--lr-ratio 16 --lr 1e-4',
      },
      schedule: {
        type: 'string',
        group: 'Optimizer',
        value: 'NAME',
        choices: schedules,
        default: 'linear',
        summary: 'learning rate schedule',
        example: '--schedule cosine',
      },
      warmup: {
        type: 'integer',
        group: 'Optimizer',
        value: 'STEPS',
        default: 0,
        summary: 'warm-up steps, in which the learning rate rises from zero',
        example: '--warmup 100',
      },
      optimizer: {
        type: 'string',
        group: 'Optimizer',
        value: 'NAME',
        choices: optimizerNames,
        default: 'adamw',
        summary: optimizerSummary,
        example: '--optimizer sgd',
      },
      weightDecay: {
        type: 'number',
        group: 'Optimizer',
        value: 'RATE',
        default: 0.01,
        summary: 'decoupled weight decay',
        example: '--weight-decay 0',
      },
      betas: {
        type: 'number',
        group: 'Optimizer',
        value: 'B1 B2',
        repeatable: true,
        values: 2,
        default: '0.9 0.999, of lion 0.9 0.99',
        summary: 'memory of AdamW and Lion',
        example: '--betas 0.9 0.95',
      },
      eps: {
        type: 'number',
        group: 'Optimizer',
        value: 'EPS',
        default: 1e-8,
        summary: 'epsilon of AdamW, against division by zero',
        example: '--eps 1e-6',
      },
      momentum: {
        type: 'number',
        group: 'Optimizer',
        value: 'SHARE',
        default: 0.9,
        summary: 'memory of SGD',
        example: '--optimizer sgd --momentum 0',
      },
      clip: {
        type: 'number',
        group: 'Optimizer',
        value: 'NORM',
        default: 1,
        summary: 'the largest norm of the whole gradient; 0 for no limit',
        example: '--clip 0',
      },
      dropout: {
        type: 'number',
        group: 'Optimizer',
        value: 'SHARE',
        default: 0,
        summary: 'dropout on the inputs of the adapters',
        example: '--dropout 0.05',
      },
      evalEvery: {
        type: 'integer',
        group: 'Evaluation',
        value: 'STEPS',
        default: 'an epoch',
        summary: 'steps between evaluations',
        example: '--eval-every 100',
      },
      earlyStop: {
        type: 'integer',
        group: 'Evaluation',
        value: 'N',
        summary: 'stop after so many evaluations without a better loss',
        example: '--early-stop 3',
      },
      keepBest: {
        type: 'boolean',
        group: 'Evaluation',
        summary: 'write the adapters of the best evaluation instead of the last ones',
        example: '--eval-data test.npz --keep-best',
      },
      checkpoint: {
        type: 'path',
        group: 'Checkpoints',
        value: 'DIR',
        summary: 'folder for checkpoints',
        example: '--checkpoint run1',
      },
      checkpointEvery: {
        type: 'integer',
        group: 'Checkpoints',
        value: 'STEPS',
        default: 'an epoch',
        summary: 'steps between checkpoints',
        example: '--checkpoint-every 50',
      },
      resume: {
        type: 'boolean',
        group: 'Checkpoints',
        summary: 'resume from the checkpoint; the result is the same as without a break',
        example: '--checkpoint run1 --resume',
      },
      ...outputOptions('model.trained.onnx'),
      ...forceOption,
      saveAdapter: {
        type: 'path',
        group: 'Output',
        value: 'PATH',
        summary: 'write the adapters to a file of their own as well',
        example: '--save-adapter adapter.safetensors',
      },
      log: {
        type: 'path',
        group: 'Output',
        value: 'FILE',
        summary: 'one JSON line for each step and evaluation',
        example: '--log run.jsonl',
      },
      plot: {
        type: 'path',
        group: 'Output',
        value: 'FILE',
        summary: 'the loss curve as an SVG picture',
        example: '--plot run.svg',
      },
      tensorboard: {
        type: 'path',
        group: 'Output',
        value: 'DIR',
        summary: 'the curves for TensorBoard',
        example: '--tensorboard runs/a',
      },
      report: {
        type: 'path',
        group: 'Output',
        value: 'FILE',
        summary: 'one HTML page with curves, measures, settings and what changed where',
        example: '--report run.html',
      },
      emitStepGraph: {
        type: 'path',
        group: 'Output',
        value: 'FILE',
        summary: 'write the training step as an ONNX model, instead of running it',
        example: '--emit-step-graph step.onnx',
      },
      ...guardOption,
      verbose: {
        type: 'boolean',
        group: 'Output',
        summary: 'what the comparison with the file found and took, and the nodes left to the CPU',
        example: '--provider webgpu --verbose',
      },
      ...runtimeOptions,
    }),
  },
  examples: [
    {
      command: 'onnx-lora train model.lora.onnx --data train.safetensors --loss cross-entropy',
      summary: 'three epochs with AdamW',
    },
    {
      command:
        'onnx-lora train bert.lora.onnx --data reviews.jsonl --tokenizer bert/ --loss cross-entropy',
      summary: 'on texts with labels',
    },
    {
      command: 'onnx-lora train model.lora.onnx --config run1.json --checkpoint run1 --steps 500',
      summary: '500 updates, kept on the way, with every other option from a file',
    },
  ],
  async run({ model, verbose, ...options }, ui) {
    const { train } = await import('../../src/commands/train/train.js');
    const work = { ...ui.work, onNote: ui.note };
    const result = await train(model, { ...options, ...work });
    return { result, text: () => reportOf(result, verbose ?? false) };
  },
});

function reportOf(result: TrainResult, verbose: boolean): string {
  const { output, adapter, steps, loss, provider, seconds, peakMemoryBytes } = result;
  if (!loss) return `wrote ${printable(output)}: the training step, with its manifest\n`;
  const { first, last, best } = loss;
  const lines = [
    `${plural(steps, 'step')} in ${duration(seconds)}, ${bytes(peakMemoryBytes)} of memory at most`,
    `loss ${measure(first)} -> ${measure(last)}, best ${measure(best)}`,
    ...evaluationLines(result),
    ...(result.skippedRows ? [`${plural(result.skippedRows, 'bad row')} left out`] : []),
    ...(provider ? providerLines(provider, verbose) : []),
    ...(verbose ? guardLines(result.guard) : []),
    ...(verbose ? guardLines(result.evalGuard, ' on the data of the evaluation') : []),
    `wrote ${printable(output)}`,
    ...(adapter === undefined ? [] : [`wrote ${printable(adapter)}: the adapters alone`]),
  ];
  return `${lines.join('\n')}\n`;
}

function evaluationLines({ eval: metrics, best }: TrainResult): string[] {
  if (!metrics) return [];
  const listed = Object.entries(metrics).map(([name, value]) => `${name} ${measure(value)}`);
  const lines = [`evaluation: ${listed.join(', ')}`];
  if (best) lines.push(`best evaluation: loss ${measure(best.loss)} at step ${best.step}`);
  return lines;
}

function providerLines(
  { used, nodes, fallbacks }: NonNullable<TrainResult['provider']>,
  verbose: boolean,
): string[] {
  const counts = Object.entries(nodes).map(([name, count]) => `${count} on ${name}`);
  // A resumed run that was over took no step.
  const where = counts.length > 0 ? `: ${counts.join(', ')} of the step's nodes` : '';
  const lines = [`provider ${used}${where}`];
  if (verbose)
    for (const { node, op } of fallbacks) lines.push(`  on cpu: ${op} ${printable(node)}`);
  return lines;
}
