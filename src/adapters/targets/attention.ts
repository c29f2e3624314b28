/** com.microsoft Attention, which multiplies its input with the weights of query, key and value as one. */
import type { ValueIndex } from '../../graph/uses.js';
import type { Node } from '../../onnx/model.js';
import type { Finding } from './target.js';
import { findWeight } from './weight.js';

const WEIGHT = 1;

/** X [.., in] and a packed weight [in, q + k + v]. */
export function packedAttention(
  values: ValueIndex,
  node: Node,
  added: ReadonlySet<string>,
): Finding {
  const name = beneath(values, node, WEIGHT, added);
  const weight = findWeight(values, node, { input: WEIGHT, name, transposed: false, factor: 1 });
  if (typeof weight === 'string') return { node, refusal: weight };
  const given = node.attributes.get('qkv_hidden_sizes')?.ints ?? [];
  const widths = given.length > 0 ? given : Array<number>(3).fill(weight.out / 3);
  const isWhole = widths.every((width) => Number.isInteger(width) && width > 0);
  if (!isWhole || widths.length !== 3 || sum(widths) !== weight.out) {
    const refusal = `its weight ${weight.name} has ${weight.out} columns, expected those of query, key and value (${widths.join(', ')})`;
    return { node, refusal };
  }
  const geometry = { kind: 'inside', widths } as const;
  return { node, input: node.inputs[0]!, output: node.outputs[0]!, weight, geometry };
}

/** The value that an input of a node read before adapters were added to it. */
function beneath(
  values: ValueIndex,
  { graph, inputs }: Node,
  input: number,
  added: ReadonlySet<string>,
): string {
  let name = inputs[input]!;
  for (let left = added.size; left > 0; left--) {
    const producer = values.resolve(graph, name)?.producer;
    if (!producer || !added.has(producer.name)) break;
    name = producer.inputs[0]!;
  }
  return name;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
