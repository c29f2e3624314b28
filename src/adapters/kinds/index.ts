/** The kinds of adapters. */
import type { AdapterShape, PatchedAdapter } from '../model/manifest.js';
import type { KindName } from '../structure/choices.js';
import { dora } from './dora.js';
import { hira } from './hira.js';
import type { AdapterKind } from './kind.js';
import { lora } from './lora.js';

export const kinds: Readonly<Record<KindName, AdapterKind>> = { lora, dora, hira };

/** The kind of an adapter; records that are older than kinds have DoRA's magnitude alone. */
export function kindOf({
  kind,
  magnitude,
}: Partial<Pick<PatchedAdapter, 'kind' | 'magnitude'>>): AdapterKind {
  return kinds[kind ?? (magnitude === undefined ? 'lora' : 'dora')];
}

/** The kind in a record: nothing for LoRA. */
export function kindEntry(name: KindName): { kind?: KindName } {
  return name === 'lora' ? {} : { kind: name };
}

/** The first tensor beside A and B among some adapters: `a magnitude (DoRA) in NAME`. */
export function beyondFactors(
  adapters: readonly { readonly record: Pick<AdapterShape, 'kind' | 'name'> }[],
): string | undefined {
  const found = adapters.find(({ record }) => kindOf(record).beyondFactors !== undefined);
  return found && `${kindOf(found.record).beyondFactors} in ${found.record.name}`;
}
