/**
 * Commands as data. What a command takes is described once: the parser, `--config`, the help and
 * the types of `run` all come from that description.
 */
import type { OnnxLoraError } from '../src/errors.js';
import type { Ui } from './ui.js';

/** Headings of the help, in the order in which they appear there. */
export const groups = [
  'Data',
  'Images',
  'Loss',
  'Layers',
  'Adapters',
  'Course',
  'Optimizer',
  'Evaluation',
  'Checkpoints',
  'Check',
  'Output',
  'General',
] as const;
export type Group = (typeof groups)[number];

export interface OptionSpec {
  readonly type: 'boolean' | 'string' | 'path' | 'integer' | 'number';
  readonly group: Group;
  readonly summary: string;
  /** As typed: `--rank 8`. */
  readonly example: string;
  /** What stands for the value in the help. */
  readonly value?: string;
  readonly choices?: readonly string[];
  /** The choice that the option stands for where none follows it. */
  readonly implied?: string;
  /** For the help only: the library has the defaults. */
  readonly default?: string | number;
  readonly repeatable?: true;
  /** How many values follow the option, where it is not one; then it is repeatable. */
  readonly values?: number;
  /** Numbers may follow each other: `--weights 0.5 0.5` is `--weights 0.5 --weights 0.5`. */
  readonly list?: true;
  readonly required?: true;
  readonly short?: string;
  /** On unless `--no-…` is given; the help lists it that way. */
  readonly onByDefault?: true;
}

/** By the name in the library, camelCase; the command line has it in kebab-case. */
export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

export interface PositionalSpec {
  readonly value: string;
  readonly summary: string;
  /** Takes all words that are left, one or more; the last of its command. */
  readonly many?: true;
}

export type PositionalSpecs = Readonly<Record<string, PositionalSpec>>;

type One<S extends OptionSpec> = S extends { choices: readonly (infer C)[] }
  ? C
  : S['type'] extends 'boolean'
    ? boolean
    : S['type'] extends 'integer' | 'number'
      ? number
      : string;

type Value<S extends OptionSpec> = S extends { repeatable: true } ? readonly One<S>[] : One<S>;

type Options<O extends OptionSpecs> = {
  readonly [K in keyof O as O[K] extends { required: true } ? K : never]: Value<O[K]>;
} & {
  readonly [K in keyof O as O[K] extends { required: true } ? never : K]?: Value<O[K]> | undefined;
};

/** What `run` gets: positionals and options, checked and typed. */
export type Arguments<P extends PositionalSpecs, O extends OptionSpecs> = Options<O> & {
  readonly [K in keyof P]: P[K] extends { many: true } ? readonly string[] : string;
};

/** What a command has to say. */
export interface Outcome {
  /** The result of `--json`. */
  readonly result: unknown;
  /** The result for people; made only where it is shown. */
  readonly text: () => string;
  /** What went wrong although there is a result: told after it. */
  readonly failure?: OnnxLoraError | undefined;
}

export interface Example {
  readonly command: string;
  readonly summary: string;
}

interface Definition<P extends PositionalSpecs, O extends OptionSpecs> {
  readonly name: string;
  /** One line, for the list of commands. */
  readonly summary: string;
  readonly description?: string;
  readonly positionals: P;
  readonly options: O;
  readonly examples: readonly Example[];
  /** Writes nothing, so that an interruption need not wait for it to clean up. */
  readonly readOnly?: true;
  readonly run: (args: Arguments<P, O>, ui: Ui) => Outcome | Promise<Outcome>;
}

/** A command whose arguments have been checked against its description. */
export interface Command extends Omit<Definition<PositionalSpecs, OptionSpecs>, 'run'> {
  readonly run: (args: Readonly<Record<string, unknown>>, ui: Ui) => Outcome | Promise<Outcome>;
}

/** Describes a command; the types of its arguments follow from `positionals` and `options`. */
export function defineCommand<const P extends PositionalSpecs, const O extends OptionSpecs>(
  definition: Definition<P, O>,
): Command {
  const { run } = definition;
  return { ...definition, run: (args, ui) => run(args as Arguments<P, O>, ui) };
}

/** `rankPattern` -> `rank-pattern` */
export function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `rank-pattern` -> `rankPattern` */
export function camelCase(name: string): string {
  return name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
