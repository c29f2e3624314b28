/** The nodes of a model that ONNX Runtime is about to load, at a path or in memory. */
import { OnnxLoraError } from '../errors.js';
import {
  allGraphs,
  enclosingGraphs,
  type Graph,
  type Model,
  type Node,
  type Tensor,
} from '../onnx/model.js';
import { openModel, parseModel } from '../onnx/parse.js';
import { MemorySource } from '../onnx/source.js';

/** Calls `visit` with every node, those of bodies and functions as well; never for what is not a model. */
export function visitNodes(
  model: string | Uint8Array,
  visit: (node: Node, graph: Graph) => void,
): void {
  const opened = indexed(model);
  if (!opened) return;
  try {
    for (const root of [opened.graph, ...opened.functions.map(({ body }) => body)]) {
      for (const graph of allGraphs(root)) for (const node of graph.nodes) visit(node, graph);
    }
  } finally {
    opened.close();
  }
}

function indexed(model: string | Uint8Array): Model | undefined {
  try {
    return typeof model === 'string' ? openModel(model) : parseModel(new MemorySource(model));
  } catch (error) {
    // ONNX Runtime says better what is wrong with it.
    if (error instanceof OnnxLoraError) return undefined;
    throw error;
  }
}

/** The initializer that a name means inside `graph`. */
export function storedIn(graph: Graph, name: string): Tensor | undefined {
  for (const { initializers } of enclosingGraphs(graph)) {
    const tensor = initializers.get(name);
    if (tensor) return tensor;
  }
  return undefined;
}
