/** Slots: graph inputs that take adapters run by run. */

import { type ParameterShare, parameterShare, parametersOf } from '../adapters/kinds/summary.js';
import type { Layer } from '../adapters/model/layers.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import { slotNames } from '../adapters/model/slot-names.js';
import { emptyFeeds } from '../adapters/slots/feeds.js';
import { insertSlots } from '../adapters/slots/insert.js';
import { type SlotSummary, slotSummary } from '../adapters/slots/summary.js';
import type { SlotMode } from '../adapters/structure/choices.js';
import { isOpen } from '../adapters/targets/index.js';
import type { ResolvedOf } from '../options/option.js';
import { resolveOptions } from '../options/resolve.js';
import { startTolerance } from '../runtime/tolerance.js';
import type { Verification } from '../runtime/verification.js';
import { apart, runsApart } from './apart.js';
import { chooseLayers, type Skipped } from './chosen-layers.js';
import { onModel } from './model-folder.js';
import { type AddSlotsOptions, slotOptions } from './options/slots.js';
import { defaultOutput, writeModel } from './output.js';

export type { AddSlotsOptions };

type Options = ResolvedOf<typeof slotOptions>;

/** The result of `addSlots`. */
export interface AddSlotsResult {
  /** Path of the model with slots. */
  readonly output: string;
  /** The slots, in the order of the model. */
  readonly slots: readonly SlotSummary[];
  /** Nodes that were chosen and take none, and why. */
  readonly skipped: readonly Skipped[];
  /** The parameters of the model; none of them trains, because adapters are fed. */
  readonly parameters: ParameterShare;
  /** The comparison with the base model, unless that was left out. */
  readonly verification?: Verification;
}

/**
 * Inserts slots into the model at `path` and writes the slotted model. Each layer that is chosen takes the
 * factors A [in, rank] and B [rank, out] as inputs; with empty ones it computes what the base model does.
 * @throws OnnxLoraError `no-target`, `no-match`, `invalid-argument`, and those of reading and writing
 * @example
 * ```ts
 * import { addSlots } from 'onnx-lora';
 *
 * const { output, slots } = await addSlots('model.onnx', { targets: ['query'], verify: true });
 * for (const { a, b } of slots) console.log(`${output} takes ${a} and ${b}`);
 * ```
 */
export async function addSlots(path: string, given: AddSlotsOptions = {}): Promise<AddSlotsResult> {
  const options = resolveOptions(slotOptions, given, 'addSlots');
  return await onModel(path, options, 'slots', ({ file }, options) => slotsInFile(file, options));
}

async function slotsInFile(path: string, options: Options): Promise<AddSlotsResult> {
  if (!options.verify || !runsApart(path)) return await addSlotsHere(path, options);
  return await apart({
    work: 'add-slots',
    paths: [path],
    options,
    label: `the run of ${path}`,
    advice: () => 'Then add the slots again.',
    stop: 'ask',
  });
}

/** As `addSlots`, in this process. */
export async function addSlotsHere(path: string, options: Options): Promise<AddSlotsResult> {
  const { mode } = options;
  return await withModel(path, async (opened) => {
    const { result, slots } = await insertNewSlots(opened, path, mode, options);
    if (!options.verify) return result;
    const ownFeeds = mode === 'required' ? emptyFeeds(slots, options.provider) : undefined;
    const candidate = { path: result.output, ownFeeds };
    const exactly = { ...options, tolerance: startTolerance(opened.model) };
    const { verifyOn } = await import('./verify.js');
    const verification = await verifyOn(opened.model, { path }, candidate, exactly);
    return { ...result, verification };
  });
}

/** A slot adds to a layer's output. */
function slottable(layer: Layer): Layer {
  const inside = layer.linear.find((linear) => !isOpen(linear));
  if (!inside) return layer;
  const refusal = `its product is inside ${inside.node.opType}, where a slot has no output to add to: adapters join its weight (patch without slots), or start from the model before this fusion`;
  return { ...layer, linear: [], refusal };
}

async function insertNewSlots(
  { model, patched }: OpenedModel,
  path: string,
  mode: SlotMode,
  options: Options,
) {
  const { layers, all, skipped } = chooseLayers(patched, options, (all) => all.map(slottable));
  const names = slotNames(all);
  const chosen = new Map(layers.map((layer) => [layer, names.get(layer)!]));
  const { edit, manifest } = insertSlots(patched, chosen, mode);
  const output = options.output ?? defaultOutput(path, 'slots');
  await writeModel(model, edit, output, options);
  const { slots } = manifest;
  const parameters = parameterShare(0, parametersOf(model));
  return { result: { output, slots: slots.map(slotSummary), skipped, parameters }, slots };
}
