/** Which integers an input may hold, found by following it to the tables that it indexes. */
import { traceConstant } from '../graph/constants.js';
import type { ValueIndex } from '../graph/uses.js';
import { type DataTypeName, toIntegers } from '../onnx/dtype.js';
import { ExternalFiles } from '../onnx/external.js';
import {
  allGraphs,
  elementCount,
  type FunctionDef,
  type Graph,
  type Model,
  type Node,
} from '../onnx/model.js';
import { dtypeOf, TensorReader } from '../onnx/tensor.js';

/** Valid are min <= value < limit. */
export interface IndexBounds {
  readonly min: number;
  readonly limit: number;
}

/** A value that is an input plus something between `low` and `high`. */
interface Place {
  readonly graph: Graph;
  readonly name: string;
  readonly low: number;
  readonly high: number;
}

// Position offsets are scalars or a row; larger constants are not offsets.
const MAX_OFFSETS = 65_536;

// A value is met again with another offset at most a few times, whatever the model.
const MAX_PLACES = 10_000;

/** Inputs whose elements come out of the node unchanged, if moved or dropped. */
const PASSING: Readonly<Record<string, readonly number[] | 'all'>> = {
  Cast: [0],
  Clip: [0],
  Concat: 'all',
  Expand: [0],
  Flatten: [0],
  Gather: [0],
  GatherElements: [0],
  GatherND: [0],
  Identity: [0],
  Max: 'all',
  Min: 'all',
  Mul: 'all',
  Pad: [0],
  Reshape: [0],
  ScatterElements: [0, 2],
  ScatterND: [0, 2],
  Slice: [0],
  Split: [0],
  Squeeze: [0],
  Tile: [0],
  Transpose: [0],
  Unsqueeze: [0],
  Where: [1, 2],
};

/** Those of them that may put other numbers in the place of an input's. */
const REPLACING = new Set(['Clip', 'Max', 'Min', 'Mul', 'Where']);

/** Follows inputs of one model. */
export class IndexTracer {
  private readonly functions = new Map<string, FunctionDef>();
  private readonly calls = new Map<Graph, Node[]>();

  constructor(
    private readonly model: Model,
    private readonly values: ValueIndex,
  ) {
    for (const f of model.functions) this.functions.set(`${f.domain}:${f.name}`, f);
    for (const root of [model.graph, ...model.functions.map((f) => f.body)]) {
      for (const graph of allGraphs(root)) this.noteCalls(graph);
    }
  }

  /**
   * The bounds of a graph input; undefined where it indexes no table of known size.
   * @param strict only bounds that no element may leave: an input that is clipped or masked before
   * it is looked up may hold anything
   */
  bounds(input: string, { strict = false } = {}): IndexBounds | undefined {
    let found: IndexBounds | undefined;
    const open: Place[] = [{ graph: this.model.graph, name: input, low: 0, high: 0 }];
    const seen = new Set<string>();
    for (let place = open.pop(); place; place = open.pop()) {
      const value = this.values.resolve(place.graph, place.name);
      const key = `${value?.graph.field.start} ${place.low} ${place.high} ${place.name}`;
      if (!value || seen.has(key) || seen.size >= MAX_PLACES) continue;
      seen.add(key);
      for (const { node, graph, index } of value.uses) {
        if (strict && node && node.domain === '' && REPLACING.has(node.opType)) continue;
        const rows = node && this.tableRows(node, index);
        if (rows !== undefined) found = intersect(found, rows, place);
        open.push(...(node ? this.after(node, index, place) : this.outside(graph, index, place)));
      }
    }
    return found;
  }

  private noteCalls(graph: Graph): void {
    for (const node of graph.nodes) {
      const body = this.called(node)?.body;
      if (body) this.calls.set(body, [...(this.calls.get(body) ?? []), node]);
    }
  }

  private called(node: Node): FunctionDef | undefined {
    return this.functions.get(`${node.domain}:${node.opType}`);
  }

