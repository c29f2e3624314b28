/**
 * Weights that the model dequantizes, dequantized anew for the backward pass: kept from the forward pass,
 * the float copies of all weights would be in memory at once. It takes time that small models need not
 * pay: a tenth of a step of 256 rows.
 */
import type { GraphBuilder } from '../graph/builder.js';
import type { NewNode } from '../onnx/encode.js';
import { elementCount } from '../onnx/model.js';

const KEPT_BYTES = 512 * 1024 ** 2;

/**
 * @param forward the values that the forward pass computes; nodes of others read the copies
 * @param kept how many bytes of floats may stay in memory
 */
export function dequantizeAgain(
  graph: GraphBuilder,
  forward: ReadonlySet<string>,
  kept = KEPT_BYTES,
): void {
  const weights = new Map<string, NewNode>();
  for (const node of graph.nodes) {
    if (isWeight(graph, node) && forward.has(node.outputs[0]!)) weights.set(node.outputs[0]!, node);
  }
  if (floatBytes(graph, weights.values()) <= kept) return;
  const copies = new Map<string, NewNode>();
  const copied = (name: string) => {
    const weight = weights.get(name);
    if (!weight) return name;
    const copy = copies.get(name) ?? copyOf(graph, weight);
    copies.set(name, copy);
    return copy.outputs[0]!;
  };
  for (const [i, node] of [...graph.nodes.entries()]) {
    if (forward.has(node.outputs[0]!) || !node.inputs.some((name) => weights.has(name))) continue;
    graph.nodes[i] = { ...node, inputs: node.inputs.map(copied) };
  }
  graph.nodes.unshift(...copies.values());
}

function isWeight(graph: GraphBuilder, { opType, domain = '', inputs }: NewNode): boolean {
  if (opType !== 'DequantizeLinear' || !['', 'com.microsoft'].includes(domain)) return false;
  return inputs.every((name) => name === '' || graph.initializers.has(name));
}

function floatBytes(graph: GraphBuilder, weights: Iterable<NewNode>): number {
  let bytes = 0;
  for (const { inputs } of weights) {
    bytes += 4 * elementCount(graph.initializers.get(inputs[0]!)!.dims);
  }
  return bytes;
}

/** With scales of another name: ONNX Runtime makes one node of two that read the same. */
function copyOf(graph: GraphBuilder, node: NewNode): NewNode {
  const [codes, scales, ...others] = node.inputs;
  const name = graph.fresh(`${scales}/again`);
  graph.addInitializer({ ...graph.initializers.get(scales!)!, name });
  const output = graph.fresh(`${node.outputs[0]}/again`);
  return { ...node, name: output, inputs: [codes!, name, ...others], outputs: [output] };
}
