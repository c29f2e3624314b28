/** Writes `docs/cli.md`: `npm run docs:cli`. */
import { writeFileSync } from 'node:fs';
import { commands } from '../cli/commands/index.js';
import { referencePage } from '../cli/reference.js';

writeFileSync(new URL('../docs/cli.md', import.meta.url), referencePage(commands));
