/**
 * Finds the node that adds a layer's bias, and whether an adapter may join after it.
 *
 * ONNX Runtime draws `MatMul -> Add` into one kernel, which sums in another order than the two. An adapter
 * between them would prevent that, and a fresh one then change the outputs by a rounding; after the Add
 * it leaves the model's own nodes as they are.
 */
import { traceConstant } from '../../graph/constants.js';
import type { Use, ValueIndex } from '../../graph/uses.js';
import type { Model, Node } from '../../onnx/model.js';
import type { OpenLayer } from '../targets/index.js';
import { isDequantized } from '../targets/weight.js';

/** An Add, and the operand that it adds. */
export interface Sum {
  readonly node: Node;
  readonly addend: string;
}

/** The Add that alone reads a node's output. */
export function soleSum(values: ValueIndex, summand: Node): Sum | undefined {
  return soleAdd(usesOf(values, summand));
}

function soleAdd([use, ...others]: readonly Use[]): Sum | undefined {
  const { node, index } = use ?? {};
  if (node?.opType !== 'Add' || node.domain !== '' || others.length > 0) return undefined;
  if (!node.outputs[0]) return undefined;
  return { node, addend: node.inputs[1 - index!]! };
}

/** The Add of a layer's bias that its adapter joins after; undefined where it joins the layer itself. */
export function joinedSum(model: Model, values: ValueIndex, layer: OpenLayer): Node | undefined {
  const sum = soleSum(values, layer.node);
  if (sum?.node.graph !== layer.node.graph) return undefined;
  const bias = traceConstant(values, sum.node.graph, sum.addend);
  const isBias = bias && keepsShape(bias.dims, layer);
  return isBias && !isFusedOnward(model, values, layer, sum.node) ? sum.node : undefined;
}

/** Whether adding a constant of these dims leaves the shape of the layer's output. */
function keepsShape(dims: readonly number[], { geometry, weight }: OpenLayer): boolean {
  const behind = geometry.kind === 'channels' ? geometry.spatial : Number(geometry.outputColumns);
  const isFlat = geometry.kind === 'channels' || geometry.flat;
  // The output may have no axis in front of its features, where none is known.
  const rank = behind + (isFlat ? 2 : 1);
  const features = dims.length - 1 - behind;
  return (
    dims.length <= rank &&
    dims.every((size, axis) => size === 1 || (axis === features && size === weight.out))
  );
}

/**
 * Whether ONNX Runtime fuses the bias with the nodes after it, or would fuse an adapter there, so that
 * an adapter has to stay in front of the bias. LayerNormalization takes the Add that it reads; where that
 * adds a residual, it takes the bias too. Gelu takes a bias that otherwise a kernel with a quantized weight
 * would. The product has drawn the bias in before where sizes are fixed. (It does so for matrices of open
 * sizes as well, but whether a value is a matrix is not in the file.)
 */
function isFusedOnward(
  model: Model,
  values: ValueIndex,
  { weight, product }: OpenLayer,
  sum: Node,
): boolean {
  if (product) return false;
  const isOpen = !hasFixedSizes(model);
  if (isDequantized(weight)) return isOpen && entersGelu(values, sum);
  const residual = isOpen ? soleAdd(readersOf(values, sum)) : undefined;
  return [sum, residual?.node].some((node) => node !== undefined && isNormalized(values, node));
}

/** Whether a LayerNormalization, as one node or in pieces, reads a node's output and nothing else does. */
function isNormalized(values: ValueIndex, node: Node): boolean {
  const readers = typesOf(readersOf(values, node)).sort().join();
  return readers === 'LayerNormalization' || readers === 'ReduceMean,Sub';
}

function entersGelu(values: ValueIndex, node: Node): boolean {
  const uses = readersOf(values, node);
  const next = uses.flatMap((use) => (use.node ? readersOf(values, use.node) : []));
  return typesOf(uses).includes('Gelu') || typesOf(next).includes('Erf');
}

function typesOf(uses: readonly Use[]): string[] {
  return [...new Set(uses.map(({ node }) => node?.opType ?? ''))];
}

/** Readers of a node's output after Identity nodes: some exporters leave one where a Dropout was. */
function readersOf(values: ValueIndex, node: Node): Use[] {
  const readers: Use[] = [];
  const passing = new Set([node]);
  for (const next of passing) {
    for (const use of usesOf(values, next)) {
      if (use.node?.opType === 'Identity') passing.add(use.node);
      else readers.push(use);
    }
  }
  return readers;
}

/** Of a damaged model, in which two nodes make one value, the last one's. */
function usesOf(values: ValueIndex, node: Node): readonly Use[] {
  const value = values.resolve(node.graph, node.outputs[0] ?? '');
  return value?.producer === node ? value.uses : [];
}

/** Asked for each layer, and before IR 4 a model has as many inputs as weights. */
const fixedSizes = new WeakMap<Model, boolean>();

function hasFixedSizes(model: Model): boolean {
  const known = fixedSizes.get(model);
  if (known !== undefined) return known;
  const { inputs, initializers } = model.graph;
  const areFixed = inputs.every(
    ({ name, shape }) => initializers.has(name) || shape?.every((size) => typeof size === 'number'),
  );
  fixedSizes.set(model, areFixed);
  return areFixed;
}
