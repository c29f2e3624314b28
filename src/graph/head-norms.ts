/**
 * Norms of the heads of queries and keys that com.microsoft GroupQueryAttention contains, as nodes in front of it:
 * only some of the runtime's providers have the operator with them.
 */
import type { NewNode } from '../onnx/encode.js';
import type { Attributes, GraphBuilder } from './builder.js';

/** The gains of the norms among the inputs of the operator. */
const GAINS = [14, 15] as const;
const EPSILON = 'qk_norm_epsilon';

/** Whether a node contains such norms. */
export function hasHeadNorms({ opType, inputs }: Pick<NewNode, 'opType' | 'inputs'>): boolean {
  return opType === 'GroupQueryAttention' && GAINS.some((i) => Boolean(inputs[i]));
}

export function writeOutHeadNorms(graph: GraphBuilder): void {
  if (!graph.nodes.some(hasHeadNorms)) return;
  const nodes = graph.nodes.splice(0);
  for (const node of nodes) graph.nodes.push(hasHeadNorms(node) ? written(graph, node) : node);
}

/** The node without its norms; those are in the graph then. */
function written(graph: GraphBuilder, node: NewNode): NewNode {
  const { [EPSILON]: epsilon = { float: 1e-6 }, ...attributes } = node.attributes ?? {};
  const counts = ['num_heads', 'kv_num_heads'].map((name) => countOf(attributes, name));
  const heads = [counts[0]!, counts[1]!, counts[1]!];
  const gains = GAINS.map((i) => node.inputs[i] ?? '');
  const size = graph.initializers.get(gains.find((gain) => gain !== '')!)?.dims[0];
  // The kernels say what is wrong with such a node.
  if (size === undefined) return node;
  const [query = '', key, value] = node.inputs;
  const parts =
    key && value
      ? [query, key, value]
      : graph.ops(
          'Split',
          graph.opset < 13 ? [query] : [query, graph.integers(heads.map((count) => count * size))],
          3,
          {
            axis: { int: -1 },
            ...(graph.opset < 13 ? { split: { ints: heads.map((count) => count * size) } } : {}),
          },
          `${node.name}/part`,
        );
  const normed = parts.map((part, i) => {
    const gain = gains[i];
    if (!gain) return part;
    const shape = (sizes: readonly number[]) => graph.integers([0, 0, ...sizes]);
    const split = graph.op('Reshape', [part, shape([heads[i]!, size])], {}, `${node.name}/heads`);
    const norm = { axis: { int: -1 }, epsilon, stash_type: { int: 1 } };
    const made = graph.op('SimplifiedLayerNormalization', [split, gain], norm, `${node.name}/norm`);
    return graph.op('Reshape', [made, shape([heads[i]! * size])], {}, `${node.name}/normed`);
  });
  const rest = node.inputs.map((input, i) => (GAINS.some((gain) => gain === i) ? '' : input));
  return { ...node, attributes, inputs: withoutEnd([...normed, ...rest.slice(3)]) };
}

function countOf(attributes: Attributes, name: string): number {
  const value = attributes[name];
  return value && 'int' in value ? Number(value.int) : 1;
}

/** Without the inputs that are left out at the end. */
function withoutEnd(inputs: readonly string[]): string[] {
  const last = inputs.findLastIndex((input) => input !== '');
  return inputs.slice(0, last + 1);
}
