/** Slice and Pad: each is the other's gradient. */
import type { OpBuilder } from '../op-builder.js';
import type { GradientRule, RuleContext } from '../rule.js';
import { movedBack } from './movement.js';

/** Slice in steps of 1: zeros around the gradient. In other steps each element goes back by itself. */
export const slice: GradientRule = (context) => [
  () => {
    const { x, dy, c } = context;
    const bounds = boundsOf(context);
    if (!bounds) return movedBack(context);
    const sizes = staticPads(c, x[0]!, dy[0]!, bounds);
    return c.op('Pad', [dy[0]!, sizes ?? padsAtRunTime(c, x[0]!, dy[0]!, bounds)], c.type(x[0]!));
  },
];

interface Bounds {
  readonly axes: readonly number[];
  /** int64 [axes] */
  readonly starts: string;
}

/** undefined for axes that are computed, and for steps that are not surely 1. */
function boundsOf({ x, c }: RuleContext): Bounds | undefined {
  const [input, starts, , listed, steps] = x as [string, string?, string?, string?, string?];
  if (!starts) return undefined;
  const count = c.dims(starts)[0];
  const inOrder = typeof count === 'number' ? c.axes(input).slice(0, count) : undefined;
  const axes = listed ? c.constant(listed)?.map((axis) => c.axis(input, axis)) : inOrder;
  const isWhole = !steps || c.constant(steps)?.every((step) => step === 1);
  return axes && isWhole ? { axes, starts } : undefined;
}

/** The padding of the gradient, where starts and the sizes of the axes are known. */
function staticPads(c: OpBuilder, x: string, dy: string, { axes, starts }: Bounds) {
  const known = c.constant(starts);
  const begin = c.axes(x).map(() => 0);
  const end = [...begin];
  for (const [i, axis] of axes.entries()) {
    const [whole, kept] = [c.dims(x)[axis], c.dims(dy)[axis]];
    if (!known || typeof whole !== 'number' || typeof kept !== 'number') return undefined;
    const start = known[i]! < 0 ? known[i]! + whole : known[i]!;
    begin[axis] = Math.min(Math.max(start, 0), whole);
    end[axis] = whole - begin[axis] - kept;
  }
  return c.integers([...begin, ...end]);
}

function padsAtRunTime(c: OpBuilder, x: string, dy: string, { axes, starts }: Bounds): string {
  const type = { dtype: 'int64', shape: [axes.length] } as const;
  const start = c.cast(starts, 'int64');
  const [whole, kept] = [c.sizesOf(x, axes), c.sizesOf(dy, axes)];
  const zero = c.scalar('int64', 0);
  const fromEnd = c.op('Add', [start, whole], type);
  const counted = c.where(c.compare('Less', start, zero), fromEnd, start);
  const begin = c.op('Min', [c.op('Max', [counted, zero], type), whole], type);
  const end = c.sub(c.sub(whole, begin), kept);
  const none = c.integers(c.axes(x).map(() => 0));
  const sides = [begin, end].map((sizes) =>
    c.op('ScatterElements', [none, c.integers(axes), sizes], c.type(none)),
  );
  return c.concat(sides, 0);
}

/**
 * Pad with a constant: the part that was padded, and for the constant what lies outside of it. Edges,
 * reflections and wraps are copies of elements, each of which gets the sum of its copies.
 */
export const pad: GradientRule = (context) => {
  const { x, dy, c, text } = context;
  const [input, pads, value = '', axes = ''] = x as [string, string, string?, string?];
  if (text('mode', 'constant') !== 'constant') {
    const rest = axes ? [pads, '', axes] : [pads];
    return [() => movedBack({ ...context, x: [input, ...rest] })];
  }
  const inner = () => {
    const known = c.constant(pads)?.map((size) => (size === 0 ? 0 : -size));
    const opposite = known ? c.integers(known) : c.unary('Neg', pads);
    return c.op('Pad', [dy[0]!, opposite, ...(axes ? ['', axes] : [])], c.type(input));
  };
  const total = (gradient: string) => c.reduceSum(gradient, c.axes(gradient), false);
  return [inner, undefined, () => c.reshapeLike(c.sub(total(dy[0]!), total(inner())), value)];
};
