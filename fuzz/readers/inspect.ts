import { join } from 'node:path';
import { inspect } from '../../src/commands/inspect.js';
import { MODEL, ofModels } from '../models/reader.js';
import type { Reader } from '../reader.js';

export const inspectReader: Reader = {
  ...ofModels,
  run: (folder) => inspect(join(folder, MODEL), { html: join(folder, 'page.html') }),
};
