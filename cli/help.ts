/** The help texts, made from the descriptions of the commands. */

import { oneOf } from '../src/options/schemas.js';
import { version } from '../src/version.js';
import type { Command } from './command.js';
import { commonOptions } from './common-options.js';
import { groupsOf, kebabCase, type OptionSpec, type OptionSpecs } from './specs.js';
import { spelled } from './spelling.js';
import { wrap } from './text.js';
import type { Colors } from './ui.js';

// Longer lines are tiring to read, whatever the terminal allows.
const MAX_WIDTH = 92;
const MIN_WIDTH = 60;

interface Style {
  readonly colors: Colors;
  readonly width: number;
}

/** The style of help on a stream. */
export function helpStyle(stream: NodeJS.WriteStream, colors: Colors): Style {
  return { colors, width: Math.max(MIN_WIDTH, Math.min(MAX_WIDTH, stream.columns || MAX_WIDTH)) };
}

/** `onnx-lora --help` */
export function programHelp(commands: readonly Command[], style: Style): string {
  const { bold } = style.colors;
  const lines = [
    `${bold('onnx-lora')} ${version}: localized low-rank adapters for ONNX models`,
    '',
    'Usage: onnx-lora COMMAND [options]',
    '',
    bold('Commands'),
    ...listing(
      commands.map((command) => [synopsis(command), [command.summary]]),
      style,
    ),
    '',
    bold('From a model to an adapted one'),
    '  onnx-lora inspect model.onnx         what can take an adapter, and why not',
    '  onnx-lora patch model.onnx           -> model.lora.onnx',
    '  onnx-lora train model.lora.onnx --data train.safetensors --loss cross-entropy',
    '                                       -> model.trained.onnx',
    '  onnx-lora merge model.trained.onnx   -> model.merged.onnx',
    '',
    'onnx-lora COMMAND --help documents every option with an example.',
    '',
  ];
  return lines.join('\n');
}

/** `onnx-lora COMMAND --help` */
export function commandHelp(command: Command, style: Style): string {
  const { bold, dim } = style.colors;
  const { name, summary, description, positionals, examples } = command;
  const lines = [`${bold(`onnx-lora ${name}`)}: ${summary}`];
  if (description) lines.push('', ...wrap(description, style.width));
  lines.push('', `Usage: onnx-lora ${synopsis(command)} [options]`);
  const operands = Object.values(positionals).map((spec) => [spec.value, [spec.summary]] as const);
  if (operands.length > 0) lines.push('', ...listing(operands, style));
  const help = { ...commonOptions.help!, example: `onnx-lora ${name} --help` };
  lines.push(...optionGroups({ ...command.options, ...commonOptions, help }, style));
  lines.push('', bold('Examples'));
  for (const example of examples)
    lines.push(`  ${example.command}`, dim(`      ${example.summary}`));
  return `${lines.join('\n')}\n`;
}

/** Name, operands and required options. */
export function synopsis({ name, positionals, options }: Command): string {
  const operands = Object.values(positionals).map(({ value, many }) => value + (many ? ' …' : ''));
  const required = Object.entries(options).flatMap(([key, spec]) =>
    spec.required ? [`${spec.short ? `-${spec.short}` : `--${kebabCase(key)}`} ${spec.value}`] : [],
  );
  return [name, ...operands, ...required].join(' ');
}

function optionGroups(options: OptionSpecs, style: Style): string[] {
  return groupsOf(options).flatMap((group) => {
    const members = Object.entries(options).filter(([, spec]) => spec.group === group);
    const rows = members.map(([key, spec]) => [flag(key, spec), explained(spec, options)] as const);
    return ['', style.colors.bold(group), ...listing(rows, style, TERM_WIDTH)];
  });
}

/** The flag with its value, as the help lists it. */
export function flag(key: string, spec: OptionSpec): string {
  const long = `--${spec.onByDefault ? 'no-' : ''}${kebabCase(key)}`;
  const names = spec.short ? `-${spec.short}, ${long}` : long;
  if (!spec.value) return names;
  if (spec.list) return `${names} ${spec.value} …`;
  return `${names} ${spec.implied === undefined ? spec.value : `[${spec.value}]`}`;
}

/**
 * The effect of the option, then its example.
 * @param options of the command, which the text may name
 */
export function explained(spec: OptionSpec, options: OptionSpecs): [string, string] {
  const details = [
    ...(spec.choices ? [oneOf(spec.choices)] : []),
    ...(spec.repeatable ? ['repeatable'] : []),
    ...(spec.required ? ['required'] : []),
    ...(spec.implied === undefined ? [] : [`without a value ${spec.implied}`]),
    ...(spec.condition === undefined ? [] : [spec.condition]),
    ...(spec.default === undefined ? [] : [`default ${spec.default}`]),
  ];
  const text = details.length > 0 ? `${spec.summary} (${details.join('; ')})` : spec.summary;
  return [spelled(text, options), spec.example];
}

// Of options: the same in every group, so that the explanations form one column.
const TERM_WIDTH = 24;

/** Terms on the left, explanations on the right, an example below. */
function listing(
  rows: readonly (readonly [string, readonly [string, string?]])[],
  { colors, width }: Style,
  termWidth = Math.max(...rows.map(([term]) => term.length)),
): string[] {
  const column = termWidth + 4;
  const indent = ' '.repeat(column);
  return rows.flatMap(([term, [summary, example]]) => {
    const [first, ...rest] = wrap(summary, width - column);
    const opening =
      term.length + 4 > column
        ? [`  ${term}`, indent + first]
        : [`  ${term}`.padEnd(column) + first];
    const more = rest.map((line) => indent + line);
    return [...opening, ...more, ...(example ? [indent + colors.dim(example)] : [])];
  });
}
