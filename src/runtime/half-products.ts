/**
 * MatMulNBits of float16 at accuracy level 4: ONNX Runtime's kernel for CPUs multiplies with activations
 * of 8 bits, and below its highest optimization level it does so with numbers that have nothing to do
 * with the input. It keeps to the weights as they are stored, and to the input, where it may not lay
 * the weights out for that kernel (`session.disable_prepacking`). Level 4 allows 8 bits and does not ask
 * for them.
 */
import { findDataType } from '../onnx/dtype.js';
import type { Graph, Node } from '../onnx/model.js';
import { storedIn } from './model-nodes.js';

/** Whether a node is one of these; of what a function is given, the type is not known, so that it may be. */
export function isHalfProduct({ opType, attributes, inputs }: Node, graph: Graph): boolean {
  if (opType !== 'MatMulNBits' || attributes.get('accuracy_level')?.i !== 4) return false;
  const scales = storedIn(graph, inputs[2] ?? '');
  return scales === undefined || findDataType(scales.dataType) !== 'float32';
}
