import { extractOptions } from '../../src/commands/options/extract.js';
import { defineCommand } from '../command.js';
import { peftLines } from '../peft.js';
import { plural, printable } from '../text.js';

export const extractCommand = defineCommand({
  name: 'extract',
  summary: 'the adapters of a model, as a file of their own',
  positionals: {
    model: { value: 'MODEL', summary: 'a patched model: an .onnx file, or its folder' },
  },
  options: extractOptions,
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
    const result = await extract(model, { ...options, ...ui.work, onNote: ui.note });
    const { output, format, adapters, peft } = result;
    const text = () =>
      [
        ...(peft ? peftLines(peft, ui) : []),
        `wrote ${printable(output)}: ${plural(adapters.length, 'adapter')} (${format})\n`,
      ].join('\n');
    return { result, text };
  },
});
