/** Files with a name on each line: classes, characters. */
import { readFileSync } from 'node:fs';
import { OnnxLoraError } from '../../errors.js';
import { fileError } from '../../onnx/source.js';

/**
 * Reads the lines of a file, each of which stands for its place.
 * @param hint what to write on each line
 * @throws OnnxLoraError `invalid-data` for an empty line or one that comes twice, and those of reading
 */
export function readNameLines(path: string, hint: string): string[] {
  const lines = textOf(path)
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

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw fileError(path, error);
  }
}
