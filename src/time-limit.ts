/** A time limit for work that a file or a pattern from outside may draw out without end. */
import { type Context, createContext, Script } from 'node:vm';

/** For one thing from outside to be read, be it a text, an image or a page of a table: with all around it, 10 s. */
export const READ_MS = 9000;

/** Work was stopped because it took too long. */
export class TimeLimit extends Error {
  constructor(readonly milliseconds: number) {
    super(`it takes longer than ${milliseconds / 1000} s`);
  }
}

const script = new Script('run()');
let context: Context | undefined;

/**
 * Runs `work` to its end or stops it, wherever it is: V8 leaves even a regular expression that backtracks.
 * Things that the work was changing are then half changed. A call costs about 0.1 ms.
 * @throws TimeLimit, and what `work` throws
 */
export function withinTime<T>(milliseconds: number, work: () => T): T {
  context ??= createContext({});
  const outer: unknown = context.run;
  let result: { readonly value: T } | undefined;
  context.run = () => {
    result = { value: work() };
  };
  try {
    script.runInContext(context, { timeout: milliseconds });
  } catch (error) {
    throw isTimeout(error) ? new TimeLimit(milliseconds) : error;
  } finally {
    context.run = outer;
  }
  return result!.value;
}

function isTimeout(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | null)?.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT';
}
