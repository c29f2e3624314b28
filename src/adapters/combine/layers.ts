/** Adapter sets that are to be combined: checked, and matched layer by layer. */
import { OnnxLoraError } from '../../errors.js';
import { alignPaths } from '../binding/module-match.js';
import type { AdapterContents, OutgoingAdapter } from '../files/adapter-contents.js';
import { beyondFactors, kindOf } from '../kinds/index.js';
import type { CombineMethod } from '../structure/choices.js';

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
    beyondFactors(adapters.filter(({ record }) => kindOf(record).notScalable)),
  ].find((what) => what);
  if (!found) return;
  throw new OnnxLoraError('unsupported', `${label} has ${found}, which has no weighted sum`, {
    hint: 'Combine sets of adapters alone.',
  });
}

/**
 * Adapters of one kind have sums of that kind. Methods that look at ΔW take A·B for it.
 * @throws OnnxLoraError `unsupported`
 */
export function checkKinds(sets: readonly AdapterContents[], method: CombineMethod): void {
  const all = sets.flatMap(({ label, adapters }) =>
    adapters.map(({ record }) => ({ label, record })),
  );
  const [first] = all;
  if (!first) return;
  const kind = kindOf(first.record);
  const other = all.find(({ record }) => kindOf(record) !== kind);
  if (other) {
    throw new OnnxLoraError(
      'unsupported',
      `${first.record.name} is ${kind.label} in ${first.label}, and ${other.record.name} is ${kindOf(other.record).label} in ${other.label}: only adapters of one kind have a sum`,
      { hint: 'Fold one set after the other with merge.' },
    );
  }
  if (kind.isSum || method === 'linear') return;
  throw new OnnxLoraError(
    'unsupported',
    `${first.label} has ${kind.beyondFactors}, and ${method} looks at A·B alone`,
    { hint: 'Take the method linear, which is exact.' },
  );
}

function checkSizes(name: string, parts: readonly Part[], sets: readonly AdapterContents[]): void {
  const sizeOf = ({ adapter: { record } }: Part) => {
    const { out, part } = record;
    const columns = part ? ` (from column ${part.first} of ${part.of})` : '';
    return `${record.in} x ${out}${columns}`;
  };
  const [first] = parts;
  const other = parts.find((part) => sizeOf(part) !== sizeOf(first!));
  if (!other) return;
  throw new OnnxLoraError(
    'adapter-mismatch',
    `${name} is ${sizeOf(first!)} in ${sets[first!.input]!.label} and ${sizeOf(other)} in ${sets[other.input]!.label}`,
    { hint: 'Combine adapters of one model.' },
  );
}
