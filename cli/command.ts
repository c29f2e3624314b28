/**
 * Commands as data. What a command takes is described once: the parser, `--config`, the help and
 * the types of `run` all come from that description.
 */
import type { OnnxLoraError } from '../src/errors.js';
import type { OptionsOf, OptionTable } from '../src/options/option.js';
import { type OptionSpecs, specsOf } from './specs.js';
import type { Ui } from './ui.js';

export interface PositionalSpec {
  readonly value: string;
  readonly summary: string;
  /** Takes all words that are left, one or more; the last of its command. */
  readonly many?: true;
}

export type PositionalSpecs = Readonly<Record<string, PositionalSpec>>;

/** Arguments of `run`: positionals and options, checked and typed. */
export type Arguments<P extends PositionalSpecs, O extends OptionTable> = OptionsOf<O> & {
  readonly [K in keyof P]: P[K] extends { many: true } ? readonly string[] : string;
};

/** The outcome of a command. */
export interface Outcome {
  /** The result of `--json`. */
  readonly result: unknown;
  /** The result for people; made only where it is shown. */
  readonly text: () => string;
  /** A failure although there is a result: printed after it. */
  readonly failure?: OnnxLoraError | undefined;
}

export interface Example {
  readonly command: string;
  readonly summary: string;
}

interface Definition<P extends PositionalSpecs, O extends OptionTable> {
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
export interface Command extends Omit<Definition<PositionalSpecs, OptionTable>, 'options' | 'run'> {
  readonly options: OptionSpecs;
  /** The descriptions of the options, with the rules of their effect. */
  readonly table: OptionTable;
  readonly run: (args: Readonly<Record<string, unknown>>, ui: Ui) => Outcome | Promise<Outcome>;
}

/** Describes a command; the types of its arguments follow from `positionals` and `options`. */
export function defineCommand<const P extends PositionalSpecs, const O extends OptionTable>(
  definition: Definition<P, O>,
): Command {
  const { run, options } = definition;
  return {
    ...definition,
    options: specsOf(options),
    table: options,
    run: (args, ui) => run(args as Arguments<P, O>, ui),
  };
}
