/** Options of long work and of what it writes. */
import { handler, internal, type OptionsOf, option, varied } from '../options/option.js';
import { callback, instance, list, path, toggle } from '../options/schemas.js';

/** Progress of long work. */
export interface Progress {
  /** The work, in a word or two. */
  readonly phase: string;
  /** Units done. */
  readonly done: number;
  /** Units in all. */
  readonly total: number;
  /** The unit of `done` and `total`. */
  readonly unit: 'bytes' | 'weights' | 'runs' | 'samples' | 'steps' | 'tokens';
  /** A remark, in a few words. */
  readonly detail?: string | undefined;
  /** The course of a number so far, oldest first. */
  readonly trend?: readonly number[] | undefined;
}

export const workOptions = {
  /** Stops the work; nothing is left behind. */
  signal: handler(instance(AbortSignal, 'an AbortSignal')),
  /** Called now and then with how far the work is. */
  onProgress: handler(callback<(progress: Progress) => void>()),
};

/** Options of long work. */
export interface WorkOptions extends OptionsOf<typeof workOptions> {}

/** Remarks for people. */
export const noteOption = {
  /** Called with remarks for people: what is not read, what was chosen. */
  onNote: handler(callback<(text: string) => void>()),
};

export const writeOptions = {
  ...workOptions,
  /** Replace an existing file. */
  force: option(toggle, {
    group: 'Output',
    default: false,
    summary: 'replace an existing output',
    example: '--force',
  }),
  /** Other inputs that must not be overwritten, such as the file that the options came from. */
  alsoRead: internal(list(path, 0)),
  /** The place that the output gets in the end, where it is made in another one. */
  finalOutput: internal(path),
  ...noteOption,
};

/** `force` of a command whose one file is that of another option. */
export function forceFor(file: string) {
  return {
    /** Replace an existing file. */
    force: varied(writeOptions.force, { needs: [file] }),
  };
}

/** Options of work that writes files. */
export interface WriteOptions extends WorkOptions, OptionsOf<typeof writeOptions> {}

/**
 * The file of the result.
 * @param name what it is called by default, for a model `model.onnx`
 */
export function outputOption(name: string, defaultText = name) {
  return {
    /** The file to write. Default: the model's name with another ending, beside the model. */
    output: option(path, {
      group: 'Output',
      value: 'FILE',
      short: 'o',
      defaultText,
      summary: 'file to write; it appears whole or not at all',
      example: `-o ${name}`,
    }),
  };
}

/** The file of the result. */
export interface OutputOptions extends OptionsOf<ReturnType<typeof outputOption>> {}
