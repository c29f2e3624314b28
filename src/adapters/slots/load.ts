/** Adapters of a file as the slots of a model take them. */

import { OnnxLoraError } from '../../errors.js';
import type { Floats } from '../../linalg/products.js';
import type { Node } from '../../onnx/model.js';
import { bindAdapters } from '../binding/bind.js';
import { factorsOf, type NewAdapter } from '../factors/factors.js';
import { joinParts } from '../factors/join-parts.js';
import type { Factors } from '../factors/norms.js';
import { openAdapter } from '../files/open-adapter.js';
import { kindOf } from '../kinds/index.js';
import type { PatchedModel } from '../model/patched.js';
import type { Slot } from '../model/slot-manifest.js';
import { type Structure, structureOf } from '../structure/structure.js';

/** The factors of an adapter for one layer: as compact as in its file, with the scale multiplied into B. */
export interface SlotAdapter {
  readonly structure: Structure;
  readonly factors: Factors;
}

/** The layers that an adapter changes; it leaves the other slots empty. */
export type SlotAdapters = ReadonlyMap<Slot, SlotAdapter>;

/**
 * Reads the adapters at `path`, of any format, for the slots of a model.
 * @throws OnnxLoraError `adapter-mismatch` naming the layers that the model does not have, or has no
 * slot for; `unsupported` for adapters that change more than slots take: DoRA, heads, trained tensors;
 * those of reading
 */
export function loadAdapter(patched: PatchedModel, path: string): SlotAdapters {
  const file = openAdapter(path);
  try {
    const { adapters: bound, extras } = bindAdapters(patched, file);
    const adapters = joinParts(
      bound,
      ({ layer }) => layer.nodes[0],
      ({ layer }) => layer.module,
    );
    if (extras.head) throw refusal(path, 'a head');
    if (extras.tensors?.length) throw refusal(path, 'trained tensors of the model');
    const byTarget = patched.slotsByTarget();
    const homes = adapters.map((adapter) => [adapter, slotsOf(byTarget, adapter)] as const);
    const homeless = homes.flatMap(([{ record }, found]) => (found ? [] : [record.name]));
    if (homeless.length > 0) throw noSlot(path, patched.model.source.label, homeless);
    return new Map(
      homes.flatMap(([adapter, found]) => {
        const read = readAdapter(path, adapter);
        return found!.map((slot) => [slot, read] as const);
      }),
    );
  } finally {
    file.close();
  }
}

/** The slots that stand beside the adapter's nodes and no others; undefined where a node has none. */
function slotsOf(byTarget: ReadonlyMap<Node, Slot>, { layer }: NewAdapter): Slot[] | undefined {
  const counts = new Map<Slot | undefined, number>();
  for (const node of layer.nodes) {
    const slot = byTarget.get(node);
    counts.set(slot, (counts.get(slot) ?? 0) + 1);
  }
  const within = [...counts].flatMap(([slot, count]) =>
    slot && slot.sites.length === count ? [slot] : [],
  );
  return within.length === counts.size ? within : undefined;
}

function readAdapter(path: string, adapter: NewAdapter): SlotAdapter {
  const { record, layer } = adapter;
  const { beyondFactors } = kindOf(record);
  if (beyondFactors) throw refusal(path, `${beyondFactors} for ${record.name}`);
  // Adapters are trained in float32: twice the width would only be twice the memory.
  const isDouble = layer.linear[0]!.weight.dtype === 'float64';
  const compact = (values: Floats) => (isDouble ? values : new Float32Array(values));
  const scaled = (values: Floats) => compact(values.map((value) => value * record.scale));
  const { a, b, generalA, generalB } = factorsOf(adapter);
  const factors = {
    a: compact(a),
    b: scaled(b),
    ...(generalA && generalB ? { generalA: compact(generalA), generalB: scaled(generalB) } : {}),
  };
  return { structure: structureOf(record), factors };
}

function refusal(path: string, what: string): OnnxLoraError {
  return new OnnxLoraError('unsupported', `${path} has ${what}, and slots take A and B only`, {
    hint: 'Fold it into the base model instead: `merge(model, { adapter: PATH })`',
  });
}

function noSlot(path: string, model: string, layers: readonly string[]): OnnxLoraError {
  const shown = layers.slice(0, 3).join(', ');
  const more = layers.length > 3 ? ` and ${layers.length - 3} more` : '';
  return new OnnxLoraError(
    'adapter-mismatch',
    `${path} does not fit ${model}: it has no slot for ${shown}${more}`,
    {
      hint: 'Slots are beside the layers that `targets` chose: patch the base with more of them.',
    },
  );
}
