import { distance } from 'fastest-levenshtein';

/** The names that were probably meant, best first. */
export function nearest(given: string, names: Iterable<string>): string[] {
  const close = (name: string) =>
    name.startsWith(given) || distance(given, name) <= Math.max(1, Math.floor(name.length / 3));
  return [...names]
    .filter(close)
    .sort((a, b) => distance(given, a) - distance(given, b))
    .slice(0, 3);
}

/** The hint after something unknown: what was probably meant, else where to look. */
export function didYouMean(given: string, names: Iterable<string>, otherwise: string): string;
export function didYouMean(
  given: string,
  names: Iterable<string>,
  otherwise?: string,
): string | undefined;
export function didYouMean(
  given: string,
  names: Iterable<string>,
  otherwise?: string,
): string | undefined {
  const near = nearest(given, names);
  return near.length > 0 ? `Did you mean ${near.join(' or ')}?` : otherwise;
}
