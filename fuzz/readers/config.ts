import { join } from 'node:path';
import { readConfig } from '../../cli/config.js';
import { damageJsonText } from '../mutate/json.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const CONFIG = 'config.json';

const options = {
  rank: 8,
  blocks: 4,
  targets: ['query', 're:.*value', 'glob:**.dense'],
  'rank-pattern': ['query=4'],
  structure: 'localized',
  force: true,
  lr: 1e-3,
  betas: [0.9, 0.999],
  layers: '0-5,8',
};

/** `--config`: the options of every command. */
export const configReader: Reader = {
  seeds: () => [filesOf({ [CONFIG]: JSON.stringify(options) })],
  mutate: (files, random) =>
    withFile(files, CONFIG, (bytes) =>
      Buffer.from(damageJsonText(Buffer.from(bytes).toString(), random)),
    ),
  run: async (folder) => {
    const { commands } = await import('../../cli/commands/index.js');
    for (const { options: specs } of commands) readConfig(join(folder, CONFIG), specs);
  },
};
