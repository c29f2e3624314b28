/** Finds the layers that the adapters of a file belong to. */
import { OnnxLoraError } from '../errors.js';
import type { AdapterFile, StoredAdapter } from './adapter-file.js';
import type { NewAdapter } from './insert.js';
import { findLayers, type Layer } from './layers.js';
import type { PatchedModel } from './patched.js';
import { nearMisses } from './select.js';

/**
 * Binds every adapter to its layer: by the names of the nodes that it was extracted from, else by
 * module path; in either case the layer must have the adapter's size.
 * @throws OnnxLoraError `adapter-mismatch` naming every adapter without a home
 */
export function bindAdapters(patched: PatchedModel, file: AdapterFile): NewAdapter[] {
  const { model } = patched;
  const layers = findLayers(patched);
  const bound: NewAdapter[] = [];
  const problems: string[] = [];
  for (const adapter of file.adapters) {
    const layer = layerOf(patched, layers, adapter);
    if (typeof layer === 'string') problems.push(`${adapter.record.name} (${layer})`);
    else bound.push({ layer, record: adapter.record, values: adapter.values });
  }
  if (problems.length === 0) return bound;
  const shown = problems.slice(0, 3).join('; ');
  const more = problems.length > 3 ? ` and ${problems.length - 3} more` : '';
  throw new OnnxLoraError(
    'adapter-mismatch',
    `${file.path} does not fit ${model.source.label}: ${problems.length} of ${file.adapters.length} adapters have no layer: ${shown}${more}`,
    {
      hint: 'Adapters fit the model they were trained on. See its layers with: onnx-lora inspect MODEL',
    },
  );
}

function layerOf(
  patched: PatchedModel,
  layers: readonly Layer[],
  { record, nodes }: StoredAdapter,
): Layer | string {
  const wanted = new Set(nodes);
  const isNamed = (layer: Layer) => layer.nodes.some((node) => wanted.has(patched.label(node)));
  const candidates = [
    layers.filter(isNamed),
    layers.filter((l) => l.modules.includes(record.name)),
  ];
  const found = candidates.find((list) => list.length > 0)?.[0];
  if (!found) {
    const near = nearMisses(record.name, layers);
    return `no such layer${near.length > 0 ? `; near: ${near.join(', ')}` : ''}`;
  }
  if (found.refusal !== undefined) return found.refusal;
  const { weight } = found.linear[0]!;
  if (weight.in !== record.in || weight.out !== record.out) {
    return `it is ${record.in} x ${record.out}, the layer is ${weight.in} x ${weight.out}`;
  }
  return isNamed(found) ? only(patched, found, wanted) : found;
}

/** The layer without the nodes that the adapter does not name: adapters made per node. */
function only(patched: PatchedModel, layer: Layer, wanted: ReadonlySet<string>): Layer {
  const kept = layer.nodes.flatMap((node, i) => (wanted.has(patched.label(node)) ? [i] : []));
  const pick = <T>(items: readonly T[]) => kept.map((i) => items[i]!);
  return {
    ...layer,
    modules: pick(layer.modules),
    nodes: pick(layer.nodes),
    nodeNames: pick(layer.nodeNames),
    linear: pick(layer.linear),
  };
}
