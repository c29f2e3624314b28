/** Texts on a written PEFT folder. */

import type { PeftModule, PeftSummary } from '../src/adapters/files/export-peft.js';
import type { Column } from './table.js';
import { measure, printable } from './text.js';
import type { Ui } from './ui.js';

const columns: Column<PeftModule>[] = [
  { title: 'module', value: ({ module }) => module, flexible: true },
  { title: 'form', value: ({ form }) => form },
  { title: 'rank', value: ({ rank }) => String(rank), align: 'right' },
  { title: 'error', value: ({ error }) => measure(error), align: 'right' },
];

/** The type of the folder, and the way each adapter went where not all went as they are. */
export function peftLines({ type, reason, modules }: PeftSummary, ui: Ui): string[] {
  const name = `PEFT type ${type.toUpperCase()}`;
  if (modules.every(({ form }) => form === 'same')) return [name];
  return [ui.table(columns, modules), '', reason ? `${name}: ${printable(reason)}` : name];
}
