/** Puts the nodes of an adapter behind one node of its layer, below the name that consumers read. */
import type { NameAuthority } from '../graph/names.js';
import type { MessageEdit } from '../onnx/edit.js';
import { type NewTensor, nodeRecord } from '../onnx/encode.js';
import { standardOpset } from '../onnx/model.js';
import { graphEdit } from '../onnx/rewrite.js';
import { encodeString } from '../onnx/wire.js';
import type { Site } from './manifest.js';
import type { PatchedModel } from './patched.js';
import type { Structure } from './structure.js';
import { type AdapterTensors, adapterSubgraph } from './subgraph/subgraph.js';
import type { LinearLayer } from './targets/index.js';

/** A model that is being edited. */
export interface EditedModel {
  readonly patched: PatchedModel;
  readonly edit: MessageEdit;
  readonly names: NameAuthority;
}

/**
 * The last node that carries the layer's output gets another output name, and the adapter's Add the
 * one that it had.
 * @returns the site for the manifest, and the constants that its nodes read
 */
export function attachSubgraph(
  { patched, edit, names }: EditedModel,
  linear: LinearLayer,
  structure: Structure,
  tensors: AdapterTensors,
  prefix: string,
): { site: Site; constants: readonly NewTensor[] } {
  const anchor = patched.outermost(linear.node);
  const output = anchor === linear.node ? linear.output : anchor.outputs[0]!;
  const base = names.fresh(`${prefix}/base`);
  const context = { names, opset: standardOpset(patched.model) };
  const at = { prefix, base, output };
  const { nodes, constants } = adapterSubgraph(linear, structure, tensors, at, context);
  const graph = graphEdit(edit, anchor.graph);
  const field = anchor.outputFields[anchor.outputs.indexOf(output)]!;
  graph.child(anchor.field).setPayload(field, encodeString(base));
  for (const node of nodes) graph.insertAfter(anchor.field, ...nodeRecord(node));
  const added = nodes.map(({ name }) => name);
  return { site: { node: patched.label(linear.node), base, nodes: added }, constants };
}
