import { trainOptions } from '../../src/commands/options/train.js';
import type { TrainResult } from '../../src/commands/train/result.js';
import { varied } from '../../src/options/option.js';
import { defineCommand } from '../command.js';
import { verboseOption } from '../common-options.js';
import { bytes, duration, measure, plural, printable } from '../text.js';
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
    ...trainOptions,
    verbose: varied(verboseOption.verbose, {
      summary:
        'show what the comparison with the file found and took, and the nodes left to the CPU',
      example: '--provider webgpu --verbose',
      notWith: ['json', 'emitStepGraph'],
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
    ...scaleLines(result),
    ...(result.skippedRows ? [`${plural(result.skippedRows, 'bad row')} left out`] : []),
    ...(provider ? providerLines(provider, verbose) : []),
    ...(verbose ? guardLines(result.guard) : []),
    ...(verbose ? guardLines(result.evalGuard, ' on the data of the evaluation') : []),
    `wrote ${printable(output)}`,
    ...(adapter === undefined ? [] : [`wrote ${printable(adapter)}: the adapters alone`]),
  ];
  return `${lines.join('\n')}\n`;
}

function scaleLines({ lossScale }: TrainResult): string[] {
  if (!lossScale?.skipped) return [];
  const { skipped, last } = lossScale;
  return [`${plural(skipped, 'update')} left out: the gradient overflowed; loss scale ${last} now`];
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
