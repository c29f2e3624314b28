/** MatMul, Gemm, FusedMatMul and MatMulNBits. */
import { dequantizedBlocks } from '../block-weight.js';
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { GradientRule, RuleContext } from '../rule.js';

/** dA = dY · Bᵀ, dB = Aᵀ · dY, summed over the batch axes that were broadcast. */
export const matMul = ({ x: [a, b], dy: [dy], c }: RuleContext): (() => string)[] => {
  const [isRow, isColumn] = [c.rank(a!) === 1, c.rank(b!) === 1];
  // A vector is a matrix of one row, or of one column, whose extra axis the product drops.
  const left = isRow ? c.unsqueeze(a!, [0]) : a!;
  const right = isColumn ? c.unsqueeze(b!, [1]) : b!;
  const full = c.unsqueeze(dy!, [...(isRow ? [-2] : []), ...(isColumn ? [-1] : [])]);
  return [
    () => c.reshapeLike(c.sumTo(c.matMul(full, c.swapLast(right)), left), a!),
    () => c.reshapeLike(rightGradient(c, left, full, right), b!),
  ];
};

/**
 * Aᵀ · dY; for a matrix B under a batch of A one product over all rows, instead of one a batch
 * element and a sum over them.
 */
function rightGradient(c: OpBuilder, a: string, dy: string, b: string): string {
  const [rows, products] = c.rank(b) === 2 ? [asRows(c, a), asRows(c, dy)] : [];
  if (rows && products) return c.matMul(c.transpose(rows, [1, 0]), products);
  const product = isNarrower(c, dy, a)
    ? c.swapLast(c.matMul(c.swapLast(dy), a))
    : c.matMul(c.swapLast(a), dy);
  return c.sumTo(product, b);
}

/**
 * Whether a matrix has surely fewer columns, or a fixed number against one that follows the data: then
 * it is the one to transpose, as (dYᵀ · A)ᵀ. In attention, where A is the weights of all pairs, that
 * takes half the time, and the outer transpose goes into the one that merges the heads.
 */
function isNarrower(c: OpBuilder, value: string, other: string): boolean {
  const [columns, others] = [c.dims(value).at(-1), c.dims(other).at(-1)];
  return typeof columns === 'number' && (typeof others !== 'number' || columns < others);
}

/** As a matrix with the same last axis; undefined where its size is open. */
function asRows(c: OpBuilder, value: string): string | undefined {
  const dims = c.dims(value);
  if (dims.length === 2) return value;
  const size = dims.at(-1);
  if (typeof size !== 'number') return undefined;
  const lead = dims.slice(0, -1);
  const known = lead.every((dim) => typeof dim === 'number');
  const count = known ? (lead as number[]).reduce((x, y) => x * y, 1) : null;
  return c.reshape(value, c.integers([-1, size]), [count, size]);
}

/** `Y = α · A' · B' + β · C` */
export const gemm: GradientRule = ({ x: [a, b, bias], dy: [dy], c, int, float }) => {
  const [transA, transB] = [int('transA', 0) !== 0, int('transB', 0) !== 0];
  const [alpha, beta] = [float('alpha', 1), float('beta', 1)];
  const product = (p: string, transP: boolean, q: string, transQ: boolean, like: string) =>
    c.op('Gemm', [p, q], c.type(like), {
      ...(transP ? { transA: { int: 1 } } : {}),
      ...(transQ ? { transB: { int: 1 } } : {}),
      ...(alpha === 1 ? {} : { alpha: { float: alpha } }),
    });
  return [
    () => (transA ? product(b!, transB, dy!, true, a!) : product(dy!, false, b!, !transB, a!)),
    () => (transB ? product(dy!, true, a!, transA, b!) : product(a!, !transA, dy!, false, b!)),
    () => c.scale(c.sumTo(dy!, bias!), beta),
  ];
};

/** com.microsoft FusedMatMul: `Y = α · A' · B'` with the axes of A and B rearranged first. */
export const fusedMatMul: GradientRule = (context) => {
  const { x, dy, c, int, float } = context;
  const perms = ['A', 'B'].map((side, i) =>
    operandAxes(c.rank(x[i]!), int(`trans${side}`, 0) !== 0, int(`transBatch${side}`, 0) !== 0),
  );
  const transposed = perms.map((perm, i) => c.transpose(x[i]!, perm));
  const scaled = c.scale(dy[0]!, float('alpha', 1));
  const gradients = matMul({ ...context, x: transposed, dy: [scaled] });
  return perms.map((perm, i) => () => c.transposeBack(gradients[i]!(), perm));
};

/** transBatch takes the first axis after the batch axes, trans exchanges the last two. */
function operandAxes(rank: number, trans: boolean, transBatch: boolean): number[] {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  if (transBatch) axes.splice(rank - 2, 0, axes.shift()!);
  if (trans) axes.push(axes.splice(rank - 2, 1)[0]!);
  return axes;
}

/**
 * com.microsoft MatMulNBits: `Y = X · W + b`, W [K, N] in few bits. dX = dY · Wᵀ, with Wᵀ dequantized
 * in each step: kept, it would take eight times the memory of the weight.
 */
export const matMulNBits: GradientRule = (context) => {
  const {
    x,
    dy: [dy],
    c,
  } = context;
  const [, weight = '', scales = '', zeros = '', groups = '', bias] = x;
  const inputs = { weight, scales, zeros, groups };
  return [
    () => c.matMul(dy!, dequantizedBlocks(context, inputs) ?? weightByIdentity(context)),
    undefined,
    () => {
      throw new Refusal('the scales of a quantized weight cannot be trained');
    },
    undefined,
    undefined,
    () => c.sumTo(dy!, bias!),
  ];
};

/** Wᵀ [N, K] as what the operator itself makes of the identity matrix. */
function weightByIdentity({ node, x: [input, ...others], c, int }: RuleContext): string {
  const [k, n] = [int('K', 0), int('N', 0)];
  const { dtype } = c.type(input!);
  // Level 4 would round the identity, and with it the gradient, to 8 bits.
  const exact = { ...node, attributes: { ...node.attributes, accuracy_level: { int: 0 } } };
  const inputs = withoutTail([c.eye(dtype, k), ...others.slice(0, 4)]);
  return c.transpose(c.again(exact, inputs, { dtype, shape: [k, n] }), [1, 0]);
}

/** Without the inputs that are left out at the end. */
function withoutTail(inputs: readonly string[]): string[] {
  const last = inputs.findLastIndex((name) => name !== '');
  return inputs.slice(0, last + 1);
}
