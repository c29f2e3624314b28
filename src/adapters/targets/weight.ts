import { type Constant, isComputing, traceConstant, traceWeight } from '../../graph/constants.js';
import type { ValueIndex } from '../../graph/uses.js';
import { findDataType, isConvertible } from '../../onnx/dtype.js';
import type { Node } from '../../onnx/model.js';
import { fitsItsData } from '../../onnx/tensor.js';
import type { Weight } from './target.js';

/** An operator's use of its weight input. */
export interface WeightUse {
  readonly input: number;
  /** The value that the node reads is `[out, in]`. */
  readonly transposed: boolean;
  readonly factor: number;
  /** Trailing axes of size 1 after the matrix: the kernel of a 1x1 convolution. */
  readonly kernelAxes?: number;
}

/** The weight of an input of a node, or the reason why it cannot take an adapter. */
export function findWeight(values: ValueIndex, node: Node, use: WeightUse): Weight | string {
  const name = node.inputs[use.input]!;
  const constant = traceWeight(values, node.graph, name);
  if (!constant) return `its weight ${name} is computed, not constant`;
  const { tensor, dims, dtype } = constant;
  const matrix = dims.slice(0, 2);
  if (dims.length !== 2 + (use.kernelAxes ?? 0)) {
    return `its weight ${name} has the shape [${dims.join(', ')}], expected a matrix`;
  }
  if (matrix.includes(0)) return `its weight ${name} is empty: [${dims.join(', ')}]`;
  if (!fitsItsData(tensor)) {
    return `its weight ${name} has fewer numbers than its shape [${tensor.dims.join(', ')}] says`;
  }
  if (tensor.data.kind === 'segmented') return `its weight ${name} is stored in segments`;
  if (!dtype || !isConvertible(dtype)) {
    return `its weight ${name} is ${dtype ?? `of unknown type ${tensor.dataType}`}, expected floating point`;
  }
  if (use.factor === 0) return 'its alpha is 0, so the weight has no effect';
  const [rows, columns] = matrix as [number, number];
  const swaps = constant.steps.filter((step) => step.opType === 'Transpose').length;
  return {
    name,
    input: use.input,
    constant,
    in: use.transposed ? columns : rows,
    out: use.transposed ? rows : columns,
    transposed: use.transposed !== (swaps % 2 === 1),
    storedDtype: findDataType(tensor.dataType) ?? dtype,
    dtype,
    factor: use.factor,
  };
}

/** Whether an input of the node is constant. */
export function constantInput(values: ValueIndex, node: Node, input: number): Constant | undefined {
  return traceConstant(values, node.graph, node.inputs[input] ?? '');
}

/** The weight of a node, computed of constants or stored. */
export function weightInput(values: ValueIndex, node: Node, input: number): Constant | undefined {
  return traceWeight(values, node.graph, node.inputs[input] ?? '');
}

/** Whether a weight is computed of what is stored: dequantized, or scaled. */
export function isComputed({ constant }: Weight): boolean {
  return constant?.steps.some(isComputing) ?? false;
}

/** Whether the operator reads its weight from a DequantizeLinear. */
export function isDequantized({ constant }: Weight): boolean {
  return constant?.steps.some(({ opType }) => opType === 'DequantizeLinear') ?? false;
}
