import { listProviders, type ProviderInfo } from '../../src/runtime/providers.js';
import { defineCommand } from '../command.js';
import type { Column } from '../table.js';

const columns: Column<ProviderInfo>[] = [
  { title: 'provider', value: ({ name }) => name },
  { title: 'bundled', value: ({ bundled }) => (bundled ? 'yes' : 'no') },
  { title: 'usable', value: ({ usable }) => (usable ? 'yes' : 'no') },
  { title: 'why not', value: ({ reason = '' }) => reason },
];

export const providersCommand = defineCommand({
  name: 'providers',
  summary: 'what models can run on here, and why not on the rest',
  description: 'Each provider is tried with a tiny model, in a process of its own.',
  positionals: {},
  options: {},
  examples: [
    {
      command: 'onnx-lora providers --json',
      summary: 'the same for programs',
    },
  ],
  readOnly: true,
  async run(_, ui) {
    const result = await listProviders();
    return { result, text: () => `${ui.table(columns, result)}\n` };
  },
});
