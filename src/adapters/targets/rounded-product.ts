/**
 * Products between QuantizeLinear and DequantizeLinear: a float product by what it says, an integer product by
 * what runtimes make of it. An adapter reads the activation before it is rounded and adds after the last
 * DequantizeLinear: in front of it, what it adds would be cut off at the range that was found for the weight.
 */
import { traceConstant } from '../../graph/constants.js';
import type { ValueIndex } from '../../graph/uses.js';
import { findDataType } from '../../onnx/dtype.js';
import { elementCount, type Node } from '../../onnx/model.js';
import { dequantizedOutput, quantizedActivation, soleReader } from './quantizers.js';
import type { Addend, Finding, LinearLayer } from './target.js';

/** The layer from quantizer to dequantization where a finding is the product between them, else as it is. */
export function aroundRounding(values: ValueIndex, finding: Finding): Finding {
  if ('refusal' in finding) return finding;
  const { node, weight, geometry } = finding;
  if (weight.input !== 1 || weight.storedDtype === weight.dtype) return finding;
  const activation = dequantizer(values, node, 0);
  const integers = dequantizer(values, node, 1);
  const addends = addendsOf(node);
  if (!activation || !integers || !addends || geometry.kind !== 'matrix') return finding;
  const read = quantizedActivation(values, activation);
  const rounded = soleReader(values, node);
  if (typeof read === 'string' || rounded?.node.opType !== 'QuantizeLinear') return finding;
  const output = dequantizedOutput(values, rounded.node);
  if (typeof output === 'string' || output.addends.length > 0 || output.dtype !== weight.dtype)
    return finding;
  if (!isPerColumn(values, integers, finding)) return finding;
  const [codes = '', scale = '', zeroPoint = ''] = integers.inputs;
  const { last } = output;
  return {
    ...finding,
    ...{ node: last, input: read.input, output: last.outputs[0]! },
    product: { node, integers: codes, scale, zeroPoint, addends },
  };
}

function dequantizer(values: ValueIndex, { graph, inputs }: Node, at: number): Node | undefined {
  const made = values.resolve(graph, inputs[at] ?? '')?.producer;
  return made?.opType === 'DequantizeLinear' && made.domain === '' ? made : undefined;
}

/** The bias of a Gemm; undefined where it is not added as it is. */
function addendsOf({ opType, inputs, attributes }: Node): Addend[] | undefined {
  const bias = opType === 'Gemm' ? (inputs[2] ?? '') : '';
  if (bias === '') return [];
  const isWhole = (attributes.get('beta')?.f ?? 1) === 1;
  return isWhole ? [{ value: bias, scales: [], zeroPoint: '' }] : undefined;
}

/** Whether stored integers of 8 bits have one scale, or one for each output. */
function isPerColumn(
  values: ValueIndex,
  { graph, inputs, attributes }: Node,
  { weight }: LinearLayer,
): boolean {
  const [codes, ...parameters] = inputs.map((name) => traceConstant(values, graph, name));
  const dtype = codes?.tensor && findDataType(codes.tensor.dataType);
  if (codes?.steps.length !== 0 || (dtype !== 'int8' && dtype !== 'uint8')) return false;
  const axis = ((attributes.get('axis')?.i ?? 1) + 2) % 2;
  const isOut = axis === (weight.transposed ? 0 : 1);
  return parameters.every((one) => {
    const count = one && elementCount(one.dims);
    return count === 1 || (isOut && one?.dims.length === 1 && count === weight.out);
  });
}
