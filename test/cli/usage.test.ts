import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { commands } from '../../cli/commands/index.js';
import { commonOptions } from '../../cli/common-options.js';
import { kebabCase, type OptionSpecs } from '../../cli/specs.js';
import { version } from '../../src/version.js';
import { folderWithModel, run, temporaryFolder } from './run.js';

describe('help', () => {
  it('lists every command', async () => {
    const { code, stdout, stderr } = await run(temporaryFolder(), ['--help']);
    expect(code).toBe(0);
    expect(stderr).toBe('');
    for (const { name, summary } of commands)
      expect(stdout).toMatch(new RegExp(`^  ${name} .*${summary}$`, 'm'));
  });

  it.each(commands)('documents every option of $name with an example', async (command) => {
    const { code, stdout } = await run(temporaryFolder(), [command.name, '--help']);
    expect(code).toBe(0);
    const options: OptionSpecs = { ...command.options, ...commonOptions };
    for (const [key, spec] of Object.entries(options)) {
      expect(stdout).toContain(`--${spec.onByDefault ? 'no-' : ''}${kebabCase(key)}`);
      if (key !== 'help') expect(stdout).toContain(spec.example);
    }
    expect(stdout).toContain(`onnx-lora ${command.name} --help`);
    for (const example of command.examples) expect(stdout).toContain(example.command);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(92);
  });

  it.each(commands)('has only examples of $name that parse', async ({ examples }) => {
    const folder = temporaryFolder();
    for (const name of ['run1.json', 'test.json'])
      writeFileSync(join(folder, name), '{"data": "data.safetensors", "loss": "mse"}');
    const runs = examples.map(({ command }) => run(folder, [...wordsOf(command), '--json']));
    for (const { code, stdout } of await Promise.all(runs)) {
      const { error } = JSON.parse(stdout);
      expect([code, error?.code]).toEqual(error ? [1, 'file-not-found'] : [0, undefined]);
    }
  });

  it('gives every option with a value a name for it', () => {
    const nameless = commands.flatMap(({ name, options }) =>
      Object.entries(options).flatMap(([key, { type, value }]) =>
        type === 'boolean' || value ? [] : [`${name} ${key}`],
      ),
    );
    expect(nameless).toEqual([]);
  });

  it.each([
    ['merge', /--tolerance SHARE .*not with --no-verify/s],
    ['merge', /--quantized HOW/],
    ['train', /--betas B1 B2 .*default 0\.9\s+0\.999, for lion 0\.9 0\.99\)/s],
    ['patch', /default\s+"default", or as/],
    ['patch', /--alpha ALPHA .*default 2R, for hira R/],
    ['patch', /--output FILE .*with --slots\s+model\.slots\.onnx/s],
  ])('of %s says %s', async (name, text) => {
    expect((await run(temporaryFolder(), [name, '--help'])).stdout).toMatch(text);
  });

  it('is the same as `help COMMAND`', async () => {
    const folder = temporaryFolder();
    const [long, short] = await Promise.all([
      run(folder, ['patch', '--help']),
      run(folder, ['help', 'patch']),
    ]);
    expect(short).toEqual(long);
  });

  it('prints the version', async () => {
    expect(await run(temporaryFolder(), ['--version'])).toEqual({
      code: 0,
      stdout: `${version}\n`,
      stderr: '',
    });
  });
});

