/** Files with a name on each line: classes, characters. */
import { OnnxLoraError } from '../errors.js';
import { readWholeFile } from '../formats/whole-file.js';

/** A million names; the largest sets of classes have some ten thousand. */
const MAX_BYTES = 2 ** 24;

/**
 * Reads the lines of a file, each of which names its place.
 * @param hint what to write on each line
 * @throws OnnxLoraError `invalid-data` for an empty line one that comes twice, or more
 * than 16 MiB, and those of reading
 */
export function readNameLines(path: string, hint: string): string[] {
  const lines = readWholeFile(path, MAX_BYTES)
    .toString()
    .replace(/^\uFEFF/, '')
    .replace(/\r?\n$/, '')
    .split(/\r?\n/);
  const seen = new Map<string, number>();
  lines.forEach((name, i) => {
    const first = seen.get(name);
    seen.set(name, i);
    if (name !== '' && first === undefined) return;
    const problem =
      name === '' ? 'is empty' : `repeats ${JSON.stringify(name)} of line ${first! + 1}`;
    throw new OnnxLoraError('invalid-data', `${path}:${i + 1}: the line ${problem}`, { hint });
  });
  return lines;
}
