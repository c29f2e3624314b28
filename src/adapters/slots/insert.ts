/** Slots: places beside a model's layers that take their adapters as graph inputs, run by run. */

import { OnnxLoraError } from '../../errors.js';
import { NameAuthority } from '../../graph/names.js';
import { MessageEdit } from '../../onnx/edit.js';
import { initializerRecord, inputRecord, metadataRecord } from '../../onnx/encode.js';
import { addInitializer } from '../../onnx/rewrite.js';
import { version } from '../../version.js';
import { attachSubgraph, type EditedModel } from '../edit/attach.js';
import { checkOpset } from '../edit/insert.js';
import { lora } from '../kinds/lora.js';
import type { Layer } from '../model/layers.js';
import type { PatchedModel } from '../model/patched.js';
import { encodeSlots, type Slot, type SlotManifest, slotsKey } from '../model/slot-manifest.js';
import { slotDtype, slotInputs } from '../model/slot-names.js';
import type { SlotMode } from '../structure/choices.js';
import { OPEN_RANK, type Structure } from '../structure/structure.js';

/** An edit that inserts slots, and the manifest it leaves in the model. */
export interface SlotInsertion {
  readonly edit: MessageEdit;
  readonly manifest: SlotManifest;
}

/**
 * Gives every layer a slot: `Y + (X · A) · B` with A [in, rank] and B [rank, out] as graph inputs whose
 * rank is open. With a rank of 0 the model computes what it did before.
 *
 * A slot is plain LoRA whatever the adapters are, because only plain factors can be put side by side:
 * blocks come as factors with zeros around them.
 * @param layers with the name of each one's slot
 * @throws OnnxLoraError `invalid-argument` for a model that has adapters or slots already,
 * `unsupported` for an opset below 7
 */
export function insertSlots(
  patched: PatchedModel,
  layers: ReadonlyMap<Layer, string>,
  mode: SlotMode,
): SlotInsertion {
  checkUnadapted(patched);
  checkOpset(patched.model);
  const edit = new MessageEdit(patched.model.source, patched.model.range);
  const model = { patched, edit, names: new NameAuthority(patched.model) };
  const initializers: string[] = [];
  const manifest: SlotManifest = {
    version: 1,
    createdBy: `onnx-lora ${version}`,
    mode,
    slots: [...layers].map(([layer, name]) => insertSlot(model, layer, name, mode, initializers)),
    initializers,
  };
  edit.append(...metadataRecord(slotsKey, encodeSlots(manifest)));
  return { edit, manifest };
}

function checkUnadapted({ sets, slots, model }: PatchedModel): void {
  if (slots === undefined && sets.length === 0) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `${model.source.label} has ${slots ? 'slots' : `adapters (${sets.map(({ set }) => set).join(', ')})`} already, expected a model without`,
    {
      hint: slots
        ? 'Take them out first with: `unpatch(model)`'
        : 'Extract the adapters and go back to the base (unpatch), or fold them into it (merge).',
    },
  );
}

function insertSlot(
  model: EditedModel,
  layer: Layer,
  name: string,
  mode: SlotMode,
  initializers: string[],
): Slot {
  const { weight } = layer.linear[0]!;
  const structure: Structure = {
    structure: 'global',
    ...{ grid: [1, 1], blockRank: OPEN_RANK, hybridRank: 0, in: weight.in, out: weight.out },
  };
  const dtype = slotDtype(layer);
  const { patched, edit, names } = model;
  const wanted = slotInputs(name);
  const slot = { a: names.fresh(wanted.a), b: names.fresh(wanted.b), dtype };
  const graph = edit.child(patched.model.graph.field);
  // Of its own in each slot: adapters have different ranks in different layers.
  const rank = names.fresh(`${name}.lora_rank`);
  graph.append(...inputRecord(slot.a, dtype, [weight.in, rank]));
  graph.append(...inputRecord(slot.b, dtype, [rank, weight.out]));
  if (mode === 'optional') {
    const data = new Uint8Array();
    graph.append(...initializerRecord({ name: slot.a, dtype, dims: [weight.in, 0], data }));
    graph.append(...initializerRecord({ name: slot.b, dtype, dims: [0, weight.out], data }));
    initializers.push(slot.a, slot.b);
  }
  const sites = layer.linear.map((linear, i) => {
    const prefix = `lora/slots/${i === 0 ? name : layer.modules[i]}`;
    const adapter = { kind: lora, structure, tensors: slot, prefix };
    const { site, constants } = attachSubgraph(model, linear, adapter);
    for (const constant of constants) addInitializer(edit, patched.model, constant);
    initializers.push(...constants.map((constant) => constant.name));
    return site;
  });
  return { name, in: weight.in, out: weight.out, ...slot, sites };
}
