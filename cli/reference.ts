/** The reference of the command line in Markdown, made from the descriptions of the commands. */
import type { Command } from './command.js';
import { commonOptions } from './common-options.js';
import { explained, flag, synopsis } from './help.js';
import { groupsOf, type OptionSpecs } from './specs.js';

/** The page, with the options that all commands have at its end. */
export function referencePage(commands: readonly Command[]): string {
  const lines = [
    '# Command line',
    '',
    'Every command with every option; `onnx-lora COMMAND --help` shows the same. This page is made by',
    '`npm run docs:cli`. In a file for `--config`, options have their names without the dashes;',
    '`onnx-lora COMMAND --config-schema` prints a JSON schema of it.',
    '',
    ...commands.flatMap(commandLines),
    '## Options of every command',
    '',
    ...Object.entries(commonOptions).map((entry) => optionLine(entry, commonOptions)),
  ];
  return `${lines.join('\n')}\n`;
}

function commandLines(command: Command): string[] {
  const { name, summary, description, positionals, options, examples } = command;
  const own = Object.fromEntries(
    Object.entries(options).filter(([key]) => !Object.hasOwn(commonOptions, key)),
  );
  return [
    `## ${name}`,
    '',
    `${escaped(sentence(summary))}${description === undefined ? '' : ` ${escaped(description)}`}`,
    '',
    '```text',
    `onnx-lora ${synopsis(command)} [options]`,
    '```',
    '',
    ...list(
      Object.values(positionals).map((spec) => `- \`${spec.value}\`: ${escaped(spec.summary)}`),
    ),
    ...groupsOf(own).flatMap((group) => groupLines(group, own)),
    'Examples:',
    '',
    ...examples.map((one) => `- \`${one.command}\`: ${escaped(one.summary)}`),
    '',
  ];
}

function groupLines(group: string, options: OptionSpecs): string[] {
  const members = Object.entries(options).filter(([, spec]) => spec.group === group);
  return [`${group}:`, '', ...list(members.map((entry) => optionLine(entry, options)))];
}

function optionLine(
  [key, spec]: readonly [string, OptionSpecs[string]],
  options: OptionSpecs,
): string {
  const [summary, example] = explained(spec, { ...commonOptions, ...options });
  return `- \`${flag(key, spec)}\`: ${escaped(summary)}; as in \`${example}\``;
}

function list(items: readonly string[]): string[] {
  return items.length === 0 ? [] : [...items, ''];
}

function sentence(text: string): string {
  return `${text[0]!.toUpperCase()}${text.slice(1)}.`;
}

/** Text whose signs mean nothing to Markdown. */
function escaped(text: string): string {
  return text.replace(/[*_<>|`[\]]/g, '\\$&');
}
