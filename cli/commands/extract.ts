import { defineCommand } from '../command.js';
import { legacy } from '../legacy.js';
import { forceOption, outputFormatOption } from '../options.js';
import { peftLines, peftOptions } from '../peft.js';
import { plural, printable } from '../text.js';

export const extractCommand = defineCommand({
  name: 'extract',
  summary: 'the adapters of a model, as a file of their own',
  positionals: { model: { value: 'MODEL', summary: 'a patched model, an .onnx file' } },
  options: legacy({
    name: {
      type: 'string',
      group: 'Adapters',
      value: 'NAME',
      summary: 'the adapter set, where the model has more than one',
      example: '--name german',
    },
    output: {
      type: 'path',
      group: 'Output',
      value: 'PATH',
      short: 'o',
      required: true,
      summary: 'where to write them: .safetensors, .onnx_adapter, or a folder for PEFT',
      example: '-o adapter.safetensors',
    },
    ...outputFormatOption,
    ...peftOptions,
    ...forceOption,
  }),
  examples: [
    {
      command: 'onnx-lora extract model.lora.onnx -o adapter.safetensors',
      summary: 'a small file to share; apply puts it into a model',
    },
    {
      command: 'onnx-lora extract model.lora.onnx -o adapter/ --base-model bert-base-uncased',
      summary: 'a folder for PeftModel.from_pretrained',
    },
  ],
  async run({ model, ...options }, ui) {
    const { extract } = await import('../../src/commands/extract.js');
    const result = await extract(model, { ...options, ...ui.work });
    const { output, format, adapters, peft } = result;
    const text = () =>
      [
        ...(peft ? peftLines(peft, ui) : []),
        `wrote ${printable(output)}: ${plural(adapters.length, 'adapter')} (${format})\n`,
      ].join('\n');
    return { result, text };
  },
});
