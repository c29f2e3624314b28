/** The command line: words to a command, its result to text, failures to exit codes. The one place that knows yargs. */
import yargs, { type Argv, type Options as YargsOptions } from 'yargs';
import { OnnxLoraError } from '../src/errors.js';
import { didYouMean } from '../src/options/near.js';
import { resolveOptions } from '../src/options/resolve.js';
import { version } from '../src/version.js';
import type { Command } from './command.js';
import { commands } from './commands/index.js';
import { commonOptions, commonTable } from './common-options.js';
import { readConfig } from './config.js';
import { configSchema } from './config-schema.js';
import { exitCodeOf, exitCodes, failureResult, failureText } from './failure.js';
import { commandHelp, helpStyle, programHelp } from './help.js';
import { camelCase, kebabCase, type OptionSpecs } from './specs.js';
import { type Spelling, spelled } from './spelling.js';
import { colorsOf, createUi, type Ui } from './ui.js';
import { typedValues } from './values.js';

/** The parsed command line, before anything in it is checked. */
interface Request {
  readonly command: Command | undefined;
  readonly words: readonly string[];
  /** By camelCase name. */
  readonly given: ReadonlyMap<string, unknown>;
}

const allOptions: OptionSpecs = Object.assign({}, commonOptions, ...commands.map((c) => c.options));
const allBooleans = booleans(allOptions);

function parse(argv: readonly string[]): Request {
  let command: Command | undefined;
  const parser = yargs(withLists(withImplied(argv)))
    .scriptName('onnx-lora')
    .help(false)
    .version(false)
    .exitProcess(false)
    // Nothing is guessed from the text of a value: the descriptions of the options say what it is.
    .parserConfiguration({
      'boolean-negation': true,
      'camel-case-expansion': false,
      'dot-notation': false,
      'duplicate-arguments-array': true,
      'greedy-arrays': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'short-option-groups': false,
      'strip-aliased': true,
    })
    .updateStrings({ 'Not enough arguments following: %s': '--%s needs a value' })
    .fail((message, error) => {
      if (error && error.name !== 'YError') throw error;
      throw usageError(withCount(message || error.message, command), command);
    })
    // So that no option in front of the command takes the command for its value.
    .boolean([...allBooleans, 'version'])
    .options(yargsOptions(commonOptions));
  for (const one of commands) {
    parser.command(
      `${one.name} [words..]`,
      one.summary,
      (sub: Argv) => {
        command = one;
        return sub.options(yargsOptions(one.options));
      },
      () => {},
    );
  }
  const { _, $0, words, ...rest } = parser.parseSync() as Record<string, unknown>;
  const given = new Map<string, unknown>();
  for (const [key, value] of Object.entries(rest)) {
    if (value !== undefined) given.set(camelCase(key), value);
  }
  // A command's own name is the first of `_`.
  const others = (_ as unknown[]).map(String).slice(command ? 1 : 0);
  return { command, words: [...((words as string[] | undefined) ?? []), ...others], given };
}

function yargsOptions(specs: OptionSpecs): Record<string, YargsOptions> {
  return Object.fromEntries(
    Object.entries(specs).map(([key, spec]) => [
      kebabCase(key),
      {
        ...(spec.short ? { alias: spec.short } : {}),
        ...(spec.type === 'boolean'
          ? { type: 'boolean' as const }
          : {
              // An array of yargs takes one value at a time, whatever `nargs` says.
              type: spec.repeatable && !spec.values ? ('array' as const) : ('string' as const),
              nargs: spec.values ?? 1,
            }),
      },
    ]),
  );
}

/** yargs would take whatever follows an option, the model too, for its value. */
function withImplied(argv: readonly string[]): string[] {
  return argv.map((word, i) => {
    const spec = word.startsWith('--') ? allOptions[camelCase(word.slice(2))] : undefined;
    if (spec?.implied === undefined || spec.choices?.includes(argv[i + 1] ?? '')) return word;
    return `${word}=${spec.implied}`;
  });
}

/** Names the option again before each further number of a list. */
function withLists(argv: readonly string[]): string[] {
  let list: string | undefined;
  return argv.flatMap((word, i) => {
    if (word.startsWith('--')) {
      list = allOptions[camelCase(word.slice(2))]?.list ? word : undefined;
      return [word];
    }
    const isFurther = list !== undefined && argv[i - 1] !== list && Number.isFinite(Number(word));
    if (isFurther) return [list!, word];
    if (argv[i - 1] !== list) list = undefined;
    return [word];
  });
}

