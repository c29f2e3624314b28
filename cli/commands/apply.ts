import { applyOptions } from '../../src/commands/options/apply.js';
import { adapterColumns, noteUnmatched, replacedText, trainableLine } from '../adapters.js';
import { defineCommand } from '../command.js';
import { printable } from '../text.js';

export const applyCommand = defineCommand({
  name: 'apply',
  summary: 'put the adapters of a file into a model',
  description:
    'Adapters of Hugging Face PEFT find their layers by module path: a wrapper around the exported model, or a part of it, may change how all paths begin. Separate query, key and value adapters find their columns where the model computes them in one layer.',
  positionals: {
    model: { value: 'MODEL', summary: 'the model: an .onnx file, or its folder' },
    adapter: {
      value: 'ADAPTER',
      summary: 'the adapters: a .safetensors file of extract, a PEFT folder, or an .onnx_adapter',
    },
  },
  options: applyOptions,
  examples: [
    {
      command: 'onnx-lora apply model.onnx adapter.safetensors -o german.onnx',
      summary: 'the model with these adapters',
    },
    {
      command: 'onnx-lora apply model.onnx peft-folder',
      summary: 'adapters that were trained in Python: -> model.lora.onnx',
    },
  ],
  async run({ model, adapter, ...options }, ui) {
    const { apply } = await import('../../src/commands/apply.js');
    const result = await apply(model, adapter, { ...options, ...ui.work, onNote: ui.note });
    const { output, adapters, parameters, replaced, unmatched } = result;
    noteUnmatched(unmatched, ui);
    const text = () =>
      [
        ui.table(adapterColumns(parameters.total, { withNorm: true }), adapters),
        '',
        `wrote ${printable(output)}${replacedText(replaced)}`,
        `${trainableLine(parameters)}\n`,
      ].join('\n');
    return { result, text };
  },
});
