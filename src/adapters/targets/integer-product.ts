/**
 * Layers that multiply integers. From the quantizer in front to the nodes that make floats of the sums they
 * stand for `X · W`: an adapter reads X and adds after the last node.
 */
import { type Constant, traceConstant } from '../../graph/constants.js';
import type { ValueIndex } from '../../graph/uses.js';
import { type FloatName, findDataType, isConvertible } from '../../onnx/dtype.js';
import { elementCount, type Node } from '../../onnx/model.js';
import { fitsItsData } from '../../onnx/tensor.js';
import {
  dequantizedOutput,
  type FloatOutput,
  quantizedActivation,
  scaledOutput,
} from './quantizers.js';
import type { Addend, Finding, Geometry, Weight } from './target.js';
import { constantInput } from './weight.js';

/** MatMulInteger: a Cast and products with the scales of activation and weight follow it. */
export function matMulInteger(values: ValueIndex, node: Node): Finding {
  const activation = quantizedActivation(values, node);
  if (!constantInput(values, node, 1)) return refuse(node, withoutWeight(node, 1));
  if (typeof activation === 'string') return refuse(node, activation);
  const output = scaledOutput(values, node, activation);
  if (typeof output === 'string') return refuse(node, output);
  const { scale } = output;
  return layer(values, node, { ...activation, output, operands: { at: 1, scale, zeroPoint: 3 } });
}

/** com.microsoft DynamicQuantizeMatMul: it quantizes the activation and dequantizes the sums by itself. */
export function dynamicQuantizeMatMul(values: ValueIndex, node: Node): Finding {
  const [input, , scale = ''] = node.inputs;
  const output = ownOutput(values, node, { scale, bias: 4 });
  return layer(values, node, { input: input!, output, operands: { at: 1, scale, zeroPoint: 3 } });
}

/** com.microsoft MatMulIntegerToFloat: MatMulInteger and the nodes after it in one. */
export function matMulIntegerToFloat(values: ValueIndex, node: Node): Finding {
  const activation = quantizedActivation(values, node);
  if (typeof activation === 'string') return refuse(node, activation);
  const scale = node.inputs[3] ?? '';
  const output = ownOutput(values, node, { scale, bias: 6 });
  return layer(values, node, { ...activation, output, operands: { at: 1, scale, zeroPoint: 5 } });
}

/** QLinearMatMul: its output is rounded to integers, too, which a DequantizeLinear reads. */
export function qLinearMatMul(values: ValueIndex, node: Node): Finding {
  const activation = quantizedActivation(values, node);
  if (!constantInput(values, node, 3)) return refuse(node, withoutWeight(node, 3));
  if (typeof activation === 'string') return refuse(node, activation);
  const output = dequantizedOutput(values, node);
  if (typeof output === 'string') return refuse(node, output);
  const scale = node.inputs[4] ?? '';
  return layer(values, node, { ...activation, output, operands: { at: 3, scale, zeroPoint: 5 } });
}

/** com.microsoft QGemm: Gemm of integers, whose output is rounded where it has a scale. */
export function qGemm(values: ValueIndex, node: Node): Finding {
  const activation = quantizedActivation(values, node);
  if (typeof activation === 'string') return refuse(node, activation);
  const scale = node.inputs[4] ?? '';
  const output = node.inputs[7]
    ? dequantizedOutput(values, node)
    : ownOutput(values, node, { scale, bias: -1 });
  if (typeof output === 'string') return refuse(node, output);
  const flag = (name: string) => (node.attributes.get(name)?.i ?? 0) !== 0;
  const scales = [node.inputs[1] ?? '', scale];
  const factor = node.attributes.get('alpha')?.f ?? 1;
  const bias = node.inputs[6] ? [{ value: node.inputs[6], scales, zeroPoint: '', factor }] : [];
  return layer(values, node, {
    ...activation,
    output: { ...output, addends: [...bias, ...output.addends] },
    operands: { at: 3, scale, zeroPoint: 5, transposed: flag('transB'), factor },
    geometry: { kind: 'matrix', inputColumns: flag('transA'), outputColumns: false, flat: true },
  });
}

