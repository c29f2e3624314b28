/** A loss with an option of its own is one file and one line: everything else follows from the table. */
import { describe, expect, expectTypeOf, test } from 'vitest';
import { defineCommand } from '../../../cli/command.js';
import { configSchema } from '../../../cli/config-schema.js';
import { explained, flag } from '../../../cli/help.js';
import { typedValues } from '../../../cli/values.js';
import { type OptionsOf, option } from '../../../src/options/option.js';
import { resolveOptions } from '../../../src/options/resolve.js';
import { positive } from '../../../src/options/schemas.js';
import { lossTables } from '../../../src/training/losses/index.js';
import type { Loss } from '../../../src/training/losses/loss.js';
import { mse } from '../../../src/training/losses/mse.js';

const options = {
  delta: option(positive, {
    group: 'Loss',
    value: 'D',
    default: 1,
    summary: 'error from which on it counts linearly',
    example: '--loss huber --delta 0.5',
  }),
};

const huber = { ...mse, name: 'huber', options } as const satisfies Loss<typeof options>;

const tables = lossTables([mse, huber]);
const table = { ...tables.choice, ...tables.options };
const resolve = (given: OptionsOf<typeof table>) => resolveOptions(table, given, 'train');

const command = defineCommand({
  ...{ name: 'train', summary: 'train', positionals: {}, options: table, examples: [] },
  run: () => ({ result: {}, text: () => '' }),
});

describe('the option of a new loss', () => {
  test('is in the types', () => {
    expectTypeOf<OptionsOf<typeof table>>().toExtend<{ readonly delta?: number | undefined }>();
    expectTypeOf<OptionsOf<typeof table>['loss']>().toEqualTypeOf<'mse' | 'huber'>();
  });

  test('is checked, and has its default', () => {
    expect(resolve({ loss: 'huber' }).delta).toBe(1);
    expect(resolve({ loss: 'mse' })).not.toHaveProperty('delta');
    expect(() => resolve({ loss: 'huber', delta: 0 })).toThrow(
      '`delta` is 0, expected a number ab',
    );
    expect(() => resolve({ loss: 'mse', delta: 2 })).toThrow('no effect without `loss` huber');
  });

  test('is a flag with its help', () => {
    const { delta } = command.options;
    expect(typedValues(new Map([['delta', '0.5']]), command.options)).toEqual({ delta: 0.5 });
    expect(flag('delta', delta!)).toBe('--delta D');
    expect(explained(delta!, command.options)[0]).toMatch(/\(with --loss huber; default 1\)$/);
  });

  test('is in the schema of config files', () => {
    expect(configSchema(command, command.options)).toHaveProperty('properties.delta', {
      ...{ type: 'number', description: 'error from which on it counts linearly; default 1' },
    });
  });
});
