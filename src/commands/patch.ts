import type { SlotMode } from '../adapters/structure/choices.js';
import type { ResolvedOf } from '../options/option.js';
import { pickOptions, resolveOptions } from '../options/resolve.js';
import { type Located, onModel, withTokenizer } from './model-folder.js';
import { applyOptions } from './options/apply.js';
import { type PatchOptions, patchOptions } from './options/patch.js';
import { DEFAULT_SLOT_MODE, slotOptions } from './options/slots.js';
import type { PatchResult } from './patch-result.js';

export type { PatchOptions };

/**
 * Inserts adapters into the model at `path` and writes the patched model. New adapters start at zero: the
 * patched model computes what the base model does. With `init: 'pissa'` it does so up to the rounding of
 * its weights.
 *
 * Two options make it another command: with `adapter` it is {@link apply}, the adapters of a file, and
 * with `slots` it is {@link addSlots}. This is the one place that chooses.
 * @throws OnnxLoraError `no-target`, `no-match`, `invalid-argument`, and those of reading and writing
 * @example
 * ```ts
 * import { patch } from 'onnx-lora';
 *
 * const { output, adapters, parameters } = await patch('model.onnx', {
 *   targets: ['query', 'value'],
 *   rank: 8,
 * });
 * console.log(`${output}: ${adapters.length} adapters`);
 * console.log(`${parameters.percent.toFixed(2)} % of the parameters train`);
 * ```
 */
export async function patch(path: string, given: PatchOptions = {}): Promise<PatchResult> {
  const options = resolveOptions(patchOptions, given, 'patch');
  if (options.slots) return await withSlots(path, given, options.slots);
  return await onModel(path, options, 'lora', (located, options) => patchFile(located, options));
}

async function withSlots(
  path: string,
  given: PatchOptions,
  slots: true | SlotMode,
): Promise<PatchResult> {
  const { addSlots } = await import('./add-slots.js');
  const mode = slots === true ? DEFAULT_SLOT_MODE : slots;
  return { adapters: [], ...(await addSlots(path, pickOptions(slotOptions, { ...given, mode }))) };
}

type Options = ResolvedOf<typeof patchOptions>;

async function patchFile(located: Located, options: Options): Promise<PatchResult> {
  const path = located.file;
  const { adapter } = options;
  if (adapter !== undefined) {
    const { apply } = await import('./apply.js');
    return { ...(await apply(path, adapter, pickOptions(applyOptions, options))), skipped: [] };
  }
  const { addAdapters } = await import('./add-adapters.js');
  const isOnData = options.data !== undefined;
  return await addAdapters(path, isOnData ? withTokenizer(options, located) : options);
}
