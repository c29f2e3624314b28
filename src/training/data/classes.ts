/** Names of classes: their numbers are their places in a list. */
import { readFileSync } from 'node:fs';
import { OnnxLoraError } from '../../errors.js';
import { fileError } from '../../onnx/source.js';

/**
 * Reads a file with a name on each line.
 * @throws OnnxLoraError `invalid-data` for an empty line or a name that comes twice, and those of
 * reading
 */
export function readClassFile(path: string): string[] {
  const lines = textOf(path)
    .replace(/^\uFEFF/, '')
    .replace(/\r?\n$/, '')
    .split(/\r?\n/);
  lines.forEach((name, i) => {
    const first = lines.indexOf(name);
    if (name !== '' && first === i) return;
    const problem =
      name === '' ? 'is empty' : `repeats ${JSON.stringify(name)} of line ${first + 1}`;
    throw new OnnxLoraError('invalid-data', `${path}:${i + 1}: the line ${problem}`, {
      hint: 'Write the name of a class on each line, in their order.',
    });
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

/** The order that names get where nobody said one: the same on every machine and in every language. */
export function sortedClasses(names: Iterable<string>): string[] {
  return [...names].sort((a, b) => (a < b ? -1 : 1));
}

/** A list of classes for a message, cut where it is long. */
export function classList(names: readonly string[]): string {
  const shown = names.slice(0, 10).join(', ');
  return names.length > 10 ? `${shown}, .. (${names.length})` : shown;
}
