/** Pools: GlobalAveragePool, GlobalMaxPool, AveragePool, MaxPool. */
import type { GradientRule } from '../rule.js';

/** Every place gets its share: 1 / the number of places. */
export const globalAveragePool: GradientRule = ({ x: [x], y: [y], dy: [dy], c }) => [
  () => {
    const size = (value: string) =>
      c.cast(c.op('Size', [value], { dtype: 'int64', shape: [] }), c.type(x!).dtype);
    return c.expandLike(c.mul(dy!, c.div(size(y!), size(x!))), x!);
  },
];

/** The place with the greatest number gets all, several in equal parts. */
export const globalMaxPool: GradientRule = ({ x: [x], y: [y], dy: [dy], c }) => [
  () => {
    const mask = c.cast(c.compare('Equal', x!, y!), c.type(x!).dtype);
    return c.div(c.mul(dy!, mask), c.sumTo(mask, y!));
  },
];

/**
 * MaxPool gives flat indices of the elements it took when its second output is asked for: a second
 * pool with the same windows does that, and the gradients are added up there.
 */
export const maxPool: GradientRule = ({ node, x: [x], dy: [dy], c }) => [
  () => {
    if (c.graph.opset < 16) throw new Error('the gradient of MaxPool needs opset 16');
    const { dtype, shape } = c.type(x!);
    const outputs = c.graph.ops('MaxPool', [x!], 2, node.attributes, 'grad/maxpool');
    const flat = (value: string) =>
      c.op('Reshape', [value, c.integers([-1])], { dtype, shape: [null] });
    const indices = c.graph.op('Reshape', [outputs[1]!, c.integers([-1])], {}, 'grad/indices');
    const zeros = flat(c.mul(x!, c.number(x!, 0)));
    const sum = c.op(
      'ScatterElements',
      [zeros, indices, flat(dy!)],
      { dtype, shape: [null] },
      {
        reduction: { text: 'add' },
      },
    );
    return c.reshape(sum, c.shapeOf(x!), shape);
  },
];
