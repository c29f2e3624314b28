import { biasSitesOf } from '../adapters/edit/added-bias.js';
import { detachSites, removeAdded } from '../adapters/edit/detach.js';
import { removeHeads } from '../adapters/edit/head.js';
import { restoreTensors } from '../adapters/edit/replaced.js';
import { type ModelManifest, manifestKey } from '../adapters/model/manifest.js';
import { withModel } from '../adapters/model/opened.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { removeSlots } from '../adapters/slots/remove.js';
import { MessageEdit } from '../onnx/edit.js';
import { resolveOptions } from '../options/resolve.js';
import { onModel } from './model-folder.js';
import { type UnpatchOptions, unpatchOptions } from './options/unpatch.js';
import { defaultOutput, writeModel } from './output.js';

export type { UnpatchOptions };

/** The result of `unpatch`. */
export interface UnpatchResult {
  /** Path of the model without the adapters. */
  readonly output: string;
  /** Names of the adapter sets that were removed. */
  readonly removed: readonly string[];
  /** Number of slots that were removed, where the model had any. */
  readonly slots?: number;
}

/**
 * Takes adapters or slots out of the model at `path`. With all sets removed the result is the base model's
 * file, bit for bit.
 * @throws OnnxLoraError `no-adapter`, `invalid-manifest`, and those of reading and writing
 * @example
 * ```ts
 * import { readFileSync } from 'node:fs';
 * import { unpatch } from 'onnx-lora';
 *
 * const { output } = await unpatch('model.lora.onnx');
 * console.log(readFileSync(output).equals(readFileSync('model.onnx'))); // true
 * ```
 */
export async function unpatch(path: string, given: UnpatchOptions = {}): Promise<UnpatchResult> {
  const options = resolveOptions(unpatchOptions, given, 'unpatch');
  return await onModel(path, options, 'base', ({ file }, options) => unpatchFile(file, options));
}

async function unpatchFile(path: string, options: UnpatchOptions): Promise<UnpatchResult> {
  return await withModel(path, async ({ model, patched }) => {
    const { slots } = patched;
    const isSlotted = slots !== undefined && options.name === undefined;
    const sets = isSlotted ? [] : patched.chosenSets(options.name);
    const edit = new MessageEdit(model.source, model.range);
    removeSlots(patched, edit);
    removeAdapters(patched, sets, edit);
    removeHeads(patched, sets, edit);
    removeBiases(patched, sets, edit);
    restoreTensors(patched, sets, edit);
    const output = options.output ?? defaultOutput(path, 'base');
    const isBase = sets.length === patched.sets.length;
    await writeModel(model, edit, output, options, { naming: isBase ? 'restore' : 'remember' });
    const removed = sets.map(({ set }) => set);
    return { output, removed, ...(slots ? { slots: slots.slots.length } : {}) };
  });
}

/** Removes the biases that came with sets. */
export function removeBiases(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  detachSites(patched, biasSitesOf(patched, sets), edit);
  const names = new Set(sets.flatMap(({ biases = [] }) => biases.map(({ tensor }) => tensor)));
  removeAdded(patched, names, new Set(), edit);
}

/** Removes the nodes, initializers and manifests of adapter sets, and gives outputs their names back. */
export function removeAdapters(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  const sites = patched.sites.filter(({ set }) => sets.includes(set));
  detachSites(patched, sites, edit);
  const names = new Set(sets.flatMap(({ initializers }) => initializers));
  removeAdded(patched, names, new Set(sets.map(({ set }) => manifestKey(set))), edit);
}
