import { unpatchOptions } from '../../src/commands/options/unpatch.js';
import { defineCommand } from '../command.js';
import { plural, printable } from '../text.js';

export const unpatchCommand = defineCommand({
  name: 'unpatch',
  summary: 'the base model back, bit for bit',
  positionals: {
    model: { value: 'MODEL', summary: 'a patched model: an .onnx file, or its folder' },
  },
  options: unpatchOptions,
  examples: [
    {
      command: 'onnx-lora unpatch model.lora.onnx -o model.onnx',
      summary: 'takes all adapters out',
    },
    {
      command: 'onnx-lora unpatch model.lora.onnx --name german',
      summary: 'takes one adapter set out and keeps the others',
    },
  ],
  async run({ model, ...options }, ui) {
    const { unpatch } = await import('../../src/commands/unpatch.js');
    const result = await unpatch(model, { ...options, ...ui.work, onNote: ui.note });
    const { output, removed, slots } = result;
    const what = slots === undefined ? removed.map(printable).join(', ') : plural(slots, 'slot');
    const text = () => `removed ${what}\nwrote ${printable(output)}\n`;
    return { result, text };
  },
});
