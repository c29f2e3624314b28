/** Broadcasting and reducing of shapes whose sizes are numbers, symbols or open. */
import type { Dim } from '../onnx/model.js';

/** The shape of a broadcast; null where it depends on ranks that are not known. */
export function broadcast(a: readonly Dim[] | null, b: readonly Dim[] | null): Dim[] | null {
  if (!a || !b) return null;
  const rank = Math.max(a.length, b.length);
  const at = (shape: readonly Dim[], i: number): Dim => {
    const index = i - (rank - shape.length);
    return index < 0 ? 1 : shape[index]!;
  };
  return Array.from({ length: rank }, (_, i) => {
    const [x, y] = [at(a, i), at(b, i)];
    if (x === 1) return y;
    if (y === 1 || x === y) return x;
    // A number beats a symbol: the symbol is 1 or the same.
    return typeof x === 'number' ? x : typeof y === 'number' ? y : null;
  });
}

/** Whether two shapes are surely the same; an unnamed size is the same as no other. */
export function sameShape(a: readonly Dim[], b: readonly Dim[]): boolean {
  return a.length === b.length && a.every((dim, i) => dim !== null && dim === b[i]);
}

/** Axes of `from` that a broadcast of `to` stretched; undefined where sizes leave it open. */
export function stretchedAxes(from: readonly Dim[], to: readonly Dim[]): number[] | undefined {
  const lead = from.length - to.length;
  if (lead < 0) return undefined;
  const axes: number[] = [];
  for (const [i, size] of from.entries()) {
    const dim = i < lead ? 1 : to[i - lead]!;
    if (i < lead || (dim === 1 && size !== 1)) axes.push(i);
    // A number above 1 is never stretched; anything else may be.
    else if (typeof dim !== 'number' && (dim === null || dim !== size)) return undefined;
  }
  return axes;
}

export function reducedShape(
  shape: readonly Dim[] | null,
  axes: readonly number[],
  keepDims: boolean,
): Dim[] | null {
  if (!shape) return null;
  const reduced = new Set(axes.map((axis) => (axis < 0 ? axis + shape.length : axis)));
  return shape.flatMap((dim, i) => (reduced.has(i) ? (keepDims ? [1] : []) : [dim]));
}
