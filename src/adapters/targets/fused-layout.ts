/** The parts into which a graph divides the output of a fused layer. */

import { traceConstant } from '../../graph/constants.js';
import type { Use, ValueIndex } from '../../graph/uses.js';
import { findDataType, toIntegers } from '../../onnx/dtype.js';
import { elementCount, type Node } from '../../onnx/model.js';
import type { TensorReader } from '../../onnx/tensor.js';
import { packedHeads } from './packed-heads.js';
import type { LinearLayer } from './target.js';

/**
 * `side by side`: the parts one after the other. `by head`: the parts of each head together, as in
 * BLOOM, GPT-NeoX and Falcon.
 */
export type FusedLayout = 'side by side' | 'by head';

/** The parts of a layer's output as the graph divides it. */
export interface FusedOutput {
  readonly layout: FusedLayout;
  /** Columns of each part, from the first on; undefined where the graph does not say them. */
  readonly widths: readonly number[] | undefined;
  /** An operator of attention takes the parts as they lie. */
  readonly isAttention: boolean;
}

/** A fused output on its way to where it is taken apart. */
interface Place {
  readonly node: Node;
  readonly output: string;
  /** Size of each axis that the output was reshaped to; undefined before that. */
  readonly sizes: readonly (number | undefined)[] | undefined;
  /** The axis of the last reshape that each axis comes from. */
  readonly axes: readonly number[];
}

/** A graph, and the number of columns that are looked for in it. */
interface Search {
  readonly values: ValueIndex;
  readonly reader: TensorReader;
  readonly features: number;
  /** The output has two axes and no more. */
  readonly flat: boolean;
}

/** No real layer has more nodes between it and its parts. */
const MAX_STEPS = 8;

/**
 * Evidence of the nodes after a layer about its output: the first of the axes that its features become
 * is divided where parts lie side by side, a later one where they are kept by head.
 * @returns undefined where they do not show it
 */
export function fusedOutput(
  values: ValueIndex,
  reader: TensorReader,
  { node, output, weight, geometry }: LinearLayer,
): FusedOutput | undefined {
  if (geometry.kind === 'inside') {
    return { layout: 'side by side', widths: geometry.widths, isAttention: true };
  }
  const flat = geometry.kind === 'matrix' && geometry.flat;
  const start = { node, output, sizes: undefined, axes: [] };
  return follow({ values, reader, features: weight.out, flat }, start, MAX_STEPS);
}

function follow(search: Search, place: Place, steps: number): FusedOutput | undefined {
  const uses = search.values.resolve(place.node.graph, place.output)?.uses ?? [];
  const found = (steps > 0 ? uses : []).flatMap((use) => layoutAt(search, place, use, steps) ?? []);
  const divided = found.find(({ widths }) => widths) ?? found[0];
  return divided && { ...divided, widths: divided.widths ?? slicedWidths(search, place, uses) };
}

function layoutAt(
  search: Search,
  place: Place,
  { node, index }: Use,
  steps: number,
): FusedOutput | undefined {
  if (!node) return undefined;
  const onwards = (change: Partial<Place>) => {
    return follow(search, { ...place, ...change, node, output: node.outputs[0]! }, steps - 1);
  };
  switch (node.domain === '' ? node.opType : '') {
    case 'Add':
    case 'Identity':
    case 'Cast':
      return onwards({});
    case 'Reshape': {
      if (index !== 0) return undefined;
      const sizes = reshapedTo(search, node);
      return sizes && onwards({ sizes, axes: sizes.map((_, axis) => axis) });
    }
    case 'Transpose': {
      const perm = node.attributes.get('perm')?.ints ?? [];
      if (!place.sizes || perm.length !== place.axes.length) return undefined;
      return onwards({ axes: perm.map((axis) => place.axes[axis]!) });
    }
    default:
      return takenWhole(place, node, index, search.features) ?? dividedBy(search, place, node);
  }
}

/** The parts of an operator that takes them as they lie. */
function takenWhole(
  { sizes }: Place,
  node: Node,
  index: number,
  features: number,
): FusedOutput | undefined {
  const heads = packedHeads(node, index);
  if (heads === 'by head') return { layout: 'by head', widths: undefined, isAttention: true };
  if (!heads || sizes) return undefined;
  const size = features / heads.reduce((sum, count) => sum + count, 0);
  const widths = Number.isInteger(size) ? heads.map((count) => count * size) : undefined;
  return { layout: 'side by side', widths, isAttention: true };
}

/** The layout that a Split, Slice or Gather shows. */
function dividedBy(search: Search, place: Place, node: Node): FusedOutput | undefined {
  const axis = dividedAxis(search, node);
  if (axis === undefined) return undefined;
  const from = featuresAt(search, place, axis);
  if (!from) return sideBySideAnyhow(place, node, axis);
  if (from.layout === 'by head') return { ...from, isAttention: false };
  const sizes = node.opType === 'Slice' ? undefined : sizesOf(search, node, from.size);
  const widths = sizes?.map((size) => (size * search.features) / from.size);
  const isWhole = widths?.reduce((sum, width) => sum + width, 0) === search.features;
  return { layout: from.layout, widths: isWhole ? widths : undefined, isAttention: false };
}

/** Without a reshape, only the last axis holds features; the first two may be batch and sequence. */
function sideBySideAnyhow(
  { sizes }: Place,
  { opType }: Node,
  axis: number,
): FusedOutput | undefined {
  if (sizes || !(axis > 1 || opType === 'Split')) return undefined;
  return { layout: 'side by side', widths: undefined, isAttention: false };
}

