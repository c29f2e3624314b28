/** Places that adapters of a kind can take. */
import { OnnxLoraError } from '../../errors.js';
import { nodeLabel } from '../../onnx/model.js';
import { type Layer, multiplying } from '../model/layers.js';
import type { PatchedModel } from '../model/patched.js';
import type { LinearLayer } from '../targets/index.js';
import { kindOf } from './index.js';
import type { AdapterKind } from './kind.js';

/**
 * Refuses adapters that read their layer's weight where it is packed, or where other adapters stand, and
 * others beside them.
 * @throws OnnxLoraError `unsupported`
 */
export function checkPlace(patched: PatchedModel, layer: Layer, kind: AdapterKind): void {
  for (const linear of layer.linear) {
    const { node, weight } = linear;
    const others = patched.sites.filter(({ target }) => target === node);
    const reading = others.find(({ adapter }) => kindOf(adapter).readsWeight);
    if (reading) throw notAlone(patched, node, reading.set.set, kindOf(reading.adapter));
    if (!kind.readsWeight) continue;
    if (others[0]) throw notAlone(patched, node, others[0].set.set, kind);
    if (!weight.constant) throw packed(multiplying(linear), kind);
  }
}

function packed(node: LinearLayer['node'], { label, readsWeight }: AdapterKind): OnnxLoraError {
  const name = nodeLabel(node);
  return new OnnxLoraError(
    'unsupported',
    `${name}: its weight is packed inside ${node.opType}, and ${readsWeight!.needs}`,
    { node: name, hint: `Use a model whose weights are not packed, or LoRA instead of ${label}.` },
  );
}

function notAlone(
  { model }: PatchedModel,
  node: LinearLayer['node'],
  set: string,
  { readsWeight }: AdapterKind,
): OnnxLoraError {
  const label = nodeLabel(node);
  return new OnnxLoraError(
    'unsupported',
    `${model.source.label}: ${label} has an adapter of the set ${JSON.stringify(set)}, and ${readsWeight!.alone}`,
    {
      node: label,
      hint: `Fold that set first: \`merge(model, { name: ${JSON.stringify(set)} })\``,
    },
  );
}
