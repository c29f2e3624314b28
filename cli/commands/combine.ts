import { adapterFormats, combineMethods } from '../../src/adapters/structure/choices.js';
import { structures } from '../../src/adapters/structure/structure.js';
import type { CombinedAdapter } from '../../src/commands/combine.js';
import { seedOption } from '../../src/options/common.js';
import { defineCommand } from '../command.js';
import { legacy } from '../legacy.js';
import { forceOption } from '../options.js';
import { peftLines, peftOptions } from '../peft.js';
import type { Column } from '../table.js';
import { measure, plural, printable } from '../text.js';

export const combineCommand = defineCommand({
  name: 'combine',
  summary: 'several adapters of one model as one',
  description:
    'Layers are matched by their module paths; a layer that only some adapt is combined of those. linear is the exact weighted sum: ranks add up. svd fits that sum to a rank. ties and dare leave out most of each change first, so that changes interfere less, and fit likewise.',
  positionals: {
    adapters: {
      value: 'ADAPTER',
      summary: 'adapters: .safetensors, .onnx_adapter, or PEFT folders',
      many: true,
    },
  },
  options: {
    ...seedOption,
    ...legacy({
      weights: {
        type: 'number',
        group: 'Adapters',
        value: 'W',
        repeatable: true,
        list: true,
        default: '1 each',
        summary: 'what the changes of each are multiplied with, in their order',
        example: '--weights 0.5 0.5',
      },
      method: {
        type: 'string',
        group: 'Adapters',
        value: 'NAME',
        choices: combineMethods,
        default: 'linear',
        summary: 'how the changes are summed up',
        example: '--method svd --rank 16',
      },
      density: {
        type: 'number',
        group: 'Adapters',
        value: 'SHARE',
        summary: 'share of each change that ties and dare keep; they need it',
        example: '--method ties --density 0.2',
      },
      rank: {
        type: 'integer',
        group: 'Adapters',
        value: 'R',
        default: 'the highest of the adapters',
        summary: 'rank of the result, for all methods but linear',
        example: '--method svd --rank 8',
      },
      structure: {
        type: 'string',
        group: 'Adapters',
        value: 'NAME',
        choices: structures,
        default: 'their own where alike, else global',
        summary: 'structure of the result, for all methods but linear',
        example: '--method svd --structure localized --rank 16',
      },
      blocks: {
        type: 'integer',
        group: 'Adapters',
        value: 'K',
        default: 4,
        summary: 'most blocks along a dimension, with --structure',
        example: '--structure localized --blocks 2',
      },
      name: {
        type: 'string',
        group: 'Adapters',
        value: 'NAME',
        default: 'combined',
        summary: 'name of the new set',
        example: '--name both',
      },
      output: {
        type: 'path',
        group: 'Output',
        value: 'PATH',
        short: 'o',
        required: true,
        summary: 'where to write it: .safetensors, .onnx_adapter, or a folder for PEFT',
        example: '-o both.safetensors',
      },
      format: {
        type: 'string',
        group: 'Output',
        value: 'NAME',
        choices: adapterFormats,
        default: 'by the ending',
        summary: 'format of the output',
        example: '--format peft',
      },
      ...peftOptions,
      ...forceOption,
    }),
  },
  examples: [
    {
      command:
        'onnx-lora combine a.safetensors b.safetensors --weights 0.7 0.3 -o both.safetensors',
      summary: 'the weighted sum of both, exactly',
    },
    {
      command: 'onnx-lora combine a/ b/ --method ties --density 0.2 --rank 16 -o both/',
      summary: 'two PEFT folders as a third',
    },
    {
      command: 'onnx-lora combine adapter.safetensors -o adapter/',
      summary: 'one adapter in another format',
    },
  ],
  async run({ adapters: paths, ...options }, ui) {
    const { combine } = await import('../../src/commands/combine.js');
    const result = await combine(paths, { ...options, ...ui.work });
    const { output, format, adapters, peft } = result;
    const text = () =>
      [
        ui.table(columns, adapters),
        '',
        ...(peft ? peftLines(peft, ui) : []),
        `wrote ${printable(output)}: ${plural(adapters.length, 'adapter')} (${format})\n`,
      ].join('\n');
    return { result, text };
  },
});

const columns: Column<CombinedAdapter>[] = [
  { title: 'module', value: ({ name }) => name, flexible: true },
  { title: 'of', value: ({ inputs }) => inputs.map((i) => i + 1).join('+') },
  { title: 'structure', value: ({ structure }) => structure },
  { title: 'grid', value: ({ grid }) => grid.join(' x ') },
  { title: 'rank', value: ({ rank }) => String(rank), align: 'right' },
  { title: 'error', value: ({ error }) => measure(error), align: 'right' },
];
