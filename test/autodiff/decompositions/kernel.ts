/** A node by ONNX Runtime's own kernel, and the same node by the operators that it is decomposed to. */
import { decompose } from '../../../src/autodiff/decompositions/index.js';
import { OpBuilder } from '../../../src/autodiff/op-builder.js';
import { type Attributes, GraphBuilder } from '../../../src/graph/builder.js';
import { collect } from '../../../src/onnx/edit.js';
import { inferTypes } from '../../../src/runtime/infer-types.js';
import { openSession } from '../../../src/runtime/session.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';

export type Inputs = Readonly<Record<string, TensorValue>>;

export interface MicrosoftNode {
  readonly opType: string;
  /** The operator's inputs in their order: names of `inputs`, an underscore for one that is left out. */
  readonly names: string;
  readonly inputs: Inputs;
  readonly attributes: Attributes;
  readonly outputs: readonly string[];
  /** Sizes that the inputs declare in the place of their own, axis by axis. */
  readonly symbols?: Readonly<Record<string, readonly (string | number)[]>> | undefined;
}

/** The node alone, of com.microsoft. */
export function graphOf({ opType, names, inputs, attributes, outputs, symbols }: MicrosoftNode) {
  const opsets = ['', 'com.microsoft'].map((domain) => ({ domain, version: domain ? 1 : 17 }));
  const graph = new GraphBuilder(opsets, 8);
  for (const [name, { dtype, dims }] of Object.entries(inputs)) {
    graph.reserve(name);
    graph.inputs.push({ name, dtype, shape: [...(symbols?.[name] ?? dims)] });
  }
  const given = names.split(' ').map((name) => (name === '_' ? '' : name));
  const domain = 'com.microsoft';
  graph.add({ name: 'node', opType, domain, inputs: given, outputs, attributes });
  return graph;
}

/** The node's outputs by the kernel. */
export function byKernel(node: MicrosoftNode): Promise<Float32Array[]> {
  return run(graphOf(node), node.inputs, node.outputs);
}

/** The node's outputs by its parts. */
export async function byParts(node: MicrosoftNode): Promise<Float32Array[]> {
  const graph = graphOf(node);
  decompose(graph.nodes[0]!, new OpBuilder(graph, await inferTypes(graph)));
  return run(graph, node.inputs, node.outputs);
}

export async function run(graph: GraphBuilder, inputs: Inputs, outputs: readonly string[]) {
  graph.outputs.length = 0;
  for (const name of outputs) graph.outputs.push({ name, dtype: undefined, shape: null });
  const session = await openSession(await collect(graph.modelPieces()));
  try {
    const results = await session.run(new Map(Object.entries(inputs)));
    return outputs.map((name) => Float32Array.from(results.get(name)!.data as Float32Array));
  } finally {
    await session.release();
  }
}
