/** Options and commands in texts of the library, as they are typed on the command line. */
import type { OptionSpecs } from './specs.js';
import { long } from './specs.js';

/** Turns a text of the library into one of the command line. */
export type Spelling = (text: string) => string;

/** Commands whose function in the library has another name. */
const otherNames = new Map([
  ['evaluate', 'eval'],
  ['listProviders', 'providers'],
]);

/** Calls that no rule makes a command of. */
const otherCalls = new Map([['(await inspect(model)).targets', 'onnx-lora inspect MODEL --why']]);

/**
 * The library names options and calls as its callers write them, in backticks: `evalData`,
 * `verify: false`, `loss: 'mse', data: FILE`, `merge(model, { name: 'german' })`.
 * @param options those that are flags; of another name nothing is changed
 * @param commands names of commands; a call of another function is left as it is
 */
export function spelled(
  text: string,
  options: OptionSpecs,
  commands: readonly string[] = [],
): string {
  return text.replace(/`([^`]+)`/g, (whole, code: string) => {
    const call = otherCalls.get(code) ?? callText(code, options, commands);
    return call ?? flagsText(code, options) ?? whole;
  });
}

const CALL = /^(\w+)\(([^{]*?)(?:, )?(?:\{ (.+) \})?\)$/;

/** `merge(model, { name: 'german' })` -> `onnx-lora merge MODEL --name german` */
function callText(code: string, options: OptionSpecs, commands: readonly string[]) {
  const [, called, operands, settings] = CALL.exec(code) ?? [];
  const command = called === undefined ? undefined : (otherNames.get(called) ?? called);
  if (command === undefined || !commands.includes(command)) return undefined;
  const flags = settings === undefined ? [] : [flagsText(settings, options)];
  const names = operands!.split(', ').filter(Boolean);
  return ['onnx-lora', command, ...names.map((name) => name.toUpperCase()), ...flags].join(' ');
}

// A name, alone or with a value: quoted, a list, or one word.
const SETTING = /(\w+)(?:: ('[^']*'|"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^\s,]+))?(?:, |$)/y;

/** `checkpoint: 'run1', resume: true` -> `--checkpoint run1 --resume`; undefined where it is something else. */
function flagsText(code: string, options: OptionSpecs): string | undefined {
  const flags: string[] = [];
  SETTING.lastIndex = 0;
  while (SETTING.lastIndex < code.length) {
    const [, key, value] = SETTING.exec(code) ?? [];
    if (key === undefined || !Object.hasOwn(options, key)) return undefined;
    flags.push(...flagText(key, value));
  }
  return flags.join(' ');
}

function flagText(key: string, value: string | undefined): string[] {
  if (value === undefined || value === 'true') return [long(key)];
  if (value === 'false') return [long(key).replace('--', '--no-')];
  return valuesOf(value).map((one) => `${long(key)} ${one}`);
}

function valuesOf(value: string): string[] {
  if (!value.startsWith('[')) return [bare(value)];
  return value.slice(1, -1).split(', ').map(bare);
}

/** Without its quotes, where a shell needs none. */
function bare(value: string): string {
  const [, inner] = /^['"](.*)['"]$/.exec(value) ?? [];
  return inner !== undefined && /^[\w./:=@%+,-]+$/.test(inner) ? inner : value;
}
