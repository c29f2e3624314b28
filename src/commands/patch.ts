import { checkNoBindOptions } from '../adapters/binding/bind-options.js';
import { adapterOptions, headOption, shapeOptions } from '../adapters/edit/adapter-options.js';
import { OnnxLoraError } from '../errors.js';
import { startDataOptions } from '../fitting/init/start.js';
import { pickOptions } from '../options/resolve.js';
import { type Located, onModel, withTokenizer } from './model-folder.js';
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
export async function patch(path: string, options: PatchOptions = {}): Promise<PatchResult> {
  const kind = options.slots ? 'slots' : 'lora';
  return await onModel(path, options, kind, (located, options) => patchFile(located, options));
}

async function patchFile(located: Located, options: PatchOptions): Promise<PatchResult> {
  const path = located.file;
  const { adapter, slots, ...rest } = options;
  if (adapter === undefined) checkNoBindOptions(options);
  if (slots) {
    checkIdle(options, notWithSlots, 'slots', 'slots');
    const { addSlots } = await import('./add-slots.js');
    const mode = slots === true ? 'required' : slots;
    return { adapters: [], ...(await addSlots(path, { ...rest, mode })) };
  }
  if (adapter !== undefined) {
    checkIdle(options, notWithAdapter, 'the adapters of a file', 'adapter');
    const { apply } = await import('./apply.js');
    return { ...(await apply(path, adapter, pickOptions(applyOptions, rest))), skipped: [] };
  }
  const { addAdapters } = await import('./add-adapters.js');
  return await addAdapters(path, rest.data === undefined ? rest : withTokenizer(rest, located));
}

/** A slot takes adapters of any rank and structure. */
const notWithSlots = [
  ...Object.keys({ ...shapeOptions, ...headOption }),
  ...[...startDataOptions, 'adapter', 'modelOutput', 'name'],
];

/** The file knows where its adapters belong and what they are like. */
const notWithAdapter = [
  ...Object.keys({ ...adapterOptions, ...headOption }).filter((key) => key !== 'seed'),
  ...[...startDataOptions, 'samples', 'provider', 'modelOutput', 'verify'],
];

/** @throws OnnxLoraError `invalid-argument` for an option that would have no effect */
function checkIdle(
  options: PatchOptions,
  idle: readonly string[],
  what: string,
  instead: 'slots' | 'adapter',
): void {
  const found = idle.find((key) => options[key as keyof PatchOptions] !== undefined);
  if (found === undefined) return;
  throw new OnnxLoraError('invalid-argument', `\`${found}\` has no effect on ${what}`, {
    hint: `Leave it out, or leave \`${instead}\` out to make new adapters.`,
  });
}
