/**
 * Biases that a model does not have: exporters leave out biases of zeros, and a classifier that starts with
 * one is trained away from it. An Add after the layer's node takes over the name of its output.
 */
import { OnnxLoraError } from '../../errors.js';
import { byteLength, type FloatName } from '../../onnx/dtype.js';
import { nodeRecord } from '../../onnx/encode.js';
import { type Node, nodeLabel } from '../../onnx/model.js';
import { addInitializer, graphEdit } from '../../onnx/rewrite.js';
import { encodeString } from '../../onnx/wire.js';
import type { AddedBias, ModelManifest } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import { finiteBytes } from '../structure/finite.js';
import type { EditedModel } from './attach.js';

/** A bias to insert. */
export interface NewBias {
  /** The layer's node, whose features lie along the last axis. */
  readonly node: Node;
  /** The name of the tensor, if it is free. */
  readonly name: string;
  /** Type of the stored numbers. */
  readonly dtype: FloatName;
  /** Number of elements: the layer's output features. */
  readonly size: number;
  /** Its numbers, `size` of them. */
  values(): Float64Array;
}

/**
 * Inserts a bias.
 * @throws OnnxLoraError `unsupported` where an adapter or another bias is attached to the layer
 */
export function insertBias({ patched, edit, names }: EditedModel, bias: NewBias): AddedBias {
  const { node, dtype, size } = bias;
  checkBare(patched, node);
  const tensor = names.fresh(bias.name);
  const chunks = () => [finiteBytes(dtype, bias.values(), tensor)];
  const data = { length: byteLength(dtype, size), chunks };
  addInitializer(edit, patched.model, { name: tensor, dtype, dims: [size], data });
  const base = names.fresh(`${tensor}/base`);
  const name = names.fresh(`${tensor}/add`);
  const graph = graphEdit(edit, node.graph);
  graph.child(node.field).setPayload(node.outputFields[0]!, encodeString(base));
  const add = { name, opType: 'Add', inputs: [base, tensor], outputs: [node.outputs[0]!] };
  graph.insertAfter(node.field, ...nodeRecord(add));
  return { tensor, site: { node: nodeLabel(node), base, nodes: [name] } };
}

function checkBare({ sites, biasSites, model }: PatchedModel, node: Node): void {
  if (![...sites, ...biasSites].some(({ target }) => target === node)) return;
  const label = nodeLabel(node);
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label}: a bias is to be added to ${label}, which carries adapters or a new bias already`,
    { node: label, hint: 'Fold those first: `merge(model)`' },
  );
}

/**
 * The sites of biases that sets brought.
 * @throws OnnxLoraError `unsupported` where an adapter of another set stands on one
 */
export function biasSitesOf(patched: PatchedModel, sets: readonly ModelManifest[]) {
  const leaving = patched.biasSites.filter(({ set }) => sets.includes(set));
  const targets = new Set(leaving.map(({ target }) => target));
  const above = patched.sites.find(({ set, target }) => !sets.includes(set) && targets.has(target));
  if (!above) return leaving;
  throw new OnnxLoraError(
    'unsupported',
    `${patched.model.source.label}: the adapter set ${JSON.stringify(above.set.set)} stands on a bias of the set that is to be taken out`,
    { node: above.site.node, hint: 'Take that set out as well, or first.' },
  );
}
