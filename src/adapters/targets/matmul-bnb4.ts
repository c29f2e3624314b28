import type { ValueIndex } from '../../graph/uses.js';
import { findDataType, isConvertible } from '../../onnx/dtype.js';
import { elementCount, type Node } from '../../onnx/model.js';
import type { Finding } from './target.js';
import { constantInput } from './weight.js';

/**
 * com.microsoft MatMulBnb4: `Y = X · W` with W in 4 bits as bitsandbytes has it, NF4 or FP4: codes of a
 * table, times the greatest number of each block. The adapter works beside it in floating point.
 */
export function matMulBnb4(values: ValueIndex, node: Node): Finding {
  const size = (name: string) => node.attributes.get(name)?.i ?? 0;
  const [features, out] = [size('K'), size('N')];
  const codes = constantInput(values, node, 1);
  const greatest = constantInput(values, node, 2);
  if (!codes || !greatest) return { node, refusal: 'its quantized weight is not constant' };
  if (features < 1 || out < 1) return { node, refusal: 'its K or N attribute is missing' };
  if ((node.attributes.get('transB')?.i ?? 1) === 0) {
    return { node, refusal: 'its weight is transposed (transB is 0), expected [N, K]' };
  }
  if (elementCount(codes.tensor.dims) * 2 < features * out) {
    return { node, refusal: 'its quantized weight is smaller than K x N' };
  }
  const { dtype } = greatest;
  if (!dtype || !isConvertible(dtype)) {
    return { node, refusal: 'the greatest numbers of its blocks are not floating point' };
  }
  return {
    node,
    input: node.inputs[0]!,
    output: node.outputs[0]!,
    geometry: { kind: 'matrix', inputColumns: false, outputColumns: false, flat: false },
    weight: {
      name: node.inputs[1]!,
      input: 1,
      constant: undefined,
      in: features,
      out,
      transposed: true,
      storedDtype: findDataType(codes.tensor.dataType) ?? 'uint8',
      dtype,
      factor: 1,
    },
  };
}
