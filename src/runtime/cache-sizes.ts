/** The sizes of a decoder's cache where its inputs leave them open: what else in and beside the file tells them. */
import { readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { traceConstant } from '../graph/constants.js';
import type { ValueIndex } from '../graph/uses.js';
import { allGraphs, type Model, type Node } from '../onnx/model.js';

/** Sizes of a cache [batch, heads, past, head], each the likeliest first. */
export interface CacheSizes {
  readonly head: readonly number[];
  readonly heads: readonly number[];
  /** Of caches that hold a window of tokens. */
  readonly window: readonly number[];
}

/** Evidence on the cache: the configuration, the attention, and the caches whose sizes are given. */
export function cacheSizes(model: Model, values: ValueIndex): CacheSizes {
  const nodes = [...allGraphs(model.graph)].flatMap((graph) => graph.nodes);
  const attention = nodes.filter(({ opType }) => /Attention$/.test(opType));
  const { graph } = model;
  const shapes = [...graph.inputs, ...graph.outputs].map(({ shape }) => shape ?? []);
  // Keys and values may be joined: [2, batch, heads, past, head].
  const joined = shapes.filter((shape) => shape.length === 5 && shape[0] === 2);
  const caches = [...shapes.filter(({ length }) => length === 4), ...joined.map((s) => s.slice(1))];
  const told = (axis: number) => caches.map((shape) => shape[axis]);
  const config = configOf(model);
  return {
    window: sizes([...cacheRooms(model).values()]),
    head: sizes([
      config?.head_size,
      ...told(3),
      ...attention.flatMap((node) => headSizes(node, values)),
    ]),
    heads: sizes([
      config?.num_key_value_heads,
      ...told(1),
      ...attention.map((node) => node.attributes.get('kv_num_heads')?.i),
      ...attention.map((node) => node.attributes.get('num_heads')?.i),
    ]),
  };
}

/** Number of tokens that caches of a window hold from the start: ONNX Runtime does not run them empty. */
export function cacheRooms(model: Model): ReadonlyMap<string, number> {
  const rooms = new Map<string, number>();
  for (const graph of allGraphs(model.graph)) {
    for (const { opType, attributes, inputs } of graph.nodes) {
      if (opType !== 'GroupQueryAttention' || !attributes.get('sliding_window_cache')?.i) continue;
      const window = attributes.get('local_window_size')?.i ?? 0;
      for (const name of inputs.slice(3, 5)) if (name && window > 0) rooms.set(name, window);
    }
  }
  return rooms;
}

function sizes(found: readonly unknown[]): number[] {
  const isSize = (size: unknown): size is number =>
    Number.isSafeInteger(size) && (size as number) > 0;
  return [...new Set(found.filter(isSize))];
}

/** By the scale of the products, 1/sqrt(head), by the width of rotary tables, and by the layer after it. */
function headSizes(node: Node, values: ValueIndex): (number | undefined)[] {
  const width = (name: string | undefined) =>
    name ? traceConstant(values, node.graph, name)?.dims : undefined;
  const scale = node.attributes.get('scale')?.f;
  const cosines = node.opType === 'GroupQueryAttention' ? width(node.inputs[7])?.[1] : undefined;
  const heads = node.attributes.get('num_heads')?.i;
  const after = values.resolve(node.graph, node.outputs[0] ?? '')?.uses ?? [];
  const joined = after.map(({ node: reader }) => reader && inputWidth(reader, width));
  return [
    ...joined.map((size) => (size && heads ? size / heads : undefined)),
    cosines && 2 * cosines,
    scale ? Math.round(1 / scale ** 2) : undefined,
  ];
}

/** Number of features of a token that a layer takes. */
function inputWidth(
  { opType, inputs, attributes }: Node,
  dims: (name: string | undefined) => readonly number[] | undefined,
): number | undefined {
  if (opType === 'MatMulNBits' || opType === 'MatMulBnb4') return attributes.get('K')?.i;
  if (opType === 'Gemm') return dims(inputs[1])?.[attributes.get('transB')?.i ? 1 : 0];
  return /^(Fused)?MatMul(Integer)?$/.test(opType) ? dims(inputs[1])?.[0] : undefined;
}

const CONFIG = 'genai_config.json';
const MAX_CONFIG_BYTES = 1 << 20;

/** The decoder's part of onnxruntime-genai's configuration, if it is there and can be read. */
function configOf({ source }: Model): Readonly<Record<string, unknown>> | undefined {
  if (source.path === undefined) return undefined;
  const path = join(dirname(source.path), CONFIG);
  try {
    if (statSync(path).size > MAX_CONFIG_BYTES) return undefined;
    return JSON.parse(readFileSync(path, 'utf8'))?.model?.decoder;
  } catch {
    // Only a help for a guess.
    return undefined;
  }
}
