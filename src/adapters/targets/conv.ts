import type { ValueIndex } from '../../graph/uses.js';
import type { Node } from '../../onnx/model.js';
import type { Finding } from './target.js';
import { findWeight, weightInput } from './weight.js';

/** A convolution whose kernel is one pixel: a linear layer over the channels. */
export function pointwiseConv(values: ValueIndex, node: Node): Finding {
  const groups = node.attributes.get('group')?.i ?? 1;
  const kernel = weightInput(values, node, 1)?.dims.slice(2);
  if (kernel?.some((size) => size !== 1)) {
    return { node, refusal: `its kernel is ${kernel.join(' x ')}, only 1x1 is a linear layer` };
  }
  if (groups !== 1) return { node, refusal: `it has ${groups} groups, only 1 is a linear layer` };
  if (node.attributes.get('pads')?.ints.some((pad) => pad !== 0)) {
    return { node, refusal: 'it pads its input' };
  }
  const spatial = kernel?.length ?? 0;
  const weight = findWeight(values, node, {
    input: 1,
    transposed: true,
    factor: 1,
    kernelAxes: spatial,
  });
  if (typeof weight === 'string') return { node, refusal: weight };
  const strides = node.attributes.get('strides')?.ints ?? [];
  const geometry = { kind: 'channels', spatial, strides } as const;
  return { node, input: node.inputs[0]!, output: node.outputs[0]!, weight, geometry };
}
