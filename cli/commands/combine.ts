import type { CombinedAdapter } from '../../src/commands/combine.js';
import { combineOptions } from '../../src/commands/options/combine.js';
import { defineCommand } from '../command.js';
import { peftLines } from '../peft.js';
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
  options: combineOptions,
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
