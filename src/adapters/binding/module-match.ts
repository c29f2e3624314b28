/**
 * PyTorch's module paths in an ONNX model. The exporter may have seen a wrapper around the module
 * (`model.bert.encoder…`) or only a part of it (`encoder…`): then all its paths begin in another way.
 */
import { OnnxLoraError } from '../../errors.js';

/** The difference between paths in the graph and PyTorch's: `strip` is taken off, then `add` is put in front. */
interface Alignment {
  readonly strip: string;
  readonly add: string;
}

const SAME: Alignment = { strip: '', add: '' };

/** Segments that an exporter writes in its own way: the model builder of onnxruntime-genai. */
const aliases = new Map([['self_attn', 'attn']]);

/** Things of the graph by the path of the module that they belong to. */
export class ModuleIndex<T> {
  private readonly byPath = new Map<string, Set<T>>();
  private readonly byCanonicalPath = new Map<string, Set<T>>();

  add(path: string, thing: T): void {
    addTo(this.byPath, path, thing);
    addTo(this.byCanonicalPath, canonical(path), thing);
  }

  /** All that belongs to a module; a path as it is written goes before its other spelling. */
  at(path: string): readonly T[] {
    return [...(this.byPath.get(path) ?? this.byCanonicalPath.get(canonical(path)) ?? [])];
  }

  paths(): string[] {
    return [...this.byCanonicalPath.keys()];
  }
}

function addTo<T>(map: Map<string, Set<T>>, key: string, thing: T): void {
  const set = map.get(key);
  if (set) set.add(thing);
  else map.set(key, new Set([thing]));
}

function canonical(path: string): string {
  return path
    .split('.')
    .map((segment) => aliases.get(segment) ?? segment)
    .join('.');
}

/** A module that is called again: the exporter counts at the end of its name. */
export function withoutCall(path: string): string {
  return path.replace(/_\d+$/, '');
}

/** Whether a node's path is that of a call of the module. */
export function isCallOf(module: string, path: string): boolean {
  const wanted = canonical(module);
  return [path, withoutCall(path)].some((one) => canonical(one) === wanted);
}

/**
 * The one way to turn PyTorch's paths into those of the graph that finds the most of them.
 * @param modules for each module the paths that would be a home for it
 * @throws OnnxLoraError `adapter-mismatch` where several ways are as good and neither is to leave
 * the paths alone
 */
export function alignPaths(
  modules: readonly (readonly string[])[],
  graphPaths: readonly string[],
  label: string,
): (path: string) => string | undefined {
  const known = new Set(graphPaths);
  const longer = pathsBySuffix(graphPaths);
  const votes = new Map<string, { alignment: Alignment; example: string; count: number }>();
  for (const homes of modules) {
    const alignments = homes.flatMap((home) => alignmentsOf(canonical(home), known, longer));
    const distinct = new Map(alignments.map((one) => [`${one.strip}|${one.add}`, one]));
    for (const [key, alignment] of distinct) {
      const vote = votes.get(key) ?? { alignment, example: homes[0]!, count: 0 };
      votes.set(key, { ...vote, count: vote.count + 1 });
    }
  }
  const most = Math.max(0, ...[...votes.values()].map(({ count }) => count));
  const best = [...votes.values()].filter(({ count }) => count === most);
  const same = best.find(({ alignment }) => alignment.strip === '' && alignment.add === '');
  if (same) return applied(same.alignment);
  const [first, ...others] = fullest(best, modules);
  if (others.length > 0) throw ambiguous([first!, ...others], label);
  return applied(first?.alignment ?? SAME);
}

/**
 * Of ways that find as many modules, those that leave out the fewest of the part that the graph would be: an
 * encoder exported alone has homes for all adapters of the encoder, but not for all of a decoder like it.
 */
function fullest<T extends { readonly alignment: Alignment }>(
  votes: readonly T[],
  modules: readonly (readonly string[])[],
): T[] {
  const sizes = votes.map(({ alignment: { strip } }) => {
    return modules.filter(([module]) => canonical(module!).startsWith(strip)).length;
  });
  const least = Math.min(...sizes);
  return votes.filter((_, i) => sizes[i] === least);
}

/** Paths by each of their proper suffixes. */
function pathsBySuffix(paths: readonly string[]): ReadonlyMap<string, ReadonlySet<string>> {
  const bySuffix = new Map<string, Set<string>>();
  for (const path of paths) {
    for (const suffix of properSuffixes(path)) addTo(bySuffix, suffix, path);
  }
  return bySuffix;
}

function* properSuffixes(path: string): Generator<string> {
  for (let dot = path.indexOf('.'); dot >= 0; dot = path.indexOf('.', dot + 1)) {
    yield path.slice(dot + 1);
  }
}

function alignmentsOf(
  path: string,
  known: ReadonlySet<string>,
  longer: ReadonlyMap<string, ReadonlySet<string>>,
): Alignment[] {
  const wrapped = [...(longer.get(path) ?? [])].map((found) => ({
    strip: '',
    add: found.slice(0, found.length - path.length),
  }));
  const parts = [...properSuffixes(path)]
    .filter((suffix) => known.has(suffix))
    .map((suffix) => ({ strip: path.slice(0, path.length - suffix.length), add: '' }));
  return [...(known.has(path) ? [SAME] : []), ...wrapped, ...parts];
}

function applied({ strip, add }: Alignment): (path: string) => string | undefined {
  return (path) => {
    const inside = canonical(path);
    if (!inside.startsWith(strip)) return undefined;
    // Prefixes are counted in segments, which keep their number in every spelling.
    const segments = strip.split('.').length - 1;
    return add + path.split('.').slice(segments).join('.');
  };
}

function ambiguous(
  candidates: readonly { alignment: Alignment; example: string }[],
  label: string,
): OnnxLoraError {
  const { example } = candidates[0]!;
  const homes = candidates.map(({ alignment, example: module }) => {
    return applied(alignment)(module) ?? module;
  });
  return new OnnxLoraError(
    'adapter-mismatch',
    `${label}: ${example} may be any of ${[...new Set(homes)].slice(0, 4).join(', ')}`,
    { hint: 'Say how its paths begin in the model: `peftPrefix: OLD=NEW`' },
  );
}