/** yargs says "a value", however many an option takes. */
function withCount(problem: string, command: Command | undefined): string {
  const [, name] = /^--(\S+) needs a value$/.exec(problem) ?? [];
  const count = name === undefined ? undefined : command?.options[camelCase(name)]?.values;
  return count === undefined ? problem : `--${name} needs ${count} values`;
}

function booleans(specs: OptionSpecs): string[] {
  return Object.keys(specs)
    .filter((key) => specs[key]!.type === 'boolean')
    .map(kebabCase);
}

function usageError(problem: string, command?: Command, hint?: string): OnnxLoraError {
  const help = command ? `onnx-lora ${command.name} --help` : 'onnx-lora --help';
  return new OnnxLoraError('invalid-argument', problem, { hint: hint ?? `See: ${help}` });
}

/** @throws OnnxLoraError for the first option that the command does not have */
function checkKnown(command: Command, given: Request['given'], specs: OptionSpecs): void {
  for (const [key, value] of given) {
    if (Object.hasOwn(specs, key)) continue;
    const name = kebabCase(key);
    const written = name.length === 1 ? `-${name}` : `--${value === false ? 'no-' : ''}${name}`;
    const names = Object.keys(specs).map((known) => `--${kebabCase(known)}`);
    const hint = didYouMean(`--${name}`, names, `See: onnx-lora ${command.name} --help`);
    throw usageError(`unknown option ${written} of ${command.name}`, command, hint);
  }
}

/** yargs looks options up in plain objects, and trips over what those inherit. */
function checkNames(argv: readonly string[]): void {
  const nameOf = (word: string) => /^--?(?:no-)?([^=]+)/.exec(word)?.[1] ?? '';
  const inherited = argv.find((word) => nameOf(word) in Object.prototype);
  if (inherited !== undefined) throw usageError(`unknown option ${inherited}`);
}

/** yargs reads `--force=yes` as false. */
function checkBooleans(argv: readonly string[]): void {
  for (const word of argv) {
    const [, name, value] = /^--(?:no-)?([a-z-]+)=(.*)$/s.exec(word) ?? [];
    if (name === undefined || !allBooleans.includes(name) || /^(true|false)$/.test(value!))
      continue;
    throw usageError(`--${name} is ${JSON.stringify(value)}, expected no value`);
  }
}

function operands(command: Command, words: readonly string[]): Record<string, string | string[]> {
  const names = Object.keys(command.positionals);
  const missing = names.slice(words.length).map((name) => command.positionals[name]!);
  const example = command.examples[0]!.command;
  if (missing.length > 0) {
    const [{ value, summary }] = missing as [(typeof missing)[number]];
    throw usageError(`${command.name} needs ${value}: ${summary}`, command, `Example: ${example}`);
  }
  const takesAll = Object.values(command.positionals).at(-1)?.many;
  const [extra] = words.slice(names.length);
  if (extra !== undefined && !takesAll) {
    const expected = Object.values(command.positionals).map(({ value }) => value);
    throw usageError(
      `unexpected argument ${JSON.stringify(extra)}; ${command.name} takes ${expected.join(' ') || 'none'}`,
      command,
    );
  }
  return Object.fromEntries(
    names.map((name, i) => [name, command.positionals[name]!.many ? words.slice(i) : words[i]!]),
  );
}

/** Checked arguments: the command line over the config file. */
function resolveArguments({ given, words }: Request, command: Command): Record<string, unknown> {
  const specs: OptionSpecs = { ...command.options, ...commonOptions };
  checkKnown(command, given, specs);
  const typed = typedValues(lastOf(given, specs), specs);
  const config = typeof typed.config === 'string' ? readConfig(typed.config, specs) : {};
  const options = { ...config, ...typed };
  const positionals = operands(command, words);
  for (const [key, spec] of Object.entries(specs)) {
    if (!spec.required || key in options) continue;
    throw usageError(
      `${command.name} needs --${kebabCase(key)}: ${spec.summary}`,
      command,
      `For example: ${spec.example}`,
    );
  }
  // The library knows nothing of some of them.
  resolveOptions({ ...command.table, ...commonTable }, options, command.name);
  return { ...options, ...positionals };
}

