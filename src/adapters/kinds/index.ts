/** The kinds of adapters. */
import type { PatchedAdapter } from '../model/manifest.js';
import type { KindName } from '../structure/choices.js';
import { dora } from './dora.js';
import type { AdapterKind } from './kind.js';
import { lora } from './lora.js';

export const kinds: Readonly<Record<KindName, AdapterKind>> = { lora, dora };

/** The kind of an adapter. */
export function kindOf({ magnitude }: Pick<PatchedAdapter, 'magnitude'>): AdapterKind {
  return kinds[magnitude === undefined ? 'lora' : 'dora'];
}
