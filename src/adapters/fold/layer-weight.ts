/** The numbers that a layer's weight has, whatever stands between the file and its node. */
import { OnnxLoraError } from '../../errors.js';
import { type Constant, isComputing } from '../../graph/constants.js';
import { type FloatName, isConvertible } from '../../onnx/dtype.js';
import { type Node, nodeLabel } from '../../onnx/model.js';
import type { LinearLayer } from '../targets/index.js';
import { type BaseWeight, storedWeight } from './base-weight.js';
import {
  dequantizedTensor,
  type WeightContext,
  weightByIdentity,
  weightOfIntegers,
} from './dequantize.js';

/** A weight as floats, and the steps that still stand between it and its node. */
export interface LayerWeight {
  readonly base: BaseWeight;
  /** Its rows are the columns of W. */
  readonly transposed: boolean;
  readonly dims: readonly number[];
  readonly steps: readonly Node[];
}

/** @throws OnnxLoraError `unsupported` for a weight whose numbers cannot be had */
export function layerWeight(
  context: WeightContext,
  layer: LinearLayer,
  constant: Constant,
): LayerWeight {
  const { tensor, steps } = constant;
  const at = steps.findLastIndex(isComputing);
  const turns = steps.slice(0, at + 1).filter((step) => step.opType === 'Transpose').length;
  const isTransposed = turns % 2 === 1;
  const dims = isTransposed ? [...tensor.dims].reverse() : tensor.dims;
  const transposed = layer.weight.transposed !== isTransposed;
  if (at < 0 && !isConvertible(layer.weight.storedDtype)) {
    throw unfoldable(layer, `is stored as ${layer.weight.storedDtype} before a Cast`);
  }
  const base =
    at < 0
      ? storedWeight(context.reader, tensor, layer.weight.storedDtype as FloatName)
      : dequantizedTensor(context, steps[at]!, dims, typeAfter(constant, at, layer));
  return { base, transposed, dims, steps: steps.slice(at + 1) };
}

/** The numbers that a layer multiplies with, also where its operator holds them in integers: then [in, out]. */
export function numbersOfLayer(
  context: WeightContext,
  layer: LinearLayer,
): Pick<LayerWeight, 'base' | 'transposed'> {
  const { constant } = layer.weight;
  if (constant) return layerWeight(context, layer, constant);
  const base = layer.product
    ? weightOfIntegers(context, layer, layer.product)
    : weightByIdentity(context, layer);
  return { base, transposed: false };
}

/** Whether a weight is computed from quantized numbers. */
export function isQuantized({ steps }: Constant): boolean {
  return steps.some(isComputing);
}

function typeAfter(constant: Constant, at: number, layer: LinearLayer): FloatName {
  const casts = constant.steps.slice(at + 1).some((step) => step.opType === 'Cast');
  if (!casts) return layer.weight.dtype;
  throw unfoldable(layer, 'is cast after it is dequantized');
}

function unfoldable({ node }: LinearLayer, problem: string): OnnxLoraError {
  const label = nodeLabel(node);
  return new OnnxLoraError(
    'unsupported',
    `${label}: its weight ${problem}, which cannot be folded into`,
    { node: label, hint: 'Merge into the model before quantization instead.' },
  );
}
