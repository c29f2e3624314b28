/** Pad, Tile, CumSum, Trilu, DepthToSpace, SpaceToDepth, ScatterElements, ScatterND, TopK. */
import type { Calculus } from '../calculus.js';
import type { GradientRule } from '../rule.js';

/** Pad with constants: the gradient of the part that was padded. */
export const pad: GradientRule = ({ node, x: [x], dy: [dy], c, ints, text }) => [
  () => {
    if (text('mode', 'constant') !== 'constant')
      throw new Error(`Pad by ${text('mode', '')} has no gradient rule`);
    if (node.inputs[3]) throw new Error('Pad with axes has no gradient rule');
    const rank = c.rank(x!);
    if (rank === undefined) throw new Error(`the rank of ${x} is not known`);
    // Padding by the opposite amounts cuts off what was added.
    const type = c.type(x!);
    const attribute = ints('pads');
    if (attribute) return c.op('Pad', [dy!], type, { pads: { ints: attribute.map((p) => -p) } });
    const amounts = c.op('Neg', [node.inputs[1]!], { dtype: 'int64', shape: [2 * rank] });
    return c.op('Pad', [dy!, amounts], type);
  },
];

/** Tile: the copies of each element are summed, [r0, d0, r1, d1, ..] over the r. */
export const tile: GradientRule = ({ x: [x, repeats], dy: [dy], c }) => [
  () => {
    const rank = c.rank(x!);
    if (rank === undefined) throw new Error(`the rank of ${x} is not known`);
    const { dtype } = c.type(x!);
    const int64 = (length: number) => ({ dtype: 'int64', shape: [length] }) as const;
    const columns = [repeats!, c.shapeOf(x!)].map((vector) =>
      c.op('Reshape', [vector, c.integers([-1, 1])], { dtype: 'int64', shape: [rank, 1] }),
    );
    const pairs = c.op(
      'Concat',
      columns,
      { dtype: 'int64', shape: [rank, 2] },
      { axis: { int: 1 } },
    );
    const split = c.op('Reshape', [pairs, c.integers([-1])], int64(2 * rank));
    const apart = c.op('Reshape', [dy!, split], { dtype, shape: Array(2 * rank).fill(null) });
    const sum = c.reduceSum(
      apart,
      Array.from({ length: rank }, (_, i) => 2 * i),
      false,
    );
    return c.reshape(sum, c.shapeOf(x!), c.shape(x!));
  },
];

/** CumSum: the sum from the other end. */
export const cumSum: GradientRule = ({ x: [, axis], dy: [dy], c, int }) => [
  () =>
    c.op('CumSum', [dy!, axis!], c.type(dy!), {
      exclusive: { int: int('exclusive', 0) },
      reverse: { int: 1 - int('reverse', 0) },
    }),
];

export const trilu: GradientRule = ({ node, dy: [dy], c, int }) => [
  () =>
    c.op('Trilu', [dy!, ...node.inputs.slice(1)], c.type(dy!), { upper: { int: int('upper', 1) } }),
];

export const spaceToDepth: GradientRule = ({ x: [x], dy: [dy], c, int }) => [
  () => c.op('DepthToSpace', [dy!], c.type(x!), { blocksize: { int: int('blocksize', 1) } }),
];

/** [N, b², C, H, W] by DCR, [N, C, b², H, W] by CRD: the latter's channels change places first. */
export const depthToSpace: GradientRule = ({ x: [x], dy: [dy], c, int, text }) => [
  () => {
    const b = int('blocksize', 1);
    const depth = c.op('SpaceToDepth', [dy!], c.type(x!), { blocksize: { int: b } });
    if (text('mode', 'DCR') === 'DCR') return depth;
    const shape = c.shape(x!);
    const channels = shape?.[1];
    if (!shape || typeof channels !== 'number')
      throw new Error(`the channels of ${x} are not known`);
    const groups = channels / (b * b);
    const { dtype } = c.type(x!);
    const split = c.reshape(depth, c.integers([0, b * b, groups, -1]), [
      shape[0]!,
      b * b,
      groups,
      null,
    ]);
    const turned = c.op(
      'Transpose',
      [split],
      { dtype, shape: null },
      { perm: { ints: [0, 2, 1, 3] } },
    );
    return c.reshape(turned, c.shapeOf(x!), shape);
  },
];

/** The overwritten places pass nothing to the data, and their gradient to the updates. */
export const scatterElements: GradientRule = ({
  x: [data, indices, updates],
  dy: [dy],
  c,
  int,
  text,
}) => {
  const axis = { axis: { int: int('axis', 0) } };
  const mode = text('reduction', 'none');
  if (mode !== 'none' && mode !== 'add')
    throw new Error(`ScatterElements with ${mode} has no gradient rule`);
  const zeros = () => c.mul(updates!, c.number(updates!, 0));
  return [
    () =>
      mode === 'add' ? dy! : c.op('ScatterElements', [dy!, indices!, zeros()], c.type(data!), axis),
    undefined,
    () => c.op('GatherElements', [dy!, indices!], c.type(updates!), axis),
  ];
};

export const scatterND: GradientRule = ({ x: [data, indices, updates], dy: [dy], c, text }) => {
  const mode = text('reduction', 'none');
  if (mode !== 'none' && mode !== 'add')
    throw new Error(`ScatterND with ${mode} has no gradient rule`);
  const zeros = () => c.mul(updates!, c.number(updates!, 0));
  return [
    () => (mode === 'add' ? dy! : c.op('ScatterND', [dy!, indices!, zeros()], c.type(data!))),
    undefined,
    () => c.op('GatherND', [dy!, indices!], c.type(updates!)),
  ];
};

/** The values came from where the indices (the second output) say. */
export const topK: GradientRule = ({ x: [x], y: [, indices], dy: [dy], c, int }) => [
  () => {
    const axis = { axis: { int: int('axis', -1) } };
    return c.op('ScatterElements', [zerosLike(c, x!), indices!, dy!], c.type(x!), axis);
  },
];

function zerosLike(c: Calculus, value: string): string {
  return c.mul(value, c.number(value, 0));
}
