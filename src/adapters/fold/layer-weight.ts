/** The numbers that a layer's weight has, whatever stands between the file and its node. */
import { type Constant, swapsOf } from '../../graph/constants.js';
import { type FloatName, isConvertible } from '../../onnx/dtype.js';
import type { Node } from '../../onnx/model.js';
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

/** A weight that is computed is run when its first row is asked for. */
export function layerWeight(
  context: WeightContext,
  layer: LinearLayer,
  constant: Constant,
): LayerWeight {
  const { tensor, steps } = constant;
  const end = evaluatedSteps(layer, constant);
  if (end === 0) {
    const base = storedWeight(context.reader, tensor, layer.weight.storedDtype as FloatName);
    return { base, transposed: layer.weight.transposed, dims: tensor.dims, steps };
  }
  const after = steps.slice(end);
  const isTurned = after.filter(({ opType }) => opType === 'Transpose').length % 2 === 1;
  // An odd number of swaps is left: the value before them has the axes the other way round.
  const dims = isTurned ? [...constant.dims].reverse() : constant.dims;
  const transposed = layer.weight.transposed !== (swapsOf(constant, end) % 2 === 1);
  const base = dequantizedTensor(context, steps[end - 1]!, dims, layer.weight.dtype);
  return { base, transposed, dims, steps: after };
}

/** The numbers that a layer multiplies with, also where its operator holds them in integers: then [in, out]. */
export function numbersOfLayer(
  context: WeightContext,
  layer: LinearLayer,
): Pick<LayerWeight, 'base' | 'transposed'> {
  const { constant } = layer.weight;
  if (constant && !layer.product) return layerWeight(context, layer, constant);
  const base = layer.product
    ? weightOfIntegers(context, layer, layer.product)
    : weightByIdentity(context, layer);
  return { base, transposed: false };
}

/**
 * The number of steps that are run to have the weight as floats: those that compute, and a Cast after them. Of
 * integers that are only cast, the Casts.
 */
function evaluatedSteps({ weight }: LinearLayer, { steps, computed }: Constant): number {
  if (computed === 0 && isConvertible(weight.storedDtype)) return 0;
  return Math.max(computed, steps.findLastIndex(({ opType }) => opType === 'Cast') + 1);
}
