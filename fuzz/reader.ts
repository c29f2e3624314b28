/** What is fuzzed: something of ours that reads files which others wrote. */
import type { Random } from './random.js';

/** An input: its files by name, all in one folder. Names may have folders in them. */
export type Files = ReadonlyMap<string, Uint8Array>;

export interface Reader {
  /** Valid inputs, from which damaged ones are made. Made once, the same every time. */
  seeds(): readonly Files[] | Promise<readonly Files[]>;
  /** A damaged copy of one of the seeds. */
  mutate(files: Files, random: Random): Files;
  /**
   * Reads what is in `folder`, and may write into it. It resolves or throws an OnnxLoraError; anything
   * else is a fault of ours.
   */
  run(folder: string): unknown;
}

/** Files from an object of names and contents. */
export function filesOf(files: Readonly<Record<string, Uint8Array | string>>): Files {
  const bytes = (content: Uint8Array | string) =>
    // A copy: slices of a Buffer would share its bytes, and damage would stay in the seed.
    new Uint8Array(typeof content === 'string' ? new TextEncoder().encode(content) : content);
  return new Map(Object.entries(files).map(([name, content]) => [name, bytes(content)]));
}

/** The files with one of them changed; `change` gets its bytes. */
export function withFile(
  files: Files,
  name: string,
  change: (bytes: Uint8Array) => Uint8Array,
): Files {
  return new Map(files).set(name, change(files.get(name)!));
}

/** A mistake in what is fuzzed that is no error: a result that is not what it has to be. */
export function mustHold(condition: boolean, what: string): void {
  if (!condition) throw new Error(`does not hold: ${what}`);
}
