import type { SlotSummary } from '../../src/adapters/slots/summary.js';
import { slotModes } from '../../src/adapters/structure/choices.js';
import { seedOption } from '../../src/options/common.js';
import {
  adapterColumns,
  noteUnmatched,
  replacedText,
  skippedLines,
  slotColumns,
  trainableLine,
} from '../adapters.js';
import { defineCommand } from '../command.js';
import { legacy, type LegacySpecs as OptionSpecs } from '../legacy.js';
import {
  adapterOptions,
  bindOptions,
  checkOptions,
  headOption,
  outputOptions,
  selectionOptions,
} from '../options.js';
import { plural, printable } from '../text.js';
import { batchOption, dataOption, guardOption, lossOptions } from '../training-options.js';
import {
  chosenProvider,
  guardLines,
  verificationFailure,
  verificationLines,
} from '../verification.js';

const { required: _data, ...data } = dataOption.data;
const { required: _loss, ...loss } = lossOptions.loss;

/** The data of a start in the gradient. */
const startDataOptions = {
  data: { ...data, summary: `for --init gradient and --structure auto; ${data.summary}` },
  ...batchOption,
  batches: {
    type: 'integer',
    group: 'Data',
    value: 'N',
    default: 8,
    summary: 'how many batches --init gradient and --structure auto look at',
    example: '--init gradient --batches 16',
  },
  ...lossOptions,
  loss,
  ...guardOption,
} as const satisfies OptionSpecs;

export const patchCommand = defineCommand({
  name: 'patch',
  summary: 'insert adapters beside the linear layers of a model',
  description:
    'The adapters start at zero: the patched model computes exactly what the model does. Train it, then fold it with merge.',
  positionals: { model: { value: 'MODEL', summary: 'the model: an .onnx file, or its folder' } },
  options: {
    ...seedOption,
    ...legacy({
      ...selectionOptions,
      adapter: {
        type: 'path',
        group: 'Adapters',
        value: 'PATH',
        summary: 'insert the adapters of this file or PEFT folder instead of new ones',
        example: '--adapter adapter.safetensors',
      },
      ...bindOptions,
      slots: {
        type: 'string',
        group: 'Adapters',
        value: 'KIND',
        choices: slotModes,
        implied: 'required',
        summary:
          'instead of adapters, graph inputs that take them run by run: required ones for Node and the browser, optional ones for ONNX Runtime in other languages',
        example: '--slots optional',
      },
      ...adapterOptions,
      ...startDataOptions,
      ...headOption,
      modelOutput: {
        type: 'string',
        group: 'Adapters',
        value: 'NAME',
        summary:
          'the hidden states for --head, or what --loss looks at, where the model has more than one output',
        example: '--head linear:3 --model-output last_hidden_state',
      },
      name: {
        type: 'string',
        group: 'Adapters',
        value: 'NAME',
        default: 'default',
        summary: 'name of the adapter set; a model can carry several',
        example: '--name german',
      },
      verify: {
        type: 'boolean',
        group: 'Check',
        summary:
          'run both models and check that their outputs are equal: to the last bit, or to rounding for --init pissa and --kind dora',
        example: '--verify',
      },
      ...checkOptions,
      ...outputOptions('model.lora.onnx'),
      verbose: {
        type: 'boolean',
        group: 'Output',
        summary: 'list every skipped node with its reason',
        example: '--verbose | less',
      },
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
