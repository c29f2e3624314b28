/** From a value back to the constant tensor it is made of. */
import { type DataTypeName, findDataType } from '../onnx/dtype.js';
import type { TensorPlace } from '../onnx/external.js';
import type { Graph, Node, Tensor } from '../onnx/model.js';
import type { ValueIndex } from './uses.js';

/** A constant value: a stored tensor, and the nodes that turn it into the value. */
export interface Constant {
  readonly tensor: Tensor;
  /** The graph that holds the tensor. */
  readonly graph: Graph;
  /** The Constant node whose attribute the tensor is; undefined for an initializer. */
  readonly node: Node | undefined;
  /** The initializer is a graph input too, whose caller may give another value. */
  readonly overridable: boolean;
  /** Identity, Cast, Transpose and DequantizeLinear nodes, the one next to the tensor first. */
  readonly steps: readonly Node[];
  /** Shape and type of the value behind the last step. */
  readonly dims: readonly number[];
  readonly dtype: DataTypeName | undefined;
}

// Exporters put one to three nodes between a weight and its use.
const MAX_STEPS = 16;

// Scales and zero points come as they are or behind a Cast. A hostile file must not make every step
// of a chain the start of further ones: their number grows with the power of this.
const MAX_SIDE_STEPS = 2;

/** What `name` is made of, or undefined where it depends on an input or on other operators. */
export function traceConstant(
  values: ValueIndex,
  graph: Graph,
  name: string,
  maxSteps = MAX_STEPS,
): Constant | undefined {
  const steps: Node[] = [];
  let value = values.resolve(graph, name);
  while (value && steps.length <= maxSteps) {
    const { producer, initializer } = value;
    const stored = initializer ?? constantTensor(producer);
    if (stored) {
      const origin = { tensor: stored, graph: value.graph, overridable: value.isInput };
      const node = initializer ? undefined : producer;
      return { ...origin, node, steps, ...shapeAfter(values, stored, steps, maxSteps) };
    }
    if (!producer || !isStep(producer)) return undefined;
    if (!sideInputs(values, producer, maxSteps)) return undefined;
    steps.unshift(producer);
    value = values.resolve(producer.graph, producer.inputs[0]!);
  }
  return undefined;
}

/** The stored tensor that a name stands for in `graph`: an initializer, or the value of a Constant. */
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

/** The constants behind the inputs after the first; undefined where one is not constant. */
function sideInputs(values: ValueIndex, node: Node, maxSteps: number): Constant[] | undefined {
  const limit = Math.min(maxSteps - 1, MAX_SIDE_STEPS);
  const constants: Constant[] = [];
  // Only DequantizeLinear has further inputs: scale and zero point.
  for (const name of node.opType === 'DequantizeLinear' ? node.inputs.slice(1, 3) : []) {
    if (name === '') continue;
    const constant = traceConstant(values, node.graph, name, limit);
    if (!constant) return undefined;
    constants.push(constant);
  }
  return constants;
}

function shapeAfter(values: ValueIndex, tensor: Tensor, steps: readonly Node[], maxSteps: number) {
  let dims: readonly number[] = tensor.dims;
  let dtype = findDataType(tensor.dataType);
  for (const step of steps) {
    if (step.opType === 'Transpose') dims = [...dims].reverse();
    if (step.opType === 'Cast') dtype = findDataType(step.attributes.get('to')?.i ?? 0);
    // The output has the type of the scale.
    if (step.opType === 'DequantizeLinear') {
      dtype = sideInputs(values, step, maxSteps)?.[0]?.dtype;
    }
  }
  return { dims, dtype };
}
