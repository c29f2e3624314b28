/** Nodes for what tokens settle: the inputs of a decoder that no sample gives. */
import type { JoinedCache, SettledInputs } from '../data/settled-inputs.js';
import type { Attributes, GraphBuilder } from '../graph/builder.js';
import { dataTypeNumber } from '../onnx/dtype.js';
import type { CountedInput } from '../runtime/counted-inputs.js';
import { cast, reduce, squeeze } from './losses/operators.js';

/** Puts nodes in front of the graph that make what was an input. */
export function computeSettled(graph: GraphBuilder, settled: SettledInputs): void {
  const { byTokens, joined, tokens, unread } = settled;
  if (tokens === undefined) return;
  const made = new Set([...byTokens, ...joined, ...unread].map(({ name }) => name));
  if (made.size === 0) return;
  const inputs = graph.inputs.filter(({ name }) => !made.has(name));
  graph.inputs.splice(0, graph.inputs.length, ...inputs);
  const own = graph.nodes.splice(0);
  const shape = graph.op('Shape', [tokens], {}, 'tokens_shape');
  for (const input of byTokens) addQuantity(graph, input, shape, settled);
  for (const cache of joined) emptyCache(graph, cache, shape);
  graph.nodes.push(...own);
}

function addQuantity(
  graph: GraphBuilder,
  { name, dtype, rank, quantity }: CountedInput,
  shape: string,
  { mask }: SettledInputs,
): void {
  const number = (value: number) => graph.scalar('int64', value);
  const length = (at: string) => graph.op('Gather', [shape, at]);
  const makers = {
    length: () => length(rank === 0 ? number(1) : graph.integers([1])),
    places: () => graph.op('Range', [number(0), length(number(1)), number(1)]),
    ends: () => {
      const shown = mask === undefined ? graph.op('Expand', [number(1), shape]) : mask;
      const lengths = reduce(graph, 'ReduceSum', cast(graph, shown, 'int64'), [1]);
      return graph.op('Sub', [squeeze(graph, lengths, 1), number(1)]);
    },
  };
  add(graph, 'Cast', [makers[quantity]()], name, { to: { int: dataTypeNumber(dtype) } });
}

function emptyCache(
  graph: GraphBuilder,
  { name, dtype, shape }: JoinedCache,
  tokens: string,
): void {
  const rows = graph.op('Gather', [tokens, graph.integers([0])]);
  const dims = [graph.integers([2]), rows, graph.integers(shape)];
  const size = graph.op('Concat', dims, { axis: { int: 0 } });
  add(graph, 'Expand', [graph.scalar(dtype, 0), size], name);
}

function add(
  graph: GraphBuilder,
  opType: string,
  inputs: readonly string[],
  output: string,
  attributes: Attributes = {},
): void {
  graph.add({ name: graph.fresh(output), opType, inputs, outputs: [output], attributes });
}