function refuse(node: Node, refusal: string): Finding {
  return { node, refusal };
}

function withoutWeight({ inputs }: Node, at: number): string {
  return `its operand ${inputs[at]} is computed, not constant: there is no weight to adapt`;
}

/** The output of an operator that gives floats, in the type of the weight's scale. */
function ownOutput(
  values: ValueIndex,
  node: Node,
  { scale, bias }: { scale: string; bias: number },
): FloatOutput {
  const dtype = traceConstant(values, node.graph, scale)?.dtype;
  const value = node.inputs[bias] ?? '';
  const addends: Addend[] = value === '' ? [] : [{ value, scales: [], zeroPoint: '' }];
  return { last: node, dtype: dtype && isConvertible(dtype) ? dtype : 'float32', addends };
}

/** The place of a node's weight. */
interface Operands {
  /** The input that holds its integers. */
  readonly at: number;
  readonly scale: string;
  /** The input that holds their zero point. */
  readonly zeroPoint: number;
  /** The integers lie [out, in]. */
  readonly transposed?: boolean;
  readonly factor?: number;
}

interface Parts {
  readonly input: string;
  readonly output: FloatOutput;
  readonly operands: Operands;
  readonly geometry?: Geometry;
}

const ROWS: Geometry = { kind: 'matrix', inputColumns: false, outputColumns: false, flat: false };

function layer(
  values: ValueIndex,
  node: Node,
  { input, output, operands, geometry = ROWS }: Parts,
): Finding {
  const weight = weightOf(values, node, operands, output.dtype);
  if (typeof weight === 'string') return refuse(node, weight);
  const { last, addends } = output;
  const zeroPoint = node.inputs[operands.zeroPoint] ?? '';
  const product = { node, integers: weight.name, scale: operands.scale, zeroPoint, addends };
  return { node: last, product, input, output: last.outputs[0]!, weight, geometry };
}

function weightOf(
  values: ValueIndex,
  node: Node,
  { at, scale, zeroPoint, transposed = false, factor = 1 }: Operands,
  dtype: FloatName,
): Weight | string {
  const name = node.inputs[at] ?? '';
  const integers = constantInput(values, node, at);
  if (!integers) return withoutWeight(node, at);
  const { dims, tensor } = integers;
  if (dims.length !== 2)
    return `its weight ${name} has the shape [${dims.join(', ')}], expected a matrix`;
  if (dims.includes(0)) return `its weight ${name} is empty: [${dims.join(', ')}]`;
  if (!fitsItsData(tensor))
    return `its weight ${name} has fewer numbers than its shape [${tensor.dims.join(', ')}] says`;
  if (integers.dtype !== 'int8' && integers.dtype !== 'uint8') {
    return `its weight ${name} is ${integers.dtype ?? 'of unknown type'}, expected int8 or uint8`;
  }
  const [rows, columns] = dims as [number, number];
  const [features, out] = transposed ? [columns, rows] : [rows, columns];
  const parts = [traceConstant(values, node.graph, scale), constantInput(values, node, zeroPoint)];
  const isOmitted = !node.inputs[zeroPoint];
  if (!parts[0] || !(parts[1] || isOmitted))
    return `the scale or zero point of its weight ${name} is computed, not constant`;
  if (!parts.every((part) => !part || isPerColumn(part, out))) {
    return `the scale or zero point of its weight ${name} is neither one number nor one for each of its ${out} columns`;
  }
  if (factor === 0) return 'its alpha is 0, so the weight has no effect';
  const stored = findDataType(tensor.dataType) ?? integers.dtype;
  return {
    name,
    input: at,
    constant: undefined,
    in: features,
    out,
    transposed,
    storedDtype: stored,
    dtype,
    factor,
  };
}

function isPerColumn({ dims }: Constant, out: number): boolean {
  return elementCount(dims) === 1 || (dims.at(-1) === out && elementCount(dims) === out);
}
