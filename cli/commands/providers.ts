import type { ProviderInfo } from '../../src/runtime/providers.js';
import { defineCommand } from '../command.js';
import type { Column } from '../table.js';
import { printable, wrap } from '../text.js';
import type { Ui } from '../ui.js';

const columns: Column<ProviderInfo>[] = [
  { title: 'provider', value: ({ name }) => name },
  { title: 'bundled', value: ({ bundled }) => (bundled ? 'yes' : 'no') },
  { title: 'usable', value: ({ usable }) => (usable ? 'yes' : 'no') },
];

// Reasons are sentences: a line of their own, or several.
function reasonLines({ name, reason }: ProviderInfo, ui: Ui): string[] {
  if (reason === undefined) return [];
  return wrap(printable(`${name}: ${reason}`), ui.width ?? Infinity);
}

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
    const { listProviders } = await import('../../src/runtime/providers.js');
    const result = await listProviders();
    const text = () => {
      const reasons = result.flatMap((provider) => reasonLines(provider, ui));
      const why = reasons.length > 0 ? ['', ...reasons] : [];
      return `${[ui.table(columns, result), ...why].join('\n')}\n`;
    };
    return { result, text };
  },
});