describe('a wrong command line', () => {
  const model = 'model.onnx';
  it.each<[string, string[], RegExp, RegExp]>([
    ['no command', [], /no command/, /--help/],
    ['unknown command', ['pach', model], /unknown command "pach"/, /Did you mean patch/],
    ['unknown help topic', ['help', 'mrge'], /unknown command "mrge"/, /Did you mean merge/],
    ['unknown option', ['patch', model, '--rnk', '8'], /unknown option --rnk of patch/, /--rank/],
    ['unknown negation', ['patch', model, '--no-frce'], /option --no-frce/, /--force/],
    ['unknown letter', ['patch', model, '-x'], /unknown option -x of patch/, /patch --help/],
    ['option of another command', ['unpatch', model, '--rank', '8'], /option --rank of unp/, /See/],
    ['inherited name', ['patch', model, '--constructor=1'], /unknown option --con/, /--help/],
    ['no model', ['patch'], /patch needs MODEL/, /onnx-lora patch model/],
    ['one word too many', ['patch', model, 'more'], /unexpected argument "more"/, /patch --help/],
    ['no value', ['patch', model, '--rank'], /--rank needs a value/, /patch --help/],
    [
      'no number',
      ['patch', model, '--rank', 'abc'],
      /--rank is "abc", expected a whole/,
      /--rank 8/,
    ],
    [
      'NaN',
      ['patch', model, '--alpha', 'NaN'],
      /--alpha is "NaN", expected a number/,
      /--alpha 32/,
    ],
    [
      'fraction',
      ['patch', model, '--seed', '1.5'],
      /--seed is "1.5", expected a whole/,
      /--seed 42/,
    ],
    [
      'wrong choice',
      ['patch', model, '--structure', 'localised'],
      /--structure is "localised"/,
      /localized/,
    ],
    ['value of a switch', ['patch', model, '--force=yes'], /--force is "yes"/, /--help/],
    ['stdout as output', ['patch', model, '-o', '-'], /--output is -/, /-o model.lora.onnx/],
    ['no output', ['extract', model], /extract needs --output/, /-o adapter.safetensors/],
    ['rank out of range', ['patch', model, '--rank', '0'], /rank is 0/, /^$/],
  ])('%s', async (_, args, message, hint) => {
    const { code, stdout, stderr } = await run(folderWithModel(), args);
    const [first, ...rest] = stderr.trimEnd().split('\n');
    expect(first).toMatch(message);
    expect(first).toMatch(/^error: /);
    expect(rest.join('\n')).toMatch(hint);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  });

  it('takes the last of several values', async () => {
    const { stdout } = await run(folderWithModel(), [
      'patch',
      'model.onnx',
      '--rank',
      '4',
      '--rank',
      '8',
      '--json',
    ]);
    expect(JSON.parse(stdout).adapters[0].rank).toBe(8);
  });

  it('takes a negative number and common options before the command', async () => {
    const args = ['--json', '--seed', '-3', 'patch', 'model.onnx', '--alpha', '-8'];
    const { code, stdout } = await run(folderWithModel(), args);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).adapters[0].alpha).toBe(-8);
  });
});

describe('--config', () => {
  async function patchWith(config: unknown, args: string[] = []) {
    const folder = folderWithModel();
    writeFileSync(join(folder, 'c.json'), JSON.stringify(config));
    return run(folder, ['patch', 'model.onnx', '--config', 'c.json', ...args]);
  }

  it('sets options in both spellings', async () => {
    const config = { rank: 8, rankPattern: ['query=4'], 'alpha-pattern': 'query=3', json: true };
    const { stdout } = await patchWith({ ...config, targets: ['query', 'value'] });
    const { adapters } = JSON.parse(stdout);
    expect(adapters).toHaveLength(4);
    expect(adapters[0]).toMatchObject({ rank: 4, alpha: 3 });
    expect(adapters[1]).toMatchObject({ rank: 8, alpha: 16 });
  });

  it('yields to the command line', async () => {
    const config = { rank: 8, targets: ['query', 'value'], json: true };
    const { stdout } = await patchWith(config, ['--rank', '4', '--targets', 'key']);
    const { adapters } = JSON.parse(stdout);
    expect(adapters).toHaveLength(2);
    expect(adapters[0].rank).toBe(4);
  });

  it('names a file that does not exist', async () => {
    const { code, stderr } = await run(folderWithModel(), [
      'patch',
      'model.onnx',
      '--config',
      'x.json',
    ]);
    expect(stderr).toMatch(/^error: x\.json does not exist/);
    expect(code).toBe(1);
  });
});

/** The words after `onnx-lora`, as a shell splits them. */
function wordsOf(command: string): string[] {
  const words = command.match(/"[^"]*"|\S+/g) ?? [];
  return words.slice(1).map((word) => word.replace(/^"|"$/g, ''));
}
