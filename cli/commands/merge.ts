import type { MergedWeight, MergeResult, QuantizedResult } from '../../src/commands/merge.js';
import { mergeOptions } from '../../src/commands/options/merge.js';
import { noteUnmatched, replacedText } from '../adapters.js';
import { defineCommand } from '../command.js';
import type { Column } from '../table.js';
import { measure, plural, printable } from '../text.js';
import { chosenProvider, verificationFailure, verificationLines } from '../verification.js';

export const mergeCommand = defineCommand({
  name: 'merge',
  summary: 'fold the adapters into the weights, and prove it',
  description:
    'The result has the graph of the base model and its speed. Then the model with adapters and the merged one run on the same inputs: where they differ by more than rounding, the exit status is 2.',
  positionals: {
    model: {
      value: 'MODEL',
      summary: 'a patched model, or with --adapter its base; a file or a folder',
    },
  },
  options: mergeOptions,
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
      command: 'onnx-lora merge model.lora.onnx --quantized requantize',
      summary: 'a quantized model of the same size; what rounding loses of each layer is told',
    },
    {
      command: 'onnx-lora merge model.lora.onnx --to q4 -o model_q4.onnx',
      summary: 'the result in 4 bits, with what each layer keeps of its change',
    },
    {
      command: 'onnx-lora merge merged.onnx --adapter adapter.safetensors --scale -1 -o base.onnx',
      summary: 'the base again, to rounding; the way back bit for bit is to keep it',
    },
  ],
  async run({ model, provider, ...options }, ui) {
    const { merge } = await import('../../src/commands/merge.js');
    const used = await chosenProvider(provider, ui);
    const result = await merge(model, { ...options, provider: used, ...ui.work, onNote: ui.note });
    const { output, merged, replaced, unmatched, verification, quantized } = result;
    noteUnmatched(unmatched, ui);
    const text = () =>
      [
        ui.table(columnsFor(merged), merged),
        '',
        ...lostLines(merged),
        ...undoneLines(merged),
        ...verificationLines(verification),
        ...quantizedLines(quantized),
        ...lossLines(result.loss),
        `wrote ${printable(output)}: ${plural(merged.length, 'weight')} changed${replacedText(replaced, 'other tensor')}\n`,
      ].join('\n');
    const failure = verificationFailure(
      verification?.passed === false ? verification : quantized?.verification,
      output,
      'Do not use the file. With --samples the models are compared on inputs of your own.',
    );
    return { result, text, failure };
  },
});

function columnsFor(merged: readonly MergedWeight[]): Column<MergedWeight>[] {
  const kind: Column<MergedWeight> = { title: 'fold', value: (weight) => weight.kind };
  const lost: Column<MergedWeight> = {
    title: 'lost',
    value: (weight) => (weight.lost === undefined ? '-' : measure(weight.lost)),
    align: 'right',
  };
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
    ...(merged.some((weight) => weight.lost !== undefined) ? [lost] : []),
  ];
}

/** Nodes that read rounded weights, and the check of them. */
function quantizedLines(quantized: QuantizedResult | undefined): string[] {
  if (!quantized) return [];
  const { to, nodes, weights = [], verification } = quantized;
  const squares = (sum: number, value: number) => sum + value * value;
  const [error, norm] = [weights.map((one) => one.error), weights.map((one) => one.norm)].map(
    (list) => Math.sqrt(list.reduce(squares, 0)),
  );
  const share = norm ? `, |Q(W) - W| / ||W|| ${measure(error! / norm)}` : '';
  const isHalf = to === 'fp16';
  const readers = isHalf
    ? `${plural(nodes, 'node')} on float16`
    : `${plural(nodes, 'product')} in integers`;
  return [
    `${to}: ${readers}${share}`,
    ...verificationLines(verification, isHalf ? 'float16' : 'integers'),
  ];
}

function lossLines(loss: MergeResult['loss']): string[] {
  if (!loss) return [];
  return [`loss ${measure(loss.before)} with the adapters, ${measure(loss.after)} merged`];
}

/** An explanation of the column `lost`. */
function lostLines(merged: readonly MergedWeight[]): string[] {
  if (merged.every(({ lost }) => lost === undefined)) return [];
  return ['lost: |Q(W + ΔW) - W - ΔW| / ||ΔW||, 0 where rounding to integers left all of ΔW'];
}

/** Lines on how near an undone fold comes to the weights before it. */
function undoneLines(merged: readonly MergedWeight[]): string[] {
  const shares = merged.flatMap(({ undoneWithin, weightNorm }) =>
    undoneWithin === undefined || weightNorm === 0 ? [] : [undoneWithin / weightNorm],
  );
  if (shares.length === 0) return [];
  const most = measure(Math.max(...shares));
  return [`where this undoes a fold, every weight is back to within rounding: ${most} of its norm`];
}
