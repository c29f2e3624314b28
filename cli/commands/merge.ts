import type { MergedWeight } from '../../src/commands/merge.js';
import { seedOption } from '../../src/options/common.js';
import { noteUnmatched, replacedText } from '../adapters.js';
import { defineCommand } from '../command.js';
import { legacy } from '../legacy.js';
import { bindOptions, checkOptions, nameOption, outputOptions } from '../options.js';
import type { Column } from '../table.js';
import { measure, plural, printable } from '../text.js';
import { chosenProvider, verificationFailure, verificationLines } from '../verification.js';

export const mergeCommand = defineCommand({
  name: 'merge',
  summary: 'fold the adapters into the weights, and prove it',
  description:
    'The result has the graph of the base model and its speed. Then the model with adapters and the merged one run on the same inputs: where they differ by more than rounding, the exit status is 2.',
  positionals: {
    model: { value: 'MODEL', summary: 'a patched model, or with --adapter its base' },
  },
  options: {
    ...seedOption,
    ...legacy({
      adapter: {
        type: 'path',
        group: 'Adapters',
        value: 'PATH',
        summary: 'fold the adapters of this file or PEFT folder instead of those in the model',
        example: '--adapter adapter.safetensors',
      },
      ...bindOptions,
      ...nameOption,
      scale: {
        type: 'number',
        group: 'Adapters',
        value: 'FACTOR',
        default: 1,
        summary: 'multiplies every change of a weight; -1 undoes a fold, to rounding',
        example: '--scale 0.5',
      },
      verify: {
        type: 'boolean',
        group: 'Check',
        onByDefault: true,
        summary: 'fold without comparing the models',
        example: 'onnx-lora merge model.lora.onnx --no-verify',
      },
      tolerance: {
        type: 'number',
        group: 'Check',
        value: 'SHARE',
        default: 'by the weights',
        summary: 'largest difference that counts as rounding, as a share of the largest output',
        example: '--tolerance 1e-4',
      },
      ...checkOptions,
      ...outputOptions('model.merged.onnx'),
    }),
  },
  examples: [
    {
      command: 'onnx-lora merge model.lora.onnx -o model.onnx',
      summary: 'a model like any other, without adapters and as fast as the base',
    },
    {
      command: 'onnx-lora merge model.onnx --adapter adapter.safetensors --scale 0.5',
      summary: 'half of what the adapters of a file would change',
    },
    {
      command: 'onnx-lora merge merged.onnx --adapter adapter.safetensors --scale -1 -o base.onnx',
      summary: 'the base again, to rounding; the way back bit for bit is to keep it',
    },
  ],
  async run({ model, provider, ...options }, ui) {
    const { merge } = await import('../../src/commands/merge.js');
    const used = await chosenProvider(provider, ui);
    const result = await merge(model, { ...options, provider: used, ...ui.work });
    const { output, merged, replaced, unmatched, verification } = result;
    noteUnmatched(unmatched, ui);
    const text = () =>
      [
        ui.table(columnsFor(merged), merged),
        '',
        ...undoneLines(merged),
        ...verificationLines(verification),
        `wrote ${printable(output)}: ${plural(merged.length, 'weight')} changed${replacedText(replaced, 'other tensor')}\n`,
      ].join('\n');
    const failure = verificationFailure(
      verification,
      output,
      'Do not use the file. With --samples the models are compared on inputs of your own.',
    );
    return { result, text, failure };
  },
});

function columnsFor(merged: readonly MergedWeight[]): Column<MergedWeight>[] {
  const kind: Column<MergedWeight> = { title: 'fold', value: (weight) => weight.kind };
  return [
    { title: 'module', value: ({ module }) => module, flexible: true },
    ...(merged.every((weight) => weight.kind === 'in place') ? [] : [kind]),
    { title: '||ΔW||', value: ({ deltaNorm }) => measure(deltaNorm), align: 'right' },
    { title: '||W||', value: ({ weightNorm }) => measure(weightNorm), align: 'right' },
    {
      title: 'ratio',
      value: ({ deltaNorm, weightNorm }) =>
        weightNorm === 0 ? '-' : measure(deltaNorm / weightNorm),
      align: 'right',
    },
  ];
}

/** How near an undone fold comes to the weights that were there before. */
function undoneLines(merged: readonly MergedWeight[]): string[] {
  const shares = merged.flatMap(({ undoneWithin, weightNorm }) =>
    undoneWithin === undefined || weightNorm === 0 ? [] : [undoneWithin / weightNorm],
  );
  if (shares.length === 0) return [];
  const most = measure(Math.max(...shares));
  return [`where this undoes a fold, every weight is back to within rounding: ${most} of its norm`];
}
