import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { commands } from '../../cli/commands/index.js';
import { commonOptions } from '../../cli/common-options.js';
import { configSchema } from '../../cli/config-schema.js';
import { referencePage } from '../../cli/reference.js';

describe('docs/cli.md', () => {
  it('is what npm run docs:cli makes of the commands', () => {
    const page = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
    expect(page === referencePage(commands), 'run npm run docs:cli').toBe(true);
  });
});

describe('the schema of a config file', () => {
  const command = commands.find(({ name }) => name === 'merge')!;
  const schema = configSchema(command, { ...command.options, ...commonOptions });

  it('has the options that a file can set', () => {
    expect(schema).toMatchObject({
      properties: {
        scale: { type: 'number', description: expect.stringMatching(/; default 1$/) },
        provider: { type: 'string', enum: expect.arrayContaining(['auto', 'cpu']) },
        verify: { type: 'boolean', description: 'false: fold without comparing the models' },
      },
      additionalProperties: false,
    });
    expect(schema).not.toHaveProperty('properties.config');
    expect(schema).not.toHaveProperty('properties.help');
  });

  it('takes lists of what may be repeated, and single ones', () => {
    const patch = commands.find(({ name }) => name === 'patch')!;
    expect(configSchema(patch, patch.options)).toHaveProperty('properties.targets.anyOf', [
      { type: 'string' },
      { type: 'array', items: { type: 'string' } },
    ]);
  });
});
