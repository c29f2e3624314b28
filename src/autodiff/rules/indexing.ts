/** Gather, Scatter and TopK: the gradient goes to where the indices point, or comes from there. */
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { GradientRule, RuleContext } from '../rule.js';
import { movedBack, numbered, scatterAdd } from './movement.js';

/** Rows of the gradient are added to the rows that were taken. */
export const gather: GradientRule = ({ x: [x, indices], dy: [dy], c, int }) => [
  () => {
    const axis = c.axis(x!, int('axis', 0));
    const count = c.rank(indices!);
    // ScatterND updates along the first axes, so the taken one goes in front.
    const front = [axis, ...c.axes(x!).filter((i) => i !== axis)];
    const taken = Array.from({ length: count }, (_, i) => axis + i);
    const rest = c.axes(dy!).filter((i) => !taken.includes(i));
    const rows = c.unsqueeze(c.cast(indices!, 'int64'), [count]);
    const updates = c.transpose(dy!, [...taken, ...rest]);
    const zeros = c.op('Expand', [c.number(x!, 0), c.sizesOf(x!, front)], {
      dtype: c.type(x!).dtype,
      shape: front.map((i) => c.dims(x!)[i]!),
    });
    return c.transposeBack(addRows(c, zeros, rows, updates), front);
  },
  undefined,
];

function addRows(c: OpBuilder, target: string, indices: string, updates: string): string {
  return scatterAdd(c, 'ScatterND', [target, indices, updates]);
}

export const gatherND: GradientRule = (context) => [
  () => {
    const { x, dy, c, int } = context;
    if (int('batch_dims', 0) > 0) return movedBack(context);
    return addRows(c, c.zeros(x[0]!), x[1]!, dy[0]!);
  },
  undefined,
];

export const gatherElements: GradientRule = ({ x: [x, indices], dy: [dy], c, int }) => [
  () => {
    const axis = { axis: { int: int('axis', 0) } };
    return scatterAdd(c, 'ScatterElements', [c.zeros(x!), indices!, dy!], axis);
  },
  undefined,
];

/** Every place took the first value or the second. */
export const oneHot: GradientRule = ({ node, x: [indices, depth, values], dy: [dy], c }) => [
  'none',
  'none',
  () => {
    const { dtype } = c.type(values!);
    const isHot = c.again(node, [indices!, depth!, c.vector(dtype, [0, 1])], c.type(dy!));
    const total = (gradient: string) => {
      const sum = c.reduceSum(gradient, c.axes(gradient), false);
      return c.reshape(sum, c.integers([1]), [1]);
    };
    const hot = total(c.mul(dy!, isHot));
    return c.concat([c.sub(total(dy!), hot), hot], 0);
  },
];

/** The values came from where the indices (the second output) say. */
export const topK: GradientRule = ({ x: [x], y: [, indices], dy: [dy], c, int }) => [
  () => {
    const axis = { axis: { int: int('axis', -1) } };
    return c.op('ScatterElements', [c.zeros(x!), indices!, dy!], c.type(x!), axis);
  },
];

/** Whether updates are added: then the data keep their gradient. Else it ends where they overwrite. */
function isSum({ text }: RuleContext): boolean {
  const mode = text('reduction', 'none');
  if (mode === 'none' || mode === 'add') return mode === 'add';
  throw new Refusal(`reduction ${mode} is not supported, only none and add`);
}

/**
 * The gradient of updates: what lies where they went. Of several in one place the last is there, and the
 * others have no say: each that finds its own number again is there.
 * @param scatter writes updates over data
 * @param gather reads the places of updates
 */
function updatesGradient(
  context: RuleContext,
  scatter: (data: string, updates: string) => string,
  gather: (data: string) => string,
): string {
  const { x, dy, c } = context;
  const back = gather(dy[0]!);
  if (isSum(context)) return back;
  const numbers = numbered(c, x[2]!);
  const written = scatter(c.cast(c.zeros(x[0]!), 'int64'), numbers);
  return c.masked(c.compare('Equal', gather(written), numbers), back);
}

export const scatterElements: GradientRule = (context) => {
  const [, indices, updates] = context.x as [string, string, string];
  const { dy, c, int } = context;
  const axis = { axis: { int: int('axis', 0) } };
  const scatter = (into: string, from: string) =>
    c.op('ScatterElements', [into, indices, from], c.type(into), axis);
  const gather = (from: string) => {
    const type = { dtype: c.type(from).dtype, shape: c.shape(updates) };
    return c.op('GatherElements', [from, indices], type, axis);
  };
  return [
    () => (isSum(context) ? dy[0]! : scatter(dy[0]!, c.zeros(updates))),
    undefined,
    () => updatesGradient(context, scatter, gather),
  ];
};

export const scatterND: GradientRule = (context) => {
  const [, indices, updates] = context.x as [string, string, string];
  const { dy, c } = context;
  const scatter = (into: string, from: string) =>
    c.op('ScatterND', [into, indices, from], c.type(into));
  const gather = (from: string) => {
    const type = { dtype: c.type(from).dtype, shape: c.shape(updates) };
    return c.op('GatherND', [from, indices], type);
  };
  return [
    () => (isSum(context) ? dy[0]! : scatter(dy[0]!, c.zeros(updates))),
    undefined,
    () => updatesGradient(context, scatter, gather),
  ];
};
