/** Names of classes: their numbers are their places in a list. */
import { readNameLines } from './name-lines.js';

/**
 * Reads a file with the name of a class on each line.
 * @throws OnnxLoraError as {@link readNameLines}
 */
export function readClassFile(path: string): string[] {
  return readNameLines(path, 'Write the name of a class on each line, in their order.');
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
