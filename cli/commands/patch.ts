import type { SlotSummary } from '../../src/adapters/slots/summary.js';
import { patchOptions } from '../../src/commands/options/patch.js';
import { varied } from '../../src/options/option.js';
import {
  adapterColumns,
  noteUnmatched,
  replacedText,
  skippedLines,
  slotColumns,
  trainableLine,
} from '../adapters.js';
import { defineCommand } from '../command.js';
import { verboseOption } from '../common-options.js';
import { plural, printable } from '../text.js';
import {
  chosenProvider,
  guardLines,
  verificationFailure,
  verificationLines,
} from '../verification.js';

export const patchCommand = defineCommand({
  name: 'patch',
  summary: 'insert adapters beside the linear layers of a model',
  description:
    'The adapters start at zero: the patched model computes exactly what the model does. Train it, then fold it with merge.',
  positionals: { model: { value: 'MODEL', summary: 'the model: an .onnx file, or its folder' } },
  options: {
    ...patchOptions,
    verbose: varied(verboseOption.verbose, {
      notWith: ['json', 'adapter'],
      summary:
        'list every skipped node with its reason, and what the comparison with the file found',
    }),
  },
  examples: [
    {
      command: 'onnx-lora patch model.onnx --rank 8 --targets query --targets value',
      summary: 'adapters of rank 8 beside the query and value projections',
    },
    {
      command: 'onnx-lora patch model.onnx --structure global --exclude classifier',
      summary: 'plain LoRA everywhere but in the classifier',
    },
    {
      command: 'onnx-lora patch model.onnx --slots',
      summary: 'one model for many adapters, chosen at each run: -> model.slots.onnx',
    },
  ],
  async run({ model, verbose, provider, ...options }, ui) {
    const { patch } = await import('../../src/commands/patch.js');
    const { slotInputs } = await import('../../src/adapters/model/slot-names.js');
    const used = options.adapter === undefined ? await chosenProvider(provider, ui) : provider;
    const work = { ...ui.work, onNote: ui.note };
    const result = await patch(model, { ...options, provider: used, ...work });
    const { output, adapters, slots, skipped, parameters, replaced, unmatched, verification } =
      result;
    const { deviation, guard } = result;
    noteUnmatched(unmatched, ui);
    const text = () => {
      const lines = [
        slots
          ? ui.table(slotColumns(), slots)
          : ui.table(adapterColumns(parameters.total), adapters),
        '',
        ...skippedLines(skipped, verbose ?? false),
        ...(verbose ? guardLines(guard) : []),
        ...verificationLines(verification),
        `wrote ${printable(output)}${replacedText(replaced)}`,
        ...(deviation === undefined ? [] : [deviationLine(deviation)]),
        slots ? slotLine(slots, slotInputs('MODULE')) : trainableLine(parameters),
      ];
      return `${lines.join('\n')}\n`;
    };
    const failure = verificationFailure(
      verification,
      output,
      'Do not use the file, unless the model draws random numbers: then no two runs of it agree.',
    );
    return { result, text, failure };
  },
});

/** A line on how well the rest of the weights and the adapters add up to the weights. */
function deviationLine(deviation: number): string {
  return `weights = rest + adapters to ${deviation.toExponential(1)} of their norm: the rounding of the rest`;
}

/** A line on the inputs to feed. */
function slotLine(slots: readonly SlotSummary[], { a, b }: { a: string; b: string }): string {
  return `${plural(slots.length, 'slot')}: inputs ${a} [in, rank] and ${b} [rank, out]`;
}
