// Reading strips with a model, and how much of it is right.
import { distance } from 'fastest-levenshtein';
import { openSession } from '../../dist/src/index.js';
import { blank, characters } from './alphabet.mjs';
import { imagesOf } from './dataset.mjs';

const batchSize = 32;

/** What the model reads on each strip. */
export async function readStrips(model, strips) {
  const session = await openSession(model);
  const readings = [];
  try {
    for (let start = 0; start < strips.length; start += batchSize) {
      const images = imagesOf(strips.slice(start, start + batchSize));
      const [scores] = (await session.run(new Map([['x', images]]))).values();
      readings.push(...greedyDecode(scores));
    }
  } finally {
    await session.release();
  }
  return readings;
}

/** CTC: the best class of each frame, repeats once, blanks dropped. */
function greedyDecode({ dims: [rows, frames, classes], data }) {
  return Array.from({ length: rows }, (_, row) => {
    const best = Array.from({ length: frames }, (_, frame) => {
      const start = (row * frames + frame) * classes;
      const scores = data.subarray(start, start + classes);
      return scores.indexOf(Math.max(...scores));
    });
    const emitted = best.filter((c, frame) => c !== blank && c !== best[frame - 1]);
    return emitted.map((c) => characters[c]).join('');
  });
}

/** The shares of strips read without a mistake, and of characters to be corrected. */
export function score(strips, readings) {
  const right = strips.filter(({ text }, i) => text === readings[i]).length;
  const wrong = strips.reduce((sum, { text }, i) => sum + distance(text, readings[i]), 0);
  const total = strips.reduce((sum, { text }) => sum + text.length, 0);
  return { exactMatch: right / strips.length, characterErrorRate: wrong / total };
}
