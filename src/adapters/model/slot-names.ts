/** The name of a layer's slot, and the graph inputs that feed it. */
import type { Node } from '../../onnx/model.js';
import { uniqueName } from '../targets/module-path.js';
import { exportedBeside } from './exported-adapters.js';
import { findLayers, type Layer } from './layers.js';
import type { PatchedModel } from './patched.js';
import { type Slot, slotDtypes } from './slot-manifest.js';

/** The factors that a slot takes. */
export interface SlotInputs {
  /** [in, rank] */
  readonly a: string;
  /** [rank, out], the scale multiplied in */
  readonly b: string;
}

/**
 * The inputs of a slot: the names that ONNX Runtime GenAI's model builder and Olive give to the
 * parameters of an `.onnx_adapter`, which are fed by name.
 */
export function slotInputs(slot: string): SlotInputs {
  return { a: `${slot}.lora_A.MatMul.weight`, b: `${slot}.lora_B.MatMul.weight` };
}

/** The slot and the factor that a parameter's name says; undefined for another kind of name. */
export function parseSlotInput(name: string): { slot: string; factor: 'a' | 'b' } | undefined {
  const found = /^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.|$)/.exec(name);
  return found ? { slot: found[1]!, factor: found[2] === 'A' ? 'a' : 'b' } : undefined;
}

/**
 * The names of the layers' slots: the module path where one layer has it, else the name of the layer's
 * first node. That is also the name beside an exported adapter, whose tensors are called as the inputs of a
 * slot of the module would be. They depend on the model only, so that adapters written for one choice of layers fit
 * another.
 * @param all every layer of the model
 */
export function slotNames(all: readonly Layer[]): Map<Layer, string> {
  const counts = new Map<string, number>();
  for (const { module } of all) counts.set(module, (counts.get(module) ?? 0) + 1);
  const exported = new Set(all.map(({ module }) => exportedBeside(module)));
  const taken = new Map<string, number>();
  return new Map(
    all.map((layer) => {
      const isAlone = counts.get(layer.module) === 1 && !exported.has(layer.module);
      // Nodes in two branches of an If may have one name.
      return [layer, uniqueName(isAlone ? layer.module : layer.nodeNames[0]!, taken)];
    }),
  );
}

/** Type of the inputs of a layer's slot: what the layer computes in. */
export function slotDtype({ linear }: Layer): Slot['dtype'] {
  // Runtimes have no bfloat16 arrays to feed.
  return slotDtypes.find((known) => known === linear[0]!.weight.dtype) ?? 'float32';
}

/**
 * Which slot an adapter of a model would fill, by its layer's nodes, had the model slots instead: one of
 * a layer, or of a node where the adapter is beside one of several with the same weight.
 */
export function slotFinder(
  patched: PatchedModel,
): (nodes: readonly Node[]) => Pick<Slot, 'name' | 'dtype'> | undefined {
  const ofLayers = slotsByNode(findLayers(patched, false));
  const ofNodes = slotsByNode(findLayers(patched, true));
  return ([first, ...others]) => {
    if (!first) return undefined;
    const shared = ofLayers.get(first);
    const isWhole = shared?.layer.nodes.length === others.length + 1;
    const found =
      isWhole && others.every((node) => ofLayers.get(node) === shared) ? shared : undefined;
    const slot = found ?? (others.length === 0 ? ofNodes.get(first) : undefined);
    return slot && { name: slot.name, dtype: slotDtype(slot.layer) };
  };
}

/** The slot of each node's layer; none where the layer takes no adapter. */
function slotsByNode(layers: readonly Layer[]): Map<Node, { layer: Layer; name: string }> {
  const able = [...slotNames(layers)].filter(([{ linear }]) => linear.length > 0);
  return new Map(
    able.flatMap(([layer, name]) => {
      const slot = { layer, name };
      return layer.nodes.map((node) => [node, slot] as const);
    }),
  );
}
