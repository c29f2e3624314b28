/** Shared by losses of single numbers: a target in the shape of the output, and the mean over all. */
import type { GraphBuilder } from '../../graph/builder.js';
import type { DataTypeName } from '../../onnx/dtype.js';
import type { AddInput, Logits } from './loss.js';
import { cast, reduce } from './operators.js';

/**
 * The input `name` in the type and shape of `logits`. Where the last axis has size 1 the data may
 * leave it out; a broadcast of [batch, 1] against [batch] would compare each with all.
 */
export function targetLike(
  graph: GraphBuilder,
  { name: z, dtype, shape }: Logits,
  addInput: AddInput,
  name: string,
  type: DataTypeName,
): string {
  const target = addInput(name, type, shape?.at(-1) === 1 ? null : shape);
  const numbers = type === dtype ? target : cast(graph, target, dtype);
  return graph.op('Reshape', [numbers, graph.op('Shape', [z])]);
}

/** The number of elements of `logits`, as a float. */
export function elementsOf(graph: GraphBuilder, { name, dtype }: Logits): string {
  return cast(graph, reduce(graph, 'ReduceProd', graph.op('Shape', [name])), dtype);
}
