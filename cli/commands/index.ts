/** Every command, in the order of the help. */
import type { Command } from '../command.js';
import { adviseCommand } from './advise.js';
import { applyCommand } from './apply.js';
import { combineCommand } from './combine.js';
import { evalCommand } from './eval.js';
import { extractCommand } from './extract.js';
import { fitCommand } from './fit.js';
import { generateCommand } from './generate.js';
import { inspectCommand } from './inspect.js';
import { mergeCommand } from './merge.js';
import { patchCommand } from './patch.js';
import { providersCommand } from './providers.js';
import { trainCommand } from './train.js';
import { unpatchCommand } from './unpatch.js';

export const commands: readonly Command[] = [
  inspectCommand,
  patchCommand,
  unpatchCommand,
  trainCommand,
  evalCommand,
  generateCommand,
  mergeCommand,
  extractCommand,
  applyCommand,
  combineCommand,
  fitCommand,
  adviseCommand,
  providersCommand,
];
