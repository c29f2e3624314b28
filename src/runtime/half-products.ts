/**
 * MatMulNBits of float16 at accuracy level 4: ONNX Runtime's kernel for CPUs multiplies with activations
 * of 8 bits, and below its highest optimization level it does so with numbers that have nothing to do
 * with the input. It keeps to the weights as they are stored, and to the input, where it may not lay
 * the weights out for that kernel (`session.disable_prepacking`). Level 4 allows 8 bits and does not ask
 * for them.
 */
import { OnnxLoraError } from '../errors.js';
import { findDataType } from '../onnx/dtype.js';
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

/** Whether a model, at a path or in memory, has such nodes. False for what is not a model. */
export function hasHalfProducts(model: string | Uint8Array): boolean {
  const opened = indexed(model);
  if (!opened) return false;
  try {
    const roots = [opened.graph, ...opened.functions.map(({ body }) => body)];
    return roots.some((root) =>
      [...allGraphs(root)].some((graph) => graph.nodes.some((node) => isHalfProduct(node, graph))),
    );
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

function isHalfProduct({ opType, attributes, inputs }: Node, graph: Graph): boolean {
  if (opType !== 'MatMulNBits' || attributes.get('accuracy_level')?.i !== 4) return false;
  const scales = storedIn(graph, inputs[2] ?? '');
  // Of what a function is given, the type is not known here.
  return scales === undefined || findDataType(scales.dataType) !== 'float32';
}

function storedIn(graph: Graph, name: string): Tensor | undefined {
  for (const { initializers } of enclosingGraphs(graph)) {
    const tensor = initializers.get(name);
    if (tensor) return tensor;
  }
  return undefined;
}
