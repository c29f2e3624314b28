/** RotaryEmbedding, of opset 23 and of com.microsoft. */
import type { GradientRule } from '../rule.js';

/** Pairs of numbers are rotated by angles; the gradient is rotated back, by the opposite sines. */
function turnedBack(sines: number): GradientRule {
  return ({ node, x, dy: [dy], c }) => [
    () => {
      const inputs = x.map((name, i) => (i === sines ? c.neg(name) : name));
      return c.again(node, [dy!, ...inputs.slice(1)], c.type(dy!));
    },
  ];
}

/** Inputs: x, cosines, sines, positions. */
export const rotaryEmbedding = turnedBack(2);

/** Inputs: x, positions, cosines, sines. */
export const microsoftRotaryEmbedding = turnedBack(3);
