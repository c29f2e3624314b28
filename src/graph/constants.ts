/** Traces a value back to the constant tensor that it is made from. */
import { type DataTypeName, findDataType } from '../onnx/dtype.js';
import type { TensorPlace } from '../onnx/external.js';
import { elementCount, type Graph, type Node, type Tensor } from '../onnx/model.js';
import { isReshaping, reshaped } from './reshaped.js';
import type { ValueIndex } from './uses.js';

/** A constant value: a stored tensor, and the nodes that turn it into the value. */
export interface Constant {
  /** The stored tensor. */
  readonly tensor: Tensor;
  /** The graph that holds the tensor. */
  readonly graph: Graph;
  /** The Constant node whose attribute the tensor is; undefined for an initializer. */
  readonly node: Node | undefined;
  /** The initializer is a graph input too, whose caller may give another value. */
  readonly overridable: boolean;
  /**
   * Identity, Cast, Transpose and DequantizeLinear nodes, the one next to the tensor first; of a weight
   * those that compute with other constants too.
   */
  readonly steps: readonly Node[];
  /** Number of steps up to the last one that does more than pass numbers on, swap a matrix or cast. */
  readonly computed: number;
  /** Number of steps up to the last one after which an axis is not one of the axes before. */
  readonly laidOut: number;
  /** Shape and type of the value after the last step. */
  readonly dims: readonly number[];
  /** Type of the value; undefined where the nodes between leave it open. */
  readonly dtype: DataTypeName | undefined;
}

// Exporters put one to three nodes between a constant and its use.
const MAX_STEPS = 16;

/** Of a weight: tools that edit graphs leave chains of nodes that nobody folded. */
export const MAX_WEIGHT_STEPS = 64;

// Scales and zero points come as they are or through a Cast. A hostile file must not make every step
// of a chain the start of further ones: their number grows with the power of this.
const MAX_SIDE_STEPS = 2;

/** The constant that `name` is made from; undefined where it depends on an input or on other operators. */
export function traceConstant(
  values: ValueIndex,
  graph: Graph,
  name: string,
  maxSteps = MAX_STEPS,
): Constant | undefined {
  return trace(values, graph, name, maxSteps, false);
}

/**
 * As {@link traceConstant}, through what computes a weight of constants too: quantizers write it as
 * integers times a scale. The tensor is then the one that holds the matrix.
 */
export function traceWeight(values: ValueIndex, graph: Graph, name: string): Constant | undefined {
  return trace(values, graph, name, MAX_WEIGHT_STEPS, true);
}

function trace(
  values: ValueIndex,
  graph: Graph,
  name: string,
  maxSteps: number,
  computes: boolean,
): Constant | undefined {
  const steps: Node[] = [];
  const sides = new Map<Node, readonly Constant[]>();
  let value = values.resolve(graph, name);
  while (value && steps.length <= maxSteps) {
    const { producer, initializer } = value;
    const stored = initializer ?? constantTensor(producer);
    if (stored) {
      const origin = { tensor: stored, graph: value.graph, overridable: value.isInput };
      const node = initializer ? undefined : producer;
      const form = formAfter(values, stored, steps, sides);
      return form && { ...origin, node, steps, ...form };
    }
    const step = producer && stepOf(values, producer, maxSteps, computes);
    if (!step) return undefined;
    sides.set(producer, step.sides);
    steps.unshift(producer);
    value = values.resolve(producer.graph, step.main);
  }
  return undefined;
}

/** The value that a node passes on or computes with, and the constants that it takes beside it. */
function stepOf(
  values: ValueIndex,
  node: Node,
  maxSteps: number,
  computes: boolean,
): { main: string; sides: readonly Constant[] } | undefined {
  if (isStep(node) || (computes && isRearranging(node))) {
    const sides = sideInputs(values, node, maxSteps);
    return sides && { main: node.inputs[0]!, sides };
  }
  if (!computes || !isArithmetic(node)) return undefined;
  const [first, second] = node.inputs as [string, string];
  const [a, b] = [first, second].map((name) =>
    traceConstant(values, node.graph, name, MAX_SIDE_STEPS),
  );
  const isFirst = b && (!a || elementCount(a.dims) >= elementCount(b.dims));
  if (isFirst) return { main: first, sides: [b] };
  return a && { main: second, sides: [a] };
}

// Beyond this many nodes an expression is not looked at.
const MAX_EXPRESSION_NODES = 256;

/** Whether a value is computed by nodes of any kind from constants alone. */
export function isMadeOfConstants(values: ValueIndex, graph: Graph, name: string): boolean {
  const open = [values.resolve(graph, name)];
  const nodes = new Set<Node>();
  for (const value of open) {
    if (!value) return false;
    const { producer, initializer } = value;
    if (initializer || (producer && nodes.has(producer))) continue;
    if (!producer || nodes.size >= MAX_EXPRESSION_NODES) return false;
    nodes.add(producer);
    const inputs = producer.inputs.filter((input) => input !== '');
    open.push(...inputs.map((input) => values.resolve(producer.graph, input)));
  }
  return true;
}

/** Whether a node computes with constants, or lays one out anew, and does not only pass one on. */
export function isComputing(node: Node): boolean {
  return givesOtherNumbers(node) || (isRearranging(node) && !isStep(node));
}

/** Whether a node gives other numbers than its constant has, other than by rounding. */
export function givesOtherNumbers(node: Node): boolean {
  return (node.domain === '' && QUANTIZING.has(node.opType)) || isArithmetic(node);
}

