import { apply } from '../../src/lora/apply.js';
import { adapterColumns, trainableLine } from '../adapters.js';
import { defineCommand } from '../command.js';
import { outputOptions } from '../options.js';
import { printable } from '../text.js';

export const applyCommand = defineCommand({
  name: 'apply',
  summary: 'put the adapters of a file into a model',
  positionals: {
    model: { value: 'MODEL', summary: 'the model, an .onnx file' },
    adapter: { value: 'ADAPTER', summary: 'the adapters, as extract writes them' },
  },
  options: {
    name: {
      type: 'string',
      group: 'Adapters',
      value: 'NAME',
      default: 'as in the file',
      summary: 'name of the adapter set in the model',
      example: '--name german',
    },
    ...outputOptions('model.lora.onnx'),
  },
  examples: [
    {
      command: 'onnx-lora apply model.onnx adapter.safetensors -o german.onnx',
      summary: 'the model with these adapters',
    },
  ],
  async run({ model, adapter, ...options }, ui) {
    const result = await apply(model, adapter, { ...options, ...ui.work });
    const { output, adapters, parameters } = result;
    const text = () =>
      [
        ui.table(adapterColumns(parameters.total, { withNorm: true }), adapters),
        '',
        `wrote ${printable(output)}`,
        `${trainableLine(parameters)}\n`,
      ].join('\n');
    return { result, text };
  },
});
