/** Puts the nodes of an adapter after one node of its layer, after the bias that is added to it, or before it. */
import type { NameAuthority } from '../../graph/names.js';
import type { MessageEdit } from '../../onnx/edit.js';
import { type NewTensor, nodeRecord } from '../../onnx/encode.js';
import { type Node, standardOpset } from '../../onnx/model.js';
import { graphEdit } from '../../onnx/rewrite.js';
import { encodeString } from '../../onnx/wire.js';
import type { AdapterKind } from '../kinds/kind.js';
import type { Site } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import type { Structure } from '../structure/structure.js';
import { adapterSubgraph } from '../subgraph/subgraph.js';
import type { AdapterTensors } from '../subgraph/tensors.js';
import { isOpen, type LinearLayer, type OpenLayer } from '../targets/index.js';
import { joinedSum } from './bias-sum.js';

/** A model that is being edited. */
export interface EditedModel {
  readonly patched: PatchedModel;
  readonly edit: MessageEdit;
  readonly names: NameAuthority;
}

/** The place of an adapter among those that one edit puts after a node; each adds to the one before. */
export interface Turn {
  /** The output of the adapter before it; undefined for the first one. */
  readonly after: string | undefined;
  readonly isLast: boolean;
}

const ALONE: Turn = { after: undefined, isLast: true };

/** The adapter to attach. */
export interface AttachedAdapter {
  readonly kind: AdapterKind;
  readonly structure: Structure;
  readonly tensors: AdapterTensors;
  /** Of the names of its nodes. */
  readonly prefix: string;
}

/** An adapter in its place: the site for the manifest, the constants that its nodes read, what its Add gives. */
export interface Attached {
  readonly site: Site;
  readonly constants: readonly NewTensor[];
  readonly output: string;
}

/** Lets an adapter join the output of a layer, or the weight of one whose output the graph does not show. */
export function attachSubgraph(
  edited: EditedModel,
  linear: LinearLayer,
  adapter: AttachedAdapter,
  turn: Turn = ALONE,
): Attached {
  return isOpen(linear)
    ? joinOutput(edited, linear, adapter, turn)
    : joinWeight(edited, linear, adapter, turn);
}

/**
 * The last node that carries the layer's output gets another output name, and the adapter's Add the
 * one that it had.
 */
function joinOutput(
  { patched, edit, names }: EditedModel,
  linear: OpenLayer,
  { kind, structure, tensors, prefix }: AttachedAdapter,
  { after, isLast }: Turn,
): Attached {
  const { anchor, product } = placeOf(patched, linear, kind);
  const output = isLast ? anchor.outputs[0]! : names.fresh(`${prefix}/output`);
  const base = after ?? names.fresh(`${prefix}/base`);
  const context = { names, opset: standardOpset(patched.model) };
  const place = { layer: linear, structure, tensors, base };
  const { nodes, constants } = adapterSubgraph(kind.change, place, { prefix, output }, context);
  const graph = graphEdit(edit, anchor.graph);
  if (after === undefined) {
    graph.child(anchor.field).setPayload(anchor.outputFields[0]!, encodeString(base));
  }
  for (const node of nodes) graph.insertAfter(anchor.field, ...nodeRecord(node));
  const added = nodes.map(({ name }) => name);
  const label = patched.label(linear.node, linear.product?.node);
  const site = { node: label, base, nodes: added };
  return { site: product === undefined ? site : { ...site, product }, constants, output };
}

/** The layer's node reads what the adapter's Add gives, in the place of the weight. */
function joinWeight(
  { patched, edit, names }: EditedModel,
  layer: LinearLayer,
  { kind, structure, tensors, prefix }: AttachedAdapter,
  { after, isLast }: Turn,
): Attached {
  const { node, weight } = layer;
  const { input } = weight;
  const base = after ?? node.inputs[input]!;
  const output = names.fresh(`${prefix}/weight`);
  const context = { names, opset: standardOpset(patched.model) };
  const place = { layer, structure, tensors, base };
  const at = { prefix, output };
  const { nodes, constants } = adapterSubgraph(kind.weightChange, place, at, context);
  const graph = graphEdit(edit, node.graph);
  for (const one of nodes) graph.insertBefore(node.field, ...nodeRecord(one));
  if (isLast) graph.child(node.field).setPayload(node.inputFields[input]!, encodeString(output));
  const added = nodes.map(({ name }) => name);
  const site = { node: patched.label(node), base: weight.name, input, nodes: added };
  return { site, constants, output };
}

/** The node that an adapter joins after, and the layer's own output where that is another node's. */
function placeOf(
  patched: PatchedModel,
  linear: OpenLayer,
  { changesProduct }: AdapterKind,
): { anchor: Node; product?: string | undefined } {
  const { model, values } = patched;
  const [earlier] = patched.sitesBeside(linear.node);
  if (earlier) return { anchor: patched.outermost(linear.node), product: earlier.site.product };
  const sum = changesProduct ? undefined : joinedSum(model, values, linear);
  return sum ? { anchor: sum, product: linear.output } : { anchor: linear.node };
}
