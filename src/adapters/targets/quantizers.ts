/** The nodes around a product of integers: before it a quantizer, after it what makes floats of its sums. */
import { traceConstant } from '../../graph/constants.js';
import type { Use, ValueIndex } from '../../graph/uses.js';
import { type FloatName, findDataType, isConvertible } from '../../onnx/dtype.js';
import type { Node } from '../../onnx/model.js';
import type { Addend } from './target.js';

/** An activation before it is rounded, and the scale of the integers that it is rounded to. */
export interface Activation {
  readonly input: string;
  readonly scale: string;
}

/** The last node of a layer whose sums become floats. */
export interface FloatOutput {
  readonly last: Node;
  readonly dtype: FloatName;
  readonly addends: readonly Addend[];
}

/** The activation whose integers the first input of a node are, or why there is none. */
export function quantizedActivation(values: ValueIndex, node: Node): Activation | string {
  const name = node.inputs[0]!;
  const quantizer = values.resolve(node.graph, name)?.producer;
  const { opType, domain, inputs = [], outputs = [] } = quantizer ?? {};
  if (domain === '' && outputs[0] === name && inputs[0]) {
    if (opType === 'DynamicQuantizeLinear') return { input: inputs[0], scale: outputs[1] ?? '' };
    if (opType === 'QuantizeLinear') return { input: inputs[0], scale: inputs[1] ?? '' };
  }
  const found = opType === undefined ? 'not computed' : `the result of ${opType}`;
  return `its input ${name} is ${found}, expected that of a QuantizeLinear or DynamicQuantizeLinear: an adapter reads the activation before it is rounded`;
}

/** The Cast of a node's sums, and their products with the scales of activation and weight. */
export function scaledOutput(
  values: ValueIndex,
  node: Node,
  activation: Activation,
): (FloatOutput & { readonly scale: string }) | string {
  let last = soleReader(values, node)?.node;
  const dtype = last?.opType === 'Cast' ? castTo(last) : undefined;
  if (!last || !dtype) return `its sums are not cast to floats by one Cast, ${EXPECTED}`;
  const factors: string[] = [];
  while (factors.length < 2) {
    const use = soleReader(values, last);
    if (use?.node.opType !== 'Mul' || use.node.domain !== '') break;
    last = use.node;
    factors.push(...factorsOf(values, last, last.inputs[1 - use.index]!, activation.scale));
  }
  const at = factors.indexOf(activation.scale);
  if (factors.length === 2 && at >= 0) {
    return { last, dtype, addends: [], scale: factors[1 - at]! };
  }
  return `its sums are not multiplied with two scales, ${EXPECTED}`;
}

const EXPECTED = 'expected a Cast and one or two Mul after it, which nothing else reads';

function castTo({ attributes }: Node): FloatName | undefined {
  const dtype = findDataType(attributes.get('to')?.i ?? 0);
  return dtype && isConvertible(dtype) ? dtype : undefined;
}

/** Both factors of a product with the activation's scale, else the value itself. */
function factorsOf(values: ValueIndex, { graph }: Node, name: string, scale: string): string[] {
  const producer = values.resolve(graph, name)?.producer;
  const isProduct = producer?.opType === 'Mul' && producer.domain === '';
  return isProduct && producer.inputs.includes(scale) ? [...producer.inputs] : [name];
}

/** The DequantizeLinear of a node's rounded output, or of its sum with a constant. */
export function dequantizedOutput(values: ValueIndex, node: Node): FloatOutput | string {
  const addends: Addend[] = [];
  for (let last = node; ; ) {
    const use = soleReader(values, last);
    if (use?.node.opType === 'DequantizeLinear' && use.node.domain === '' && use.index === 0) {
      const dtype = traceConstant(values, use.node.graph, use.node.inputs[1] ?? '')?.dtype;
      if (dtype && isConvertible(dtype)) return { last: use.node, dtype, addends };
    }
    const addend = use && addendOf(values, use);
    if (!addend) return NOT_DEQUANTIZED;
    addends.push(addend);
    last = use.node;
  }
}

const NOT_DEQUANTIZED =
  'its output is not read by a DequantizeLinear alone: an adapter adds to floating-point numbers';

/** The constant that com.microsoft QLinearAdd adds to a value. */
function addendOf(values: ValueIndex, { node, index }: NodeUse): Addend | undefined {
  if (node.opType !== 'QLinearAdd' || node.domain !== 'com.microsoft') return undefined;
  const [value = '', scale = '', zeroPoint = ''] =
    index === 0 ? node.inputs.slice(3) : node.inputs.slice(0, 3);
  const isConstant = traceConstant(values, node.graph, value) !== undefined;
  return isConstant ? { value, scales: [scale], zeroPoint } : undefined;
}

type NodeUse = Use & { readonly node: Node };

/** The only reading of a node's first output, by a node of the same graph. */
export function soleReader(values: ValueIndex, node: Node): NodeUse | undefined {
  const value = values.resolve(node.graph, node.outputs[0] ?? '');
  const [use, ...others] = value?.producer === node ? value.uses : [];
  const isSole = use?.node?.graph === node.graph && others.length === 0;
  return isSole ? { ...use, node: use.node! } : undefined;
}
