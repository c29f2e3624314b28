/** Gather, GatherElements, GatherND, Slice: the gradient goes back to where the numbers came from. */
import type { Calculus } from '../calculus.js';
import type { GradientRule } from '../rule.js';

const ADD = { reduction: { text: 'add' } } as const;

/** Rows of the gradient are added to the rows that were taken. */
export const gather: GradientRule = ({ x: [x, indices], dy: [dy], c, int }) => [
  () => {
    const rank = known(c, x!);
    const count = known(c, indices!);
    const axis = int('axis', 0) < 0 ? int('axis', 0) + rank : int('axis', 0);
    // ScatterND updates along the first axes, so the taken one goes in front.
    const front = [axis, ...range(0, rank).filter((i) => i !== axis)];
    const taken = range(axis, count);
    const rest = range(0, rank - 1 + count).filter((i) => !taken.includes(i));
    const rows = withLastAxis(c, indices!);
    const updates = c.transpose(dy!, [...taken, ...rest]);
    const sum = scatter(c, c.transpose(zeros(c, x!), front), rows, updates);
    return c.transpose(sum, inverse(front));
  },
  undefined,
];

export const gatherND: GradientRule = ({ x: [x, indices], dy: [dy], c, int }) => [
  () => {
    if (int('batch_dims', 0) !== 0)
      throw new Error('GatherND with batch_dims has no gradient rule');
    return scatter(c, zeros(c, x!), indices!, dy!);
  },
  undefined,
];

export const gatherElements: GradientRule = ({ x: [x, indices], dy: [dy], c, int }) => [
  () => {
    needScatterAdd(c);
    const attributes = { axis: { int: int('axis', 0) }, ...ADD };
    return c.op('ScatterElements', [zeros(c, x!), indices!, dy!], c.type(x!), attributes);
  },
  undefined,
];

/**
 * Slice: each element goes back to its index. The indices are what the same Slice makes of
 * 0, 1, 2, … in the shape of the input, so no case of starts, ends and steps is written twice.
 */
export const slice: GradientRule = ({ node, x: [x, ...bounds], dy: [dy], c }) => [
  () => {
    const { dtype, shape } = c.type(x!);
    const scalar = { dtype: 'int64', shape: [] } as const;
    const vector = { dtype: 'int64', shape: [null] } as const;
    const limits = [c.int64(0), c.op('Size', [x!], scalar), c.int64(1)];
    const numbered = c.reshape(c.op('Range', limits, vector), c.shapeOf(x!), shape);
    const indices = { dtype: 'int64', shape: c.shape(dy!) } as const;
    const kept = c.op('Slice', [numbered, ...bounds], indices, node.attributes);
    const flat = (value: string) => c.reshape(value, c.integers([-1]), [null]);
    const filled = [flat(zeros(c, x!)), flat(kept), flat(dy!)];
    const scattered = c.op('ScatterElements', filled, { dtype, shape: [null] });
    return c.reshape(scattered, c.shapeOf(x!), shape);
  },
];

function scatter(c: Calculus, target: string, indices: string, updates: string): string {
  needScatterAdd(c);
  return c.op('ScatterND', [target, indices, updates], c.type(target), ADD);
}

function needScatterAdd(c: Calculus): void {
  if (c.graph.opset < 16) throw new Error('scattering with addition needs opset 16');
}

function zeros(c: Calculus, like: string): string {
  return c.mul(like, c.number(like, 0));
}

function withLastAxis(c: Calculus, value: string): string {
  const shape = c.shape(value)!;
  const type = { dtype: c.type(value).dtype, shape: [...shape, 1] };
  if (c.graph.opset >= 13) return c.op('Unsqueeze', [value, c.integers([-1])], type);
  return c.op('Unsqueeze', [value], type, { axes: { ints: [shape.length] } });
}

function known(c: Calculus, value: string): number {
  const rank = c.rank(value);
  if (rank === undefined) throw new Error(`the rank of ${value} is not known`);
  return rank;
}

function range(start: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => start + i);
}

function inverse(perm: readonly number[]): number[] {
  return perm.map((_, i) => perm.indexOf(i));
}