/** Whether an axis is the first that the features became, and its size. */
function featuresAt(
  { features, flat }: Search,
  { sizes, axes }: Place,
  axis: number,
): { layout: FusedLayout; size: number; widths: undefined } | undefined {
  // Of a layer's own output the last axis is meant by its number, too: 2 of [batch, length, features].
  if (!sizes) {
    const isLast = axis === -1 || axis === (flat ? 1 : 2);
    return isLast ? { layout: 'side by side', size: features, widths: undefined } : undefined;
  }
  const from = axes.at(axis);
  const first = firstFeatureAxis(sizes, features);
  if (from === undefined || first === undefined || from < first) return undefined;
  const rest = sizes.slice(first + 1).reduce((product: number, size) => product * (size ?? 1), 1);
  const size = sizes[first] ?? features / rest;
  return { layout: from === first ? 'side by side' : 'by head', size, widths: undefined };
}

/** The sizes of the pieces of a Split of a whole axis, or of a Gather of one of them. */
function sizesOf(search: Search, node: Node, whole: number): readonly number[] | undefined {
  if (node.opType === 'Gather') return Array.from({ length: whole }, () => 1);
  const given = node.inputs[1];
  const sizes = given
    ? integersOf(search, node, given)
    : (node.attributes.get('split')?.ints ?? equal(whole, node.outputs.length));
  return sizes?.length === node.outputs.length ? sizes : undefined;
}

/** Those of a Split without sizes: the last one takes what is left. */
function equal(whole: number, count: number): number[] {
  const each = Math.ceil(whole / count);
  return Array.from({ length: count }, (_, i) => Math.min(each, whole - i * each));
}

/** The widths of parts that Slices cut out, where they leave nothing out and share nothing. */
function slicedWidths(
  search: Search,
  place: Place,
  uses: readonly Use[],
): readonly number[] | undefined {
  const { features } = search;
  const cuts = uses.flatMap(({ node }) => (node ? (sliceOf(search, place, node) ?? []) : []));
  const inOrder = [...new Map(cuts.map((cut) => [cut.start, cut])).values()].sort(
    (a, b) => a.start - b.start,
  );
  const fits = inOrder.every(({ start }, i) => start === (inOrder[i - 1]?.end ?? 0));
  if (!fits || inOrder.length < 2 || inOrder.at(-1)!.end !== features) return undefined;
  return inOrder.map(({ start, end }) => end - start);
}

/** The columns that a Slice of the features takes. */
function sliceOf(
  search: Search,
  place: Place,
  node: Node,
): { start: number; end: number } | undefined {
  if (node.opType !== 'Slice' || node.domain !== '') return undefined;
  const axis = dividedAxis(search, node);
  const from = axis === undefined ? undefined : featuresAt(search, place, axis);
  if (from?.layout !== 'side by side' || stepOf(search, node) !== 1) return undefined;
  const [first, last] = ['starts', 'ends'].map((name, i) => boundOf(search, node, name, i + 1));
  if (first === undefined || last === undefined) return undefined;
  const at = (bound: number) => Math.min(bound < 0 ? bound + from.size : bound, from.size);
  const unit = search.features / from.size;
  return { start: at(first) * unit, end: at(last) * unit };
}

function boundOf(search: Search, node: Node, name: string, input: number): number | undefined {
  const given = node.inputs[input];
  const bounds = given ? integersOf(search, node, given) : node.attributes.get(name)?.ints;
  return bounds?.length === 1 ? bounds[0] : undefined;
}

function stepOf(search: Search, node: Node): number | undefined {
  const given = node.inputs[4];
  return given ? integersOf(search, node, given)?.[0] : 1;
}

function dividedAxis(search: Search, node: Node): number | undefined {
  if (node.domain !== '') return undefined;
  if (node.opType === 'Split' || node.opType === 'Gather') {
    return node.attributes.get('axis')?.i ?? 0;
  }
  if (node.opType !== 'Slice') return undefined;
  const given = node.inputs[3];
  if (given === undefined) return node.attributes.get('axes')?.ints[0];
  return integersOf(search, node, given)?.[0];
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
function reshapedTo(search: Search, node: Node): (number | undefined)[] | undefined {
  const shape = node.inputs[1];
  if (shape === undefined) return undefined;
  const fixed = integersOf(search, node, shape);
  const sizes = fixed ?? concatenatedShape(search, node, shape);
  return sizes?.map((size) => (size !== undefined && size > 0 ? size : undefined));
}

/** Exporters write a shape with open sizes as a Concat of single numbers. */
function concatenatedShape(
  search: Search,
  node: Node,
  name: string,
): (number | undefined)[] | undefined {
  const concat = search.values.resolve(node.graph, name)?.producer;
  if (concat?.opType !== 'Concat') return undefined;
  return concat.inputs.flatMap((input) => integersOf(search, concat, input) ?? [undefined]);
}

/** A shape has at most as many axes as any runtime allows. */
const MAX_SHAPE = 64;

function integersOf({ values, reader }: Search, node: Node, name: string): number[] | undefined {
  const tensor = traceConstant(values, node.graph, name)?.tensor;
  if (!tensor || elementCount(tensor.dims) > MAX_SHAPE) return undefined;
  const dtype = findDataType(tensor.dataType);
  if (dtype !== 'int64' && dtype !== 'int32') return undefined;
  return Array.from(toIntegers(dtype, reader.bytes(tensor), elementCount(tensor.dims)), Number);
}
