/** Shapes after the nodes that lay the numbers of a constant out anew. */
import { toIntegers } from '../onnx/dtype.js';
import { ExternalFiles } from '../onnx/external.js';
import { elementCount, type Graph, type Node, type Tensor } from '../onnx/model.js';
import { dtypeOf, fitsItsData, TensorReader } from '../onnx/tensor.js';
import type { ValueIndex } from './uses.js';

const RESHAPING = new Set(['Flatten', 'Reshape', 'Squeeze', 'Unsqueeze']);

/** Whether a node gives the numbers of its first input another shape, in their order. */
export function isReshaping({ opType, domain }: Node): boolean {
  return domain === '' && RESHAPING.has(opType);
}

type Dims = readonly number[];

/** The shape that such a node makes of another one; undefined where the file does not say it. */
export function reshaped(values: ValueIndex, node: Node, dims: Dims): Dims | undefined {
  const shape = SHAPES[node.opType]?.(values, node, dims);
  const isOne = shape?.every((size) => Number.isInteger(size) && size >= 0);
  return isOne && elementCount(shape!) === elementCount(dims) ? shape : undefined;
}

const SHAPES: Record<string, (values: ValueIndex, node: Node, dims: Dims) => Dims | undefined> = {
  Flatten: (_, { attributes }, dims) => {
    const at = attributes.get('axis')?.i ?? 1;
    const axis = at < 0 ? at + dims.length : at;
    return [elementCount(dims.slice(0, axis)), elementCount(dims.slice(axis))];
  },
  Reshape: (values, node, dims) => {
    const target = given(values, node, 'shape');
    return target && filled(target, dims, node.attributes.get('allowzero')?.i === 1);
  },
  Squeeze: (values, node, dims) => {
    if (!isGiven(node)) return dims.filter((size) => size !== 1);
    const axes = axesOf(values, node, dims.length);
    return axes && dims.filter((_, axis) => !axes.has(axis));
  },
  Unsqueeze: (values, node, dims) => {
    const count = given(values, node, 'axes')?.length ?? 0;
    const axes = axesOf(values, node, dims.length + count);
    if (axes?.size !== count) return undefined;
    const rest = [...dims];
    return Array.from({ length: dims.length + count }, (_, axis) =>
      axes.has(axis) ? 1 : rest.shift()!,
    );
  },
};

function isGiven({ inputs, attributes }: Node): boolean {
  return attributes.has('axes') || (inputs[1] ?? '') !== '';
}

function axesOf(values: ValueIndex, node: Node, rank: number): Set<number> | undefined {
  const axes = given(values, node, 'axes');
  return axes && new Set(axes.map((axis) => (axis < 0 ? axis + rank : axis)));
}

/** Axes and shapes: an input, in old opsets an attribute. */
function given(values: ValueIndex, node: Node, name: string): Dims | undefined {
  const input = node.inputs[1] ?? '';
  return input === '' ? node.attributes.get(name)?.ints : integersOf(values, node.graph, input);
}

function filled(target: Dims, dims: Dims, zeroCounts: boolean): Dims | undefined {
  const sizes = target.map((size, axis) => (size === 0 && !zeroCounts ? dims[axis] : size));
  if (sizes.includes(undefined)) return undefined;
  const known = sizes.filter((size) => size !== -1) as number[];
  const rest = elementCount(dims) / elementCount(known);
  return (sizes as number[]).map((size) => (size === -1 ? rest : size));
}

// Of a shape or of axes.
const MAX_INTEGERS = 64;

/** A short constant that is in the model file itself. */
function integersOf(values: ValueIndex, graph: Graph, name: string): Dims | undefined {
  const value = values.resolve(graph, name);
  if (!value || value.isInput) return undefined;
  const { initializer, producer } = value;
  if (initializer) return integersIn(values, initializer);
  if (producer?.opType !== 'Constant' || producer.domain !== '') return undefined;
  const tensor = producer.attributes.get('value')?.tensor;
  return tensor ? integersIn(values, tensor) : producer.attributes.get('value_ints')?.ints;
}

function integersIn({ model }: ValueIndex, tensor: Tensor): Dims | undefined {
  const isShort = tensor.dims.length === 1 && elementCount(tensor.dims) <= MAX_INTEGERS;
  if (!isShort || tensor.data.kind === 'external' || !fitsItsData(tensor)) return undefined;
  const dtype = dtypeOf(tensor, model);
  if (dtype !== 'int64') return undefined;
  const bytes = new TensorReader(model, new ExternalFiles(model)).bytes(tensor);
  return Array.from(toIntegers(dtype, bytes, elementCount(tensor.dims)), Number);
}
