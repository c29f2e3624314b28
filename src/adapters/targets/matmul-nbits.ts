import type { ValueIndex } from '../../graph/uses.js';
import { findDataType, isConvertible } from '../../onnx/dtype.js';
import { elementCount, type Node } from '../../onnx/model.js';
import type { Finding } from './target.js';
import { constantInput } from './weight.js';

/**
 * com.microsoft MatMulNBits: `Y = X · W` with W quantized in blocks. The adapter works beside it in
 * floating point; the quantized weight stays as it is.
 */
export function matMulNBits(values: ValueIndex, node: Node): Finding {
  const size = (name: string) => node.attributes.get(name)?.i ?? 0;
  const packed = constantInput(values, node, 1);
  const scales = constantInput(values, node, 2);
  if (!packed || !scales) return { node, refusal: 'its quantized weight is not constant' };
  if (size('K') < 1 || size('N') < 1) return { node, refusal: 'its K or N attribute is missing' };
  const bits = node.attributes.get('bits')?.i ?? 4;
  if (elementCount(packed.tensor.dims) * 8 < size('K') * size('N') * bits) {
    return { node, refusal: 'its quantized weight is smaller than K x N' };
  }
  const dtype = scales.dtype;
  if (!dtype || !isConvertible(dtype))
    return { node, refusal: 'its scales are not floating point' };
  return {
    node,
    input: node.inputs[0]!,
    output: node.outputs[0]!,
    geometry: { kind: 'matrix', inputColumns: false, outputColumns: false, flat: false },
    weight: {
      name: node.inputs[1]!,
      input: 1,
      constant: undefined,
      in: size('K'),
      out: size('N'),
      transposed: true,
      storedDtype: findDataType(packed.tensor.dataType) ?? 'uint8',
      dtype,
      factor: 1,
    },
  };
}
