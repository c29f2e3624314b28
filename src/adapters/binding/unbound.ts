/** The report on adapters that a model has no place for. */
import { OnnxLoraError } from '../../errors.js';
import type { AdapterFile } from '../files/adapter-file.js';

/** Why something has no place in a model. */
export interface Unmatched {
  readonly problem: string;
  /** The model has nothing of this name: it may be left out. Otherwise it does not fit. */
  readonly isMissing: boolean;
}

/** An adapter or a parameter of a file that could not be bound. */
export interface Problem extends Unmatched {
  readonly name: string;
}

/**
 * Names everything that could not be bound. Layers that differ in one number and have the same problem
 * are one entry: `layers.{0-31}.q_proj`.
 */
export function unboundError(
  model: string,
  { path, adapters, parameters = [] }: AdapterFile,
  problems: readonly Problem[],
): OnnxLoraError {
  const total = adapters.length + parameters.length;
  const what = parameters.length > 0 ? 'adapters and parameters' : 'adapters';
  const entries = grouped(problems).map(({ names, problem }) => `${names} (${problem})`);
  const hint = problems.every(({ isMissing }) => isMissing)
    ? 'See the layers with `inspect(model)`. Paths may begin in another way (`peftPrefix: OLD=NEW`), or these may be left out (`allowUnmatched: true`).'
    : 'Adapters fit the model they were trained on. See its layers with `inspect(model)`.';
  return new OnnxLoraError(
    'adapter-mismatch',
    `${path} does not fit ${model}: ${problems.length} of ${total} ${what} have no layer: ${entries.join('; ')}`,
    { hint },
  );
}

/** Names of one pattern together; the problem is that of the first. */
function grouped(problems: readonly Problem[]): { names: string; problem: string }[] {
  const groups = new Map<string, { numbers: number[]; pattern: string; first: Problem }>();
  for (const one of problems) {
    const number = /(?<=\.)\d+(?=\.)/.exec(one.name)?.[0];
    const pattern = number === undefined ? one.name : one.name.replace(/(?<=\.)\d+(?=\.)/, '{}');
    const kind = one.problem.replace(/; near: .*/, '').replaceAll(/\d+/g, '');
    const key = `${pattern}\0${kind}`;
    const group = groups.get(key) ?? { numbers: [], pattern, first: one };
    if (number !== undefined) group.numbers.push(Number(number));
    groups.set(key, group);
  }
  return [...groups.values()].map(({ numbers, pattern, first }) => ({
    names: numbers.length > 1 ? pattern.replace('{}', `{${ranges(numbers)}}`) : first.name,
    problem: first.problem,
  }));
}

/** `0-3,7` */
function ranges(numbers: readonly number[]): string {
  const sorted = [...numbers].sort((a, b) => a - b);
  const parts: [number, number][] = [];
  for (const number of sorted) {
    const last = parts.at(-1);
    if (last && number <= last[1] + 1) last[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(',');
}
