/** Sigmoid as exporters write it: the operator, or exponentials, or a tanh. */
import type { GraphBuilder } from '../../graph/builder.js';
import type { DataTypeName } from '../../onnx/dtype.js';
import type { Producers } from './producers.js';
import { reciprocalOf } from './softmax-parts.js';

/**
 * The value whose sigmoid a value is: after the operator, 1 / (1 + exp(-z)), exp(z) / (1 + exp(z)), or
 * (1 + tanh(z/2)) / 2. Where the graph does not have z itself, nodes that make it are added.
 */
export function beforeSigmoid(
  graph: GraphBuilder,
  producers: Producers,
  value: string,
  dtype: DataTypeName,
): string | undefined {
  const operator = producers.of(value, 'Sigmoid');
  if (operator) return operator.inputs[0];
  const minus = exponentBesideOne(producers, reciprocalOf(producers, value));
  if (minus !== undefined) return negated(producers, minus) ?? graph.op('Neg', [minus]);
  const half = tanhArgument(producers, value);
  if (half !== undefined) {
    return halfOf(producers, half) ?? graph.op('Mul', [half, graph.scalar(dtype, 2)]);
  }
  return ofQuotient(producers, value);
}

/** z of exp(z) / (1 + exp(z)) */
function ofQuotient(producers: Producers, value: string): string | undefined {
  const [share, whole] = producers.of(value, 'Div')?.inputs ?? [];
  const exponent = producers.of(producers.plain(share ?? ''), 'Exp')?.inputs[0];
  const other = exponentBesideOne(producers, whole);
  if (exponent === undefined || other === undefined) return undefined;
  return producers.same(exponent, other) ? exponent : undefined;
}

/** x of 1 + exp(x) */
function exponentBesideOne(producers: Producers, sum: string | undefined): string | undefined {
  const other = besides(producers, sum, 'Add', 1);
  return producers.of(producers.plain(other ?? ''), 'Exp')?.inputs[0];
}

/** The other operand of a sum or product with a constant number. */
function besides(producers: Producers, value: string | undefined, opType: string, number: number) {
  const [a, b] = producers.of(producers.plain(value ?? ''), opType)?.inputs ?? [];
  if (producers.isNumber(a, number)) return b;
  return producers.isNumber(b, number) ? a : undefined;
}

/** z of -z */
function negated(producers: Producers, value: string): string | undefined {
  const node = producers.of(producers.plain(value), 'Neg');
  return node?.inputs[0] ?? besides(producers, value, 'Mul', -1);
}

/** The value whose half a value is. */
function halfOf(producers: Producers, value: string | undefined): string | undefined {
  const product = besides(producers, value, 'Mul', 0.5);
  if (product !== undefined) return product;
  const [a, b] = producers.of(producers.plain(value ?? ''), 'Div')?.inputs ?? [];
  return producers.isNumber(b, 2) ? a : undefined;
}

/** h of (1 + tanh(h)) / 2, and of 0.5 + tanh(h) / 2 */
function tanhArgument(producers: Producers, value: string): string | undefined {
  const tanh =
    besides(producers, halfOf(producers, value), 'Add', 1) ??
    halfOf(producers, besides(producers, value, 'Add', 0.5));
  return producers.of(producers.plain(tanh ?? ''), 'Tanh')?.inputs[0];
}
