import {
  type Constant,
  isMadeOfConstants,
  MAX_WEIGHT_STEPS,
  swapsOf,
  traceConstant,
  traceWeight,
} from '../../graph/constants.js';
import type { ValueIndex } from '../../graph/uses.js';
import { findDataType, isConvertible } from '../../onnx/dtype.js';
import type { Node } from '../../onnx/model.js';
import { fitsItsData } from '../../onnx/tensor.js';
import type { Weight } from './target.js';

/** An operator's use of its weight input. */
export interface WeightUse {
  readonly input: number;
  /** The weight, where the node reads it through adapters; else what the node reads. */
  readonly name?: string;
  /** The value that the node reads is `[out, in]`. */
  readonly transposed: boolean;
  readonly factor: number;
  /** Trailing axes of size 1 after the matrix: the kernel of a 1x1 convolution. */
  readonly kernelAxes?: number;
}

/** The weight of an input of a node, or the reason why it cannot take an adapter. */
export function findWeight(values: ValueIndex, node: Node, use: WeightUse): Weight | string {
  const name = use.name ?? node.inputs[use.input]!;
  const constant = traceWeight(values, node.graph, name);
  if (!constant) return notTraced(values, node, name);
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
  const swaps = swapsOf(constant);
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

/** Why a value is not a weight that can be traced to a stored tensor. */
export function notTraced(values: ValueIndex, { graph }: Node, name: string): string {
  if (!isMadeOfConstants(values, graph, name)) {
    return `its weight ${name} is computed, not constant`;
  }
  return `its weight ${name} is computed of constants, expected one stored matrix that is at most cast, transposed, reshaped, quantized, or scaled and shifted by smaller constants, in ${MAX_WEIGHT_STEPS} nodes`;
}

/** Whether an input of the node is constant. */
export function constantInput(values: ValueIndex, node: Node, input: number): Constant | undefined {
  return traceConstant(values, node.graph, node.inputs[input] ?? '');
}

/** The weight of a node, computed of constants or stored. */
export function weightInput(values: ValueIndex, node: Node, input: number): Constant | undefined {
  return traceWeight(values, node.graph, node.inputs[input] ?? '');
}

/** Whether a weight is computed of what is stored: dequantized, scaled, laid out anew. */
export function isComputed({ constant }: Weight): boolean {
  return constant !== undefined && constant.computed > 0;
}

/** Whether the operator reads its weight from a DequantizeLinear. */
export function isDequantized({ constant }: Weight): boolean {
  return constant?.steps.some(({ opType }) => opType === 'DequantizeLinear') ?? false;
}
