/** Which layers a pattern names, the way PEFT's `target_modules` does. */
import { distance } from 'fastest-levenshtein';
import picomatch from 'picomatch';
import { OnnxLoraError } from '../../errors.js';
import { TimeLimit, withinTime } from '../../time-limit.js';
import { DEFAULT_TARGETS, type Selection } from './selection-options.js';

export type { Selection };

/** Names that a pattern is matched against. */
export interface Selectable {
  /** `encoder.layer.0.attention.self.query`; several where nodes share a weight. */
  readonly modules: readonly string[];
  /** The nodes' own names. */
  readonly nodeNames: readonly string[];
  /** A convolution: `all-linear` leaves it out. */
  readonly isConvolution: boolean;
  /** Of a part of a layer: the paths of all of it, which name the part too. */
  readonly whole?: readonly string[] | undefined;
}

/**
 * One pattern on all paths of a model, which takes milliseconds. Regular expressions that backtrack can
 * take years, and patterns come from configs of others.
 */
const PATTERN_MS = 2000;

/**
 * Whether a layer matches a pattern: an exact module path, a dotted suffix of it, `re:<regex>` and
 * `glob:<glob>` (`*` within a path segment, `**` across) on the whole path, the node's own name,
 * `all-linear` (all but convolutions) or `all`.
 * @throws OnnxLoraError `invalid-argument` for an invalid regular expression; so does the function
 * for a pattern that takes longer than two seconds
 */
export function matcher(pattern: string): (layer: Selectable) => boolean {
  if (!/^(re|glob):/.test(pattern)) return unlimited(pattern);
  const matches = inTime(pattern, () => unlimited(pattern));
  return (layer) => inTime(pattern, () => matches(layer));
}

/** @throws OnnxLoraError `invalid-argument` where the work takes too long */
function inTime<T>(pattern: string, work: () => T): T {
  try {
    return withinTime(PATTERN_MS, work);
  } catch (error) {
    if (!(error instanceof TimeLimit)) throw error;
    throw new OnnxLoraError(
      'invalid-argument',
      `the pattern ${JSON.stringify(pattern)} cannot be matched: ${error.message}`,
      {
        hint: 'Repetitions within repetitions, as (a+)+, have too many ways to match: write it without them, or name modules.',
      },
    );
  }
}

function unlimited(pattern: string): (layer: Selectable) => boolean {
  if (pattern === 'all') return () => true;
  if (pattern === 'all-linear') return (layer) => !layer.isConvolution;
  if (pattern.startsWith('re:')) {
    const regex = fullMatch(pattern.slice(3));
    return (layer) => pathsOf(layer).some((module) => regex.test(module));
  }
  if (pattern.startsWith('glob:')) {
    // picomatch has the path's separator built in: dots become slashes.
    const glob = picomatch(pattern.slice(5).replaceAll('.', '/'), { dot: true });
    return (layer) => pathsOf(layer).some((module) => glob(module.replaceAll('.', '/')));
  }
  return (layer) =>
    pathsOf(layer).some((module) => module === pattern || module.endsWith(`.${pattern}`)) ||
    layer.nodeNames.includes(pattern);
}

function pathsOf({ modules, whole = [] }: Selectable): readonly string[] {
  return whole.length === 0 ? modules : [...modules, ...whole];
}

function fullMatch(source: string): RegExp {
  try {
    return new RegExp(`^(?:${source})$`);
  } catch (error) {
    throw new OnnxLoraError(
      'invalid-argument',
      `re:${source} is not a regular expression: ${(error as Error).message}`,
    );
  }
}

/**
 * The layers that a selection names.
 * @throws OnnxLoraError `no-match` for a pattern that matches nothing, with near misses
 */
export function select<T extends Selectable>(layers: readonly T[], selection: Selection): T[] {
  const { targets = DEFAULT_TARGETS, exclude = [] } = selection;
  const named = new Set(targets.flatMap((pattern) => matching(layers, pattern, 'target')));
  for (const pattern of exclude) {
    for (const layer of matching(layers, pattern, 'exclude')) named.delete(layer);
  }
  const inRange = selection.layers === undefined ? () => true : layerFilter(selection.layers);
  const kept = layers.filter((layer) => named.has(layer) && inRange(layer));
  if (kept.length === 0 && named.size > 0) {
    throw new OnnxLoraError(
      'no-match',
      `layers ${selection.layers} leaves none of the ${named.size} matching layers`,
      { hint: 'See the layers of the model with: `inspect(model)`' },
    );
  }
  return kept;
}

function matching<T extends Selectable>(layers: readonly T[], pattern: string, kind: string): T[] {
  const matches = inTime(pattern, () => layers.filter(unlimited(pattern)));
  if (matches.length > 0 || pattern.startsWith('all')) return matches;
  const near = nearMisses(pattern, layers);
  throw new OnnxLoraError(
    'no-match',
    `${kind} pattern ${JSON.stringify(pattern)} matches no layer${near.length > 0 ? `; near: ${near.join(', ')}` : ''}`,
    { hint: 'See the layers and their module paths with: `inspect(model)`' },
  );
}

/** The paths, or their last segments, that look most like what was asked for. */
export function nearMisses(pattern: string, layers: readonly Selectable[]): string[] {
  const wanted = pattern.replace(/^(re|glob):/, '');
  const candidates = new Set<string>();
  for (const { modules, nodeNames } of layers) {
    for (const module of modules) {
      const segments = module.split('.');
      candidates.add(module).add(segments.at(-1)!).add(segments.slice(-2).join('.'));
    }
    for (const name of nodeNames) candidates.add(name);
  }
  candidates.delete('');
  return [...candidates]
    .map((name) => ({ name, score: distance(wanted, name) / Math.max(wanted.length, name.length) }))
    .filter(({ score }) => score < 0.7)
    .sort((a, b) => a.score - b.score)
    .slice(0, 3)
    .map(({ name }) => name);
}

/** PEFT's `layers_to_transform`: looks at the first numeric segment of the path. */
function layerFilter(list: string): (layer: Selectable) => boolean {
  const wanted = new Set<number>();
  for (const part of list.split(',')) {
    const range = /^\s*(\d+)(?:\s*-\s*(\d+))?\s*$/.exec(part);
    const [first, last] = [Number(range?.[1]), Number(range?.[2] ?? range?.[1])];
    if (!range || last < first || last > 1e6) {
      throw new OnnxLoraError(
        'invalid-argument',
        `layers ${JSON.stringify(list)}: expected numbers and ranges like 0-5,8`,
      );
    }
    for (let i = first; i <= last; i++) wanted.add(i);
  }
  return ({ modules }) =>
    modules.some((module) => {
      const index = module.split('.').find((segment) => /^\d+$/.test(segment));
      return index !== undefined && wanted.has(Number(index));
    });
}

/** A value that a pattern assigns: `PATTERN=8`. The first pattern that matches wins, as in PEFT. */
export interface PatternValue<V> {
  readonly pattern: string;
  readonly value: V;
}

/**
 * The value for each layer from a list of patterns, or the default.
 * @throws OnnxLoraError `no-match` for a pattern that matches none of the layers
 */
export function patternValues<T extends Selectable, V>(
  layers: readonly T[],
  patterns: readonly PatternValue<V>[],
  kind: string,
): Map<T, V> {
  const values = new Map<T, V>();
  for (const { pattern, value } of patterns) {
    for (const layer of matching(layers, pattern, kind)) {
      if (!values.has(layer)) values.set(layer, value);
    }
  }
  return values;
}
