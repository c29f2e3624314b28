import { checkNoBindOptions } from '../adapters/binding/bind-options.js';
import { OnnxLoraError } from '../errors.js';
import { pickOptions } from '../options/resolve.js';
import { applyOptions } from './options/apply.js';
import type { PatchOptions, PatchResult } from './patch-options.js';

/**
 * Inserts adapters into the model at `path` and writes the patched model. New adapters start at zero: the
 * patched model computes what the base model does. With `init: 'pissa'` it does so up to the rounding of
 * its weights.
 *
 * Two options make it another command: with `adapter` it is {@link apply}, the adapters of a file, and
 * with `slots` it is {@link addSlots}. This is the one place that chooses.
 * @throws OnnxLoraError `no-target`, `no-match`, `invalid-argument`, and those of reading and writing
 */
export async function patch(path: string, options: PatchOptions = {}): Promise<PatchResult> {
  const { adapter, slots, ...rest } = options;
  if (adapter === undefined) checkNoBindOptions(options);
  if (slots) {
    checkSlotOptions(options);
    const { addSlots } = await import('./add-slots.js');
    const mode = slots === true ? 'required' : slots;
    return { adapters: [], ...(await addSlots(path, { ...rest, mode })) };
  }
  if (adapter !== undefined) {
    const { apply } = await import('./apply.js');
    return { ...(await apply(path, adapter, pickOptions(applyOptions, rest))), skipped: [] };
  }
  const { addAdapters } = await import('./add-adapters.js');
  return await addAdapters(path, rest);
}

function checkSlotOptions(options: PatchOptions): void {
  const idle = (['adapter', 'head'] as const).find((key) => options[key] !== undefined);
  if (idle) throw new OnnxLoraError('invalid-argument', `${idle} has no effect on slots`);
}
