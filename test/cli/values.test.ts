import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { commonOptions } from '../../cli/common-options.js';
import { readConfig } from '../../cli/config.js';
import { type OptionSpecs, specsOf } from '../../cli/specs.js';
import { typedValues } from '../../cli/values.js';
import { adapterOptions } from '../../src/adapters/edit/adapter-options.js';
import { OnnxLoraError } from '../../src/errors.js';
import { outputOption, writeOptions } from '../../src/onnx/write-options.js';
import { temporaryFolder } from './run.js';

const specs: OptionSpecs = {
  ...specsOf({ ...adapterOptions, ...outputOption('model.lora.onnx'), ...writeOptions }),
  ...commonOptions,
};

function failureOf(act: () => unknown): OnnxLoraError {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(OnnxLoraError);
    return error as OnnxLoraError;
  }
  throw new Error('it did not fail');
}

describe('a value that was typed', () => {
  it.each([
    ['rank', '8', 8],
    ['rank', ' 8 ', 8],
    ['seed', '-3', -3],
    ['alpha', '1.5e1', 15],
    ['alpha', '.5', 0.5],
    ['rankPattern', ['query=3'], ['query=3']],
    ['perNode', true, true],
    ['output', 'größe 1.onnx', 'größe 1.onnx'],
  ])('%s %j is taken', (key, typed, value) => {
    expect(typedValues(new Map([[key, typed]]), specs)).toEqual({ [key]: value });
  });

  it.each<[string, unknown, RegExp]>([
    ['alpha', '1e999', /^--alpha is "1e999", expected a number$/],
    ['alpha', 'Infinity', /^--alpha is "Infinity"/],
    ['alpha', '0x10', /^--alpha is "0x10"/],
    ['rank', '', /^--rank is empty, expected a whole number$/],
    ['rank', '1_000', /^--rank is "1_000"/],
    ['rank', false, /^--rank is false/],
    ['seed', '1.5', /^--seed is "1.5", expected a whole number$/],
    ['seed', '9007199254740993', /^--seed is "9007199254740993"/],
    ['rankPattern', [''], /^--rank-pattern is empty/],
    ['output', '', /^--output is empty, expected a path$/],
  ])('%s %j is refused', (key, typed, message) => {
    const error = failureOf(() => typedValues(new Map([[key, typed]]), specs));
    expect(error.message).toMatch(message);
    expect(error.hint).toContain('For example: ');
  });
});

describe('a config file', () => {
  it.each<[string, unknown, RegExp]>([
    ['an unknown key', { ranks: 8 }, /c\.json: "ranks" is not an option[\s\S]*Did you mean rank/],
    ['an unknown kebab key', { 'rank-patern': [] }, /Did you mean rank-pattern/],
    ['a key set twice', { 'rank-pattern': [], rankPattern: [] }, /rank-pattern is set twice/],
    ['another config', { config: 'd.json' }, /"config" is not an option/],
    ['a number as text', { rank: '8' }, /c\.json: rank is "8", expected a whole number/],
    ['a switch as text', { force: 'yes' }, /c\.json: force is "yes", expected true or false/],
    ['null', { output: null }, /c\.json: output is null, expected a path/],
    ['a list for one value', { rank: [8] }, /c\.json: rank is \[8\]/],
    ['a list', [], /expected a JSON object/],
    ['no JSON', '{', /c\.json: not JSON/],
    ['a prototype', '{"__proto__": {}}', /"__proto__" is not an option/],
  ])('with %s is refused', (_, config, message) => {
    const path = join(temporaryFolder(), 'c.json');
    writeFileSync(path, typeof config === 'string' ? config : JSON.stringify(config));
    const { message: said, hint } = failureOf(() => readConfig(path, specs));
    expect(`${said}\n${hint}`).toMatch(message);
  });

  it('may start with a byte order mark', () => {
    const path = join(temporaryFolder(), 'c.json');
    writeFileSync(path, '\uFEFF{"rank": 4}');
    expect(readConfig(path, specs)).toEqual({ rank: 4 });
  });
});
