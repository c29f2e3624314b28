/** PEFT folders, as commands that write them describe them. */

import type { PeftModule, PeftSummary } from '../src/adapters/files/export-peft.js';
import { peftTypes } from '../src/adapters/structure/choices.js';
import type { LegacySpecs as OptionSpecs } from './legacy.js';
import type { Column } from './table.js';
import { measure, printable } from './text.js';
import type { Ui } from './ui.js';

/** Texts on a written PEFT folder. */
export const peftOptions = {
  peftType: {
    type: 'string',
    group: 'Output',
    value: 'NAME',
    choices: peftTypes,
    default: 'gralora where it fits',
    summary: 'what PEFT calls the adapters; lora says every structure',
    example: '--peft-type lora',
  },
  peftRank: {
    type: 'integer',
    group: 'Output',
    value: 'R',
    summary: 'LORA of at most this rank, by singular values; the error is shown',
    example: '--peft-rank 16',
  },
  peftPrefix: {
    type: 'string',
    group: 'Output',
    value: 'OLD=NEW',
    summary: 'how module paths start in the ONNX model and in PyTorch; either may be empty',
    example: '--peft-prefix wrapper=',
  },
  baseModel: {
    type: 'string',
    group: 'Output',
    value: 'NAME',
    summary: 'what PEFT loads the base model from',
    example: '--base-model bert-base-uncased',
  },
} as const satisfies OptionSpecs;

const columns: Column<PeftModule>[] = [
  { title: 'module', value: ({ module }) => module, flexible: true },
  { title: 'form', value: ({ form }) => form },
  { title: 'rank', value: ({ rank }) => String(rank), align: 'right' },
  { title: 'error', value: ({ error }) => measure(error), align: 'right' },
];

/** The type of the folder, and the way each adapter went where not all went as they are. */
export function peftLines({ type, reason, modules }: PeftSummary, ui: Ui): string[] {
  const name = type.toUpperCase();
  if (modules.every(({ form }) => form === 'same')) return [name];
  return [ui.table(columns, modules), '', reason ? `${name}: ${printable(reason)}` : name];
}
