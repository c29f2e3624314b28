/** Adapter sets that are to be combined: checked, and matched layer by layer. */
import { OnnxLoraError } from '../../errors.js';
import { alignPaths } from '../binding/module-match.js';
import type { AdapterContents, OutgoingAdapter } from '../files/adapter-contents.js';
import { beyondFactors } from '../kinds/index.js';

/** An adapter of one of the sets. */
export interface Part {
  readonly adapter: OutgoingAdapter;
  /** Which set it is of. */
  readonly input: number;
  readonly weight: number;
}

/** A layer that at least one of the sets adapts. */
export interface CombinedLayer {
  readonly name: string;
  readonly parts: readonly Part[];
}

/**
 * The layers of several adapter sets, in the order in which they first appear. Layers are the same where
 * their module paths are; where those of a set begin in another way than the paths before, in a wrapper
 * or without, they are distinguished by what follows.
 * @throws OnnxLoraError `adapter-mismatch` where sets give one layer two sizes, or begin in several ways
 */
export function combinedLayers(
  sets: readonly AdapterContents[],
  weights: readonly number[],
): CombinedLayer[] {
  const layers = new Map<string, Part[]>();
  for (const [input, { label, adapters }] of sets.entries()) {
    const names = adapters.map(({ record }) => record.name);
    const aligned = alignPaths(
      names.map((name) => [name]),
      [...layers.keys()],
      label,
    );
    for (const [i, adapter] of adapters.entries()) {
      const name = aligned(names[i]!) ?? names[i]!;
      const parts = layers.get(name) ?? [];
      parts.push({ adapter, input, weight: weights[input]! });
      layers.set(name, parts);
    }
  }
  for (const [name, parts] of layers) checkSizes(name, parts, sets);
  return [...layers].map(([name, parts]) => ({ name, parts }));
}

/**
 * Numbers that replace the model's own are not a change of them, and have no weighted sum.
 * @throws OnnxLoraError `unsupported`
 */
export function checkSummable({ label, adapters, trained, hasHead }: AdapterContents): void {
  const found = [
    hasHead && 'a head',
    trained.length > 0 && `the trained tensor ${trained[0]?.name}`,
    beyondFactors(adapters),
  ].find((what) => what);
  if (!found) return;
  throw new OnnxLoraError('unsupported', `${label} has ${found}, which has no weighted sum`, {
    hint: 'Combine sets of adapters alone.',
  });
}

function checkSizes(name: string, parts: readonly Part[], sets: readonly AdapterContents[]): void {
  const sizeOf = ({ adapter: { record } }: Part) => `${record.in} x ${record.out}`;
  const [first] = parts;
  const other = parts.find((part) => sizeOf(part) !== sizeOf(first!));
  if (!other) return;
  throw new OnnxLoraError(
    'adapter-mismatch',
    `${name} is ${sizeOf(first!)} in ${sets[first!.input]!.label} and ${sizeOf(other)} in ${sets[other.input]!.label}`,
    { hint: 'Combine adapters of one model.' },
  );
}