/** The arguments that the command itself takes; the rest is about how it is called. */
function ownArguments(args: Readonly<Record<string, unknown>>, command: Command) {
  const own = { ...command.options, ...command.positionals };
  return Object.fromEntries(Object.entries(args).filter(([key]) => Object.hasOwn(own, key)));
}

/** If an option that takes one value is given twice, the last one counts. */
function lastOf(given: Request['given'], specs: OptionSpecs): Map<string, unknown> {
  return new Map(
    [...given].map(([key, value]) => [
      key,
      Array.isArray(value) && !specs[key]!.repeatable ? value.at(-1) : value,
    ]),
  );
}

function unknownCommand(name: string): OnnxLoraError {
  const names = commands.map((command) => command.name);
  const hint = didYouMean(name, names, `Commands: ${names.join(', ')}.`);
  return usageError(`unknown command ${JSON.stringify(name)}`, undefined, hint);
}

function findCommand(name: string): Command {
  const found = commands.find((command) => command.name === name);
  if (!found) throw unknownCommand(name);
  return found;
}

/** Help and version; undefined where a command is to run. */
function information(request: Request): string | undefined {
  const { command, words, given } = request;
  const style = helpStyle(process.stdout, colorsOf(process.stdout));
  if (given.get('version') === true) return `${version}\n`;
  if (command && given.get('help') === true) return commandHelp(command, style);
  if (command && given.get('configSchema') === true) {
    return document(configSchema(command, { ...command.options, ...commonOptions }));
  }
  if (command) return undefined;
  const [first, second] = words;
  if (first === 'help' && second !== undefined) return commandHelp(findCommand(second), style);
  if (first !== undefined && first !== 'help') throw unknownCommand(first);
  if (given.get('help') === true || first === 'help') return programHelp(commands, style);
  throw usageError('no command was given');
}

/** Fails when the signal comes. */
function interruption(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const stop = () => reject(new OnnxLoraError('aborted', 'interrupted'));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}

/** A text may also name options of other commands, as of the one to run instead. */
function spellingFor(options: OptionSpecs): Spelling {
  const known = { ...allOptions, ...options };
  const names = commands.map(({ name }) => name);
  return (text) => spelled(text, known, names);
}

/** The result of `--json`: its warnings are texts of the library. */
function spelledResult(result: unknown, spelling: Spelling): unknown {
  const { warnings } = (result ?? {}) as { readonly warnings?: readonly string[] };
  return warnings ? { ...(result as object), warnings: warnings.map(spelling) } : result;
}

/** The process around the command line. */
export interface Surroundings {
  /** Stops the work. Its reason is the exit code then. */
  readonly signal: AbortSignal;
  /** Told of the user interface, which has to be stopped before something else is written. */
  readonly onUi?: ((ui: Ui) => void) | undefined;
}

/**
 * Runs what the words ask for, to its end.
 * @param argv the words after `onnx-lora`
 * @returns the exit code
 */
export async function runProgram(
  argv: readonly string[],
  { signal, onUi }: Surroundings,
): Promise<number> {
  let json = argv.some((word) => word === '--json' || word === '--json=true');
  let ui: Ui | undefined;
  let spelling = spellingFor({});
  try {
    checkNames(argv);
    checkBooleans(argv);
    const request = parse(argv);
    const text = information(request);
    if (text !== undefined) {
      process.stdout.write(text);
      return exitCodes.done;
    }
    const command = request.command!;
    spelling = spellingFor(command.options);
    const args = resolveArguments(request, command);
    json = args.json === true;
    const config = args.config as string | undefined;
    ui = createUi({ signal, isQuiet: args.quiet === true, isJson: json, config, spelling });
    onUi?.(ui);
    const ran = command.run(ownArguments(args, command), ui);
    const outcome = await (command.readOnly ? Promise.race([ran, interruption(signal)]) : ran);
    ui.stop();
    process.stdout.write(json ? document(spelledResult(outcome.result, spelling)) : outcome.text());
    if (!outcome.failure) return exitCodes.done;
    process.stderr.write(failureText(outcome.failure, spelling));
    return exitCodeOf(outcome.failure);
  } catch (error) {
    ui?.stop();
    if (json) process.stdout.write(document(failureResult(error, spelling)));
    process.stderr.write(failureText(error, spelling));
    return signal.aborted && exitCodeOf(error) === exitCodes.interrupted
      ? (signal.reason as number)
      : exitCodeOf(error);
  }
}

function document(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