/** Whether a node only changes the order or the type of a weight's numbers, where it is not a step too. */
function isRearranging(node: Node): boolean {
  const { opType, domain } = node;
  if (isReshaping(node)) return true;
  return domain === '' && (opType === 'Transpose' || opType === 'QuantizeLinear');
}

const QUANTIZING = new Set(['QuantizeLinear', 'DequantizeLinear']);
const ARITHMETIC = new Set(['Add', 'Sub', 'Mul', 'Div']);

function isArithmetic({ opType, domain, inputs }: Node): boolean {
  return domain === '' && ARITHMETIC.has(opType) && inputs.length === 2;
}

/** The stored tensor that a name refers to in `graph`: an initializer, or the value of a Constant. */
export function storedTensor(
  values: ValueIndex,
  graph: Graph,
  name: string,
): TensorPlace | undefined {
  const value = values.resolve(graph, name);
  if (!value) return undefined;
  const { initializer: tensor, producer: node } = value;
  if (tensor) return { tensor, graph: value.graph };
  const constant = constantTensor(node);
  return (
    constant && {
      tensor: constant,
      graph: value.graph,
      node,
      attribute: node!.attributes.get('value'),
    }
  );
}

function constantTensor(node: Node | undefined): Tensor | undefined {
  if (node?.opType !== 'Constant' || node.domain !== '') return undefined;
  return node.attributes.get('value')?.tensor;
}

/** Whether a node only passes a constant on, in another form. */
export function isStep(node: Node): boolean {
  if (node.domain !== '') return false;
  if (node.opType === 'Transpose') return isSwap(node);
  return ['Identity', 'Cast', 'DequantizeLinear'].includes(node.opType);
}

/** Transpose of a matrix; without `perm` it reverses the axes, which for a matrix is the same. */
function isSwap(node: Node): boolean {
  const perm = node.attributes.get('perm')?.ints ?? [];
  return perm.length === 0 || (perm.length === 2 && perm[0] === 1 && perm[1] === 0);
}

/** The constants of the inputs after the first; undefined where one is not constant. */
function sideInputs(values: ValueIndex, node: Node, maxSteps: number): Constant[] | undefined {
  const limit = Math.min(maxSteps - 1, MAX_SIDE_STEPS);
  const constants: Constant[] = [];
  // Only these have further inputs: scale and zero point.
  for (const name of QUANTIZING.has(node.opType) ? node.inputs.slice(1, 3) : []) {
    if (name === '') continue;
    const constant = traceConstant(values, node.graph, name, limit);
    if (!constant) return undefined;
    constants.push(constant);
  }
  return constants;
}

type Form = Pick<Constant, 'dims' | 'dtype' | 'computed' | 'laidOut'>;

/** undefined where a step makes more numbers than it takes, which a small file could do without end. */
function formAfter(
  values: ValueIndex,
  tensor: Tensor,
  steps: readonly Node[],
  sides: ReadonlyMap<Node, readonly Constant[]>,
): Form | undefined {
  let dims: readonly number[] | undefined = tensor.dims;
  let dtype = findDataType(tensor.dataType);
  let [computed, laidOut] = [0, 0];
  for (const [i, step] of steps.entries()) {
    const [side, zeroPoint] = sides.get(step) ?? [];
    if (isReshaping(step) || (step.opType === 'Transpose' && dims.length !== 2)) laidOut = i + 1;
    if (laidOut > i || isComputing(step)) computed = i + 1;
    if (step.opType === 'Cast') dtype = findDataType(step.attributes.get('to')?.i ?? 0);
    // The output has the type of the scale.
    if (step.opType === 'DequantizeLinear') dtype = side?.dtype;
    if (step.opType === 'QuantizeLinear') dtype = quantizedType(step, zeroPoint);
    if (isArithmetic(step) && !isStretchedTo(side!.dims, dims)) return undefined;
    dims = dimsAfter(values, step, dims);
    if (!dims) return undefined;
  }
  return { dims, dtype, computed, laidOut };
}

function dimsAfter(values: ValueIndex, step: Node, dims: readonly number[]) {
  if (isReshaping(step)) return reshaped(values, step, dims);
  if (step.opType !== 'Transpose') return dims;
  const perm = step.attributes.get('perm')?.ints ?? [];
  if (perm.length === 0) return [...dims].reverse();
  const sizes = perm.map((axis) => dims[axis]);
  const isOrder = perm.length === dims.length && new Set(perm).size === perm.length;
  return isOrder && !sizes.includes(undefined) ? (sizes as number[]) : undefined;
}

/** The swaps of a matrix among the steps after the axes are what the weight's are. */
export function swapsOf({ steps, laidOut }: Constant, end = steps.length): number {
  return steps.slice(laidOut, end).filter(({ opType }) => opType === 'Transpose').length;
}

function quantizedType({ attributes }: Node, zeroPoint: Constant | undefined) {
  const given = findDataType(attributes.get('output_dtype')?.i ?? 0);
  return zeroPoint?.dtype ?? given ?? 'uint8';
}

/** Whether broadcasting with a value of these dims leaves the others as they are. */
function isStretchedTo(side: readonly number[], dims: readonly number[]): boolean {
  const lead = dims.length - side.length;
  return lead >= 0 && side.every((size, axis) => size === 1 || size === dims[axis + lead]);
}