  /** Number of rows of the table that the node looks its input up in. */
  private tableRows(node: Node, index: number): number | undefined {
    const table = tableOf(node, index);
    if (!table) return undefined;
    const dims = traceConstant(this.values, node.graph, node.inputs[table.input] ?? '')?.dims;
    return dims?.at(table.axis);
  }

  private after(node: Node, index: number, place: Place): Place[] {
    const f = this.called(node);
    if (f) {
      const inside = f.body.inputs[index];
      return inside ? [{ ...place, graph: f.body, name: inside.name }] : [];
    }
    if (node.domain !== '') return [];
    const moved = this.moved(node, index, place);
    return moved ? node.outputs.map((name) => ({ ...moved, graph: node.graph, name })) : [];
  }

  private moved(node: Node, index: number, place: Place): Place | undefined {
    const { opType } = node;
    if (opType !== 'Add' && opType !== 'Sub') {
      const passing = PASSING[opType];
      return passing === 'all' || passing?.includes(index) ? place : undefined;
    }
    if (opType === 'Sub' && index === 1) return undefined;
    const [low, high] = this.offsets(node, 1 - index) ?? [0, 0];
    return opType === 'Add'
      ? { ...place, low: place.low + low, high: place.high + high }
      : { ...place, low: place.low - high, high: place.high - low };
  }

  /** Least and greatest element of a constant operand. */
  private offsets(node: Node, index: number): [low: number, high: number] | undefined {
    const constant = traceConstant(this.values, node.graph, node.inputs[index] ?? '');
    if (!constant || constant.steps.some(({ opType }) => opType === 'DequantizeLinear')) {
      return undefined;
    }
    const { tensor } = constant;
    const count = elementCount(tensor.dims);
    const dtype = dtypeOf(tensor, this.model);
    if (count === 0 || count > MAX_OFFSETS || !isInteger(dtype)) return undefined;
    const files = new ExternalFiles(this.model);
    try {
      const bytes = new TensorReader(this.model, files).bytes(tensor);
      const numbers = Array.from(toIntegers(dtype, bytes, count) as Int32Array, Number);
      return [Math.min(...numbers), Math.max(...numbers)];
    } finally {
      files.close();
    }
  }

  /** The output of the node for an output of its body. */
  private outside(graph: Graph, index: number, place: Place): Place[] {
    const { parent } = graph;
    const nodes = parent ? [parent.node] : (this.calls.get(graph) ?? []);
    return nodes
      .filter((node) => node.opType === 'If' || !parent)
      .flatMap((node) => {
        const name = node.outputs[index];
        return name ? [{ ...place, graph: node.graph, name }] : [];
      });
  }
}

function isInteger(dtype: DataTypeName): boolean {
  return dtype.startsWith('int') || dtype.startsWith('uint');
}

/** The input of the node that its input `index` is an index into, and along which axis. */
function tableOf(node: Node, index: number): { input: number; axis: number } | undefined {
  switch (node.opType) {
    case 'Gather':
    case 'GatherElements':
      return index === 1 ? { input: 0, axis: attribute(node, 'axis') } : undefined;
    case 'GatherND':
      return index === 1 ? { input: 0, axis: attribute(node, 'batch_dims') } : undefined;
    case 'GatherBlockQuantized':
      return index === 1 ? { input: 0, axis: attribute(node, 'gather_axis') } : undefined;
    case 'EmbedLayerNormalization':
    case 'QEmbedLayerNormalization':
      return EMBEDDED[index] === undefined ? undefined : { input: EMBEDDED[index], axis: 0 };
    default:
      return undefined;
  }
}

/** Word ids, segment ids and position ids of EmbedLayerNormalization, and their tables. */
const EMBEDDED: Readonly<Record<number, number>> = { 0: 2, 1: 4, 8: 3 };

function attribute(node: Node, name: string): number {
  return node.attributes.get(name)?.i ?? 0;
}

function intersect(
  bounds: IndexBounds | undefined,
  rows: number,
  { low, high }: Place,
): IndexBounds {
  return {
    min: Math.max(bounds?.min ?? 0, -low),
    limit: Math.min(bounds?.limit ?? Number.POSITIVE_INFINITY, rows - high),
  };
}
