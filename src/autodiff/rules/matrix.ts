/** MatMul, Gemm and FusedMatMul. */
import type { Calculus } from '../calculus.js';
import type { GradientRule } from '../rule.js';

/** dA = dY · Bᵀ, dB = Aᵀ · dY, summed over the batch axes that were broadcast. */
export const matMul: GradientRule = ({ x: [a, b], dy: [dy], c }) => {
  const vectorA = c.rank(a!) === 1;
  const vectorB = c.rank(b!) === 1;
  // A vector is a matrix of one row, or of one column, whose extra axis the product drops.
  const left = vectorA ? withAxis(c, a!, 0) : a!;
  const right = vectorB ? withAxis(c, b!, 1) : b!;
  const full = vectorA || vectorB ? productAxes(c, dy!, vectorA, vectorB) : dy!;
  return [
    () => c.reshapeLike(c.sumTo(c.matMul(full, c.swapLast(right)), left), a!),
    () => c.reshapeLike(weightGradient(c, left, full, right), b!),
  ];
};

/**
 * Aᵀ · dY for a matrix B under a batch of A: one product over all rows instead of one a batch
 * element and a sum over them.
 */
function weightGradient(c: Calculus, a: string, dy: string, b: string): string {
  if (c.rank(b) !== 2 || c.rank(a) === 2) return c.sumTo(c.matMul(c.swapLast(a), dy), b);
  const flat = (value: string) => {
    const last = c.shape(value)!.at(-1)!;
    const size = typeof last === 'number' ? last : undefined;
    if (size === undefined) return undefined;
    return c.reshape(value, c.integers([-1, size]), [null, size]);
  };
  const [rowsA, rowsY] = [flat(a), flat(dy)];
  if (!rowsA || !rowsY) return c.sumTo(c.matMul(c.swapLast(a), dy), b);
  return c.matMul(c.transpose(rowsA, [1, 0]), rowsY);
}

function withAxis(c: Calculus, vector: string, axis: 0 | 1): string {
  const [size] = c.shape(vector)!;
  return c.reshape(
    vector,
    c.integers(axis === 0 ? [1, -1] : [-1, 1]),
    axis === 0 ? [1, size!] : [size!, 1],
  );
}

/** dY with the axes that the product of vectors dropped. */
function productAxes(c: Calculus, dy: string, row: boolean, column: boolean): string {
  const shape = c.shape(dy);
  if (!shape) throw new Error(`the rank of ${dy} is not known`);
  const lead = row && column ? shape : shape.slice(0, -1);
  const last = shape.at(-1) ?? 1;
  const full = [...lead, row ? 1 : last, column ? 1 : last];
  if (row && column) return c.reshape(dy, c.integers([1, 1]), [1, 1]);
  const axis = row ? full.length - 2 : full.length - 1;
  const { dtype } = c.type(dy);
  const type = { dtype, shape: full };
  if (c.graph.opset >= 13) return c.op('Unsqueeze', [dy, c.integers([axis])], type);
  return c.op('Unsqueeze', [dy], type, { axes: { ints: [axis] } });
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
    () => c.sumTo(c.scale(dy!, beta), bias!),
  ];
};

/** com.microsoft FusedMatMul: `Y = α · A' · B'` on the last two axes. */
export const fusedMatMul: GradientRule = (context) => {
  const { x, dy, c, int, float } = context;
  if (int('transBatchA', 0) || int('transBatchB', 0)) {
    throw new Error('FusedMatMul with transBatchA or transBatchB has no gradient rule');
  }
  const [transA, transB] = [int('transA', 0) !== 0, int('transB', 0) !== 0];
  const [a, b] = [transA ? c.swapLast(x[0]!) : x[0]!, transB ? c.swapLast(x[1]!) : x[1]!];
  const scaled = c.scale(dy[0]!, float('alpha', 1));
  const [da, db] = matMul({ ...context, x: [a, b], dy: [scaled] });
  return [() => (transA ? c.swapLast(da!()) : da!()), () => (transB ? c.swapLast(db!()) : db!())];
};
