/** Softmax as exporters write it: the operator, or exponentials over their sum. */
import type { NewNode } from '../../onnx/encode.js';
import type { Producers } from './producers.js';

/**
 * The value whose softmax a value is, over one axis: after the operator, exp(y) / Σ exp(y), exp(y) ·
 * (1 / Σ exp(y)), or the exponential of a log-softmax. A maximum that is subtracted before is left out
 * too, where it is one of that axis: softmax does not see it.
 * @param axis counted from the end
 * @param before opset 13 the operator takes all axes from its own on as one
 */
export function beforeSoftmax(
  producers: Producers,
  value: string,
  axis: number,
  isOverAxis: (node: NewNode) => boolean,
): string | undefined {
  const node = producers.of(value, 'Softmax', 'Div', 'Mul', 'Exp');
  if (node?.opType === 'Softmax') return isOverAxis(node) ? node.inputs[0] : undefined;
  if (node?.opType === 'Exp') return beforeLogSoftmax(producers, node.inputs[0]!, axis, isOverAxis);
  for (const [share, sum] of node ? quotients(producers, node) : []) {
    const exponent = exponentOf(producers, share);
    if (exponent !== undefined && isSumOf(producers, sum, share, axis)) {
      return withoutMaximum(producers, exponent, axis);
    }
  }
  return undefined;
}

/** The value whose log-softmax a value is: z - log Σ exp(z). */
export function beforeLogSoftmax(
  producers: Producers,
  value: string,
  axis: number,
  isOverAxis: (node: NewNode) => boolean,
): string | undefined {
  const node = producers.of(producers.plain(value), 'LogSoftmax', 'Log', 'Sub');
  if (node?.opType === 'LogSoftmax') return isOverAxis(node) ? node.inputs[0] : undefined;
  if (node?.opType === 'Log')
    return beforeSoftmax(producers, producers.plain(node.inputs[0]!), axis, isOverAxis);
  const [z, sum] = node?.inputs ?? [];
  if (z === undefined || !isLogSumExpOf(producers, sum!, z, axis)) return undefined;
  return withoutMaximum(producers, z, axis);
}

/** Dividend and divisor of a node: a / b, a · (1/b), (1/b) · a. */
function quotients(producers: Producers, { opType, inputs }: NewNode): [string, string][] {
  const [a, b] = inputs as [string, string];
  if (opType === 'Div') return [[a, b]];
  const [overA, overB] = [reciprocalOf(producers, a), reciprocalOf(producers, b)];
  return [
    ...(overB ? [[a, overB] as [string, string]] : []),
    ...(overA ? [[b, overA] as [string, string]] : []),
  ];
}

/** The value that a value is one over, through changes of its shape. */
export function reciprocalOf(producers: Producers, value: string): string | undefined {
  const node = producers.of(throughShape(producers, value), 'Reciprocal', 'Div', 'Pow');
  const [a, b] = node?.inputs ?? [];
  if (node?.opType === 'Reciprocal') return a;
  if (node?.opType === 'Div') return producers.isNumber(a, 1) ? b : undefined;
  return producers.isNumber(b, -1) ? a : undefined;
}

function exponentOf(producers: Producers, value: string): string | undefined {
  return producers.of(producers.plain(value), 'Exp')?.inputs[0];
}

/** Whether a value is the sum over the axis of the other, for each of its elements. */
function isSumOf(producers: Producers, value: string, of: string, axis: number): boolean {
  const sum = reduction(producers, value, of, axis, ['ReduceSum', 'ReduceL1']);
  return sum !== undefined && producers.same(sum, of);
}

function isLogSumExpOf(producers: Producers, value: string, z: string, axis: number): boolean {
  const direct = reduction(producers, value, z, axis, ['ReduceLogSumExp']);
  if (direct !== undefined) return producers.same(direct, z);
  const node = producers.of(throughShape(producers, value), 'Log', 'Add');
  if (node?.opType === 'Log') return isSumOfExp(producers, node.inputs[0]!, z, axis);
  // m + log Σ exp(z - m), where m is in the exponent too.
  return (node?.inputs ?? []).some((log, i) => {
    const shifted = producers.of(throughShape(producers, log), 'Log');
    const exponent = shifted && summedExponent(producers, shifted.inputs[0]!, z, axis);
    const difference = producers.of(exponent === undefined ? '' : producers.plain(exponent), 'Sub');
    if (!difference) return false;
    const most = throughShape(producers, difference.inputs[1]!);
    const added = throughShape(producers, node!.inputs[1 - i]!);
    return producers.same(difference.inputs[0]!, z) && producers.same(most, added);
  });
}

function isSumOfExp(producers: Producers, value: string, z: string, axis: number): boolean {
  const exponent = summedExponent(producers, value, z, axis);
  return exponent !== undefined && producers.same(exponent, z);
}

/** y where a value is Σ exp(y) over the axis. */
function summedExponent(producers: Producers, value: string, like: string, axis: number) {
  const sum = reduction(producers, value, like, axis, ['ReduceSum', 'ReduceL1']);
  return sum === undefined ? undefined : exponentOf(producers, sum);
}

/**
 * The value that is reduced over the axis of `like` to a value beside its elements: that has size 1 at the
 * axis, from the reduction itself or by a reshape after it.
 */
function reduction(
  producers: Producers,
  value: string,
  like: string,
  axis: number,
  opTypes: readonly string[],
): string | undefined {
  const node = producers.of(throughShape(producers, value), ...opTypes);
  if (!node || !producers.reduces(node, axis)) return undefined;
  const kept = node.attributes?.keepdims;
  const keepsAxis = !(kept && 'int' in kept && kept.int === 0);
  return keepsAxis || isBeside(producers, value, like, axis) ? node.inputs[0] : undefined;
}

/** Whether some stage on the way to the reduction has the rank of `like` and size 1 at the axis. */
function isBeside(producers: Producers, value: string, like: string, axis: number): boolean {
  const [shape, wanted] = [producers.shape(value), producers.shape(like)];
  if (shape && wanted && shape.length === wanted.length && shape.at(axis) === 1) return true;
  const node = producers.of(value, ...SHAPE_ONLY);
  return node !== undefined && isBeside(producers, node.inputs[0]!, like, axis);
}

const SHAPE_ONLY = ['Identity', 'Cast', 'Unsqueeze', 'Reshape', 'Expand'];

function throughShape(producers: Producers, value: string): string {
  const node = producers.of(value, ...SHAPE_ONLY);
  return node ? throughShape(producers, node.inputs[0]!) : value;
}

/** z where a value is z - max z over the axis, else the value itself. */
function withoutMaximum(producers: Producers, value: string, axis: number): string {
  const node = producers.of(producers.plain(value), 'Sub');
  const [z, most] = node?.inputs ?? [];
  if (z === undefined) return value;
  const from = reduction(producers, most!, z, axis, ['ReduceMax']);
  return from !== undefined && producers.same(from, z) ? z : value;
}
