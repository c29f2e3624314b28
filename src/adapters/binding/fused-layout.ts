/** The parts into which a graph splits the output of a fused layer. */

import { traceConstant } from '../../graph/constants.js';
import type { Use, ValueIndex } from '../../graph/uses.js';
import { findDataType, toIntegers } from '../../onnx/dtype.js';
import { elementCount, type Node } from '../../onnx/model.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { LinearLayer } from '../targets/index.js';

/**
 * `side by side`: the parts one after the other. `by head`: the parts of each head together, as in
 * BLOOM, GPT-NeoX and Falcon.
 */
export type FusedLayout = 'side by side' | 'by head';

/** A fused output on its way to where it is taken apart. */
interface Place {
  readonly node: Node;
  readonly output: string;
  /** Size of each axis that the output was reshaped to; undefined before that. */
  readonly sizes: readonly (number | undefined)[] | undefined;
  /** The axis of the last reshape that each axis comes from. */
  readonly axes: readonly number[];
}

/** No real layer has more nodes between it and its parts. */
const MAX_STEPS = 8;

/**
 * Evidence of the nodes after a layer about its output: the first of the axes that its features become
 * is divided where parts lie side by side, a later one where they are kept by head.
 * @returns undefined where they do not show it
 */
export function fusedLayout(
  values: ValueIndex,
  reader: TensorReader,
  layer: LinearLayer,
): FusedLayout | undefined {
  const start = { node: layer.node, output: layer.output, sizes: undefined, axes: [] };
  return follow(values, reader, start, layer.weight.out, MAX_STEPS);
}

function follow(
  values: ValueIndex,
  reader: TensorReader,
  place: Place,
  features: number,
  steps: number,
): FusedLayout | undefined {
  const uses = values.resolve(place.node.graph, place.output)?.uses ?? [];
  for (const use of steps > 0 ? uses : []) {
    const found = layoutAt(values, reader, place, use, features, steps);
    if (found) return found;
  }
  return undefined;
}

function layoutAt(
  values: ValueIndex,
  reader: TensorReader,
  place: Place,
  { node, index }: Use,
  features: number,
  steps: number,
): FusedLayout | undefined {
  if (!node) return undefined;
  const onwards = (change: Partial<Place>) => {
    const next = { ...place, ...change, node, output: node.outputs[0]! };
    return follow(values, reader, next, features, steps - 1);
  };
  switch (node.opType) {
    case 'Add':
    case 'Identity':
    case 'Cast':
      return onwards({});
    case 'Reshape': {
      if (index !== 0) return undefined;
      const sizes = reshapedTo(values, reader, node);
      return sizes && onwards({ sizes, axes: sizes.map((_, axis) => axis) });
    }
    case 'Transpose': {
      const perm = node.attributes.get('perm')?.ints ?? [];
      if (!place.sizes || perm.length !== place.axes.length) return undefined;
      return onwards({ axes: perm.map((axis) => place.axes[axis]!) });
    }
    default:
      return dividedBy(values, reader, place, node, features);
  }
}

/** The layout that a Split, Slice or Gather shows. */
function dividedBy(
  values: ValueIndex,
  reader: TensorReader,
  { sizes, axes }: Place,
  node: Node,
  features: number,
): FusedLayout | undefined {
  const axis = dividedAxis(values, reader, node);
  if (axis === undefined) return undefined;
  // Without a reshape, only the last axis holds features; the first two may be batch and sequence.
  if (!sizes)
    return axis === -1 || axis > 1 || node.opType === 'Split' ? 'side by side' : undefined;
  const from = axes.at(axis);
  const first = firstFeatureAxis(sizes, features);
  if (from === undefined || first === undefined || from < first) return undefined;
  return from === first ? 'side by side' : 'by head';
}

function dividedAxis(values: ValueIndex, reader: TensorReader, node: Node): number | undefined {
  if (node.opType === 'Split' || node.opType === 'Gather') {
    return node.attributes.get('axis')?.i ?? 0;
  }
  if (node.opType !== 'Slice') return undefined;
  const given = node.inputs[3];
  if (given === undefined) return node.attributes.get('axes')?.ints[0];
  return integersOf(values, reader, node, given)?.[0];
}

/**
 * The first of the axes that the features became: from there on they multiply to as many. A size that is
 * left open in front of others is what they leave of the features.
 */
function firstFeatureAxis(
  sizes: readonly (number | undefined)[],
  features: number,
): number | undefined {
  let product = 1;
  for (let axis = sizes.length - 1; axis > 0; axis--) {
    const size = sizes[axis] ?? (product > 1 ? features / product : Number.NaN);
    product *= size;
    if (product === features) return axis;
  }
  return undefined;
}

/** The shape that a Reshape gives; a size is undefined where it is computed or left open. */
function reshapedTo(
  values: ValueIndex,
  reader: TensorReader,
  node: Node,
): (number | undefined)[] | undefined {
  const shape = node.inputs[1];
  if (shape === undefined) return undefined;
  const fixed = integersOf(values, reader, node, shape);
  const sizes = fixed ?? concatenatedShape(values, reader, node, shape);
  return sizes?.map((size) => (size !== undefined && size > 0 ? size : undefined));
}

/** Exporters write a shape with open sizes as a Concat of single numbers. */
function concatenatedShape(
  values: ValueIndex,
  reader: TensorReader,
  node: Node,
  name: string,
): (number | undefined)[] | undefined {
  const concat = values.resolve(node.graph, name)?.producer;
  if (concat?.opType !== 'Concat') return undefined;
  return concat.inputs.flatMap((input) => integersOf(values, reader, concat, input) ?? [undefined]);
}

/** A shape has at most as many axes as any runtime allows. */
const MAX_SHAPE = 64;

function integersOf(
  values: ValueIndex,
  reader: TensorReader,
  node: Node,
  name: string,
): number[] | undefined {
  const tensor = traceConstant(values, node.graph, name)?.tensor;
  if (!tensor || elementCount(tensor.dims) > MAX_SHAPE) return undefined;
  const dtype = findDataType(tensor.dataType);
  if (dtype !== 'int64' && dtype !== 'int32') return undefined;
  return Array.from(toIntegers(dtype, reader.bytes(tensor), elementCount(tensor.dims)), Number);
}
