/** Policies for folds into weights that are stored as integers. */
import { OnnxLoraError } from '../../errors.js';
import { traceConstant } from '../../graph/constants.js';
import type { ValueIndex } from '../../graph/uses.js';
import { byteLength, isConvertible } from '../../onnx/dtype.js';
import { elementCount, nodeLabel } from '../../onnx/model.js';
import type { LinearLayer } from '../targets/index.js';

export const quantizedPolicies = ['keep', 'dequantize', 'requantize'] as const;
/** `keep` refuses to make floats of them, `dequantize` does, `requantize` rounds them to integers again. */
export type QuantizedPolicy = (typeof quantizedPolicies)[number];

/** Whether a layer's weight is stored as integers. */
export function isInIntegers({ weight }: LinearLayer): boolean {
  return !isConvertible(weight.storedDtype);
}

/**
 * Refuses folds that would make floats of integers.
 * @throws OnnxLoraError `unsupported`
 */
export function refuseGrowth(
  { values }: { readonly values: ValueIndex },
  layers: readonly LinearLayer[],
): void {
  const quantized = layers.filter(isInIntegers);
  const [first] = quantized;
  if (!first) return;
  const growth = quantized.reduce((sum, layer) => sum + growthOf(values, layer), 0);
  const label = nodeLabel(first.product?.node ?? first.node);
  throw new OnnxLoraError(
    'unsupported',
    `${label}: its weight is stored as ${first.weight.storedDtype} (${quantized.length} of ${layers.length} adapted layers are quantized); folding makes floats of such weights, ${(growth / 1e6).toPrecision(2)} MB more in the file`,
    {
      node: label,
      hint: 'There are three ways: `quantized: dequantize` lets the file grow; `quantized: requantize` rounds what was folded to the same bits, which loses a part of it and says how much; or keep the adapters beside the weights, in the model as it is.',
    },
  );
}

function growthOf(values: ValueIndex, { node, product, weight }: LinearLayer): number {
  const reader = product?.node ?? node;
  const stored = (weight.constant ?? traceConstant(values, reader.graph, weight.name))?.tensor;
  const before =
    stored && weight.storedDtype !== 'string'
      ? byteLength(weight.storedDtype, elementCount(stored.dims))
      : 0;
  return byteLength(weight.dtype, weight.in * weight.out) - before;
}
