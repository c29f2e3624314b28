/** The place of bytes in a file on the disk, for a model in memory that refers to them. */
import { isAbsolute, relative, resolve } from 'node:path';
import type { Piece } from './edit.js';

/** A range of a file of some folder, as external data names it. */
export interface PlaceInFolder {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

// Small tensors, shapes and axes above all, have to be in the model: runtimes compute with them while
// they load it.
const MIN_EXTERNAL_BYTES = 16 * 1024;

/** The place of a tensor's bytes in a file of the folder; undefined where they belong into the model. */
export function placeIn(folder: string | undefined, data: Piece): PlaceInFolder | undefined {
  if (folder === undefined || !('start' in data)) return undefined;
  const length = data.end - data.start;
  if (length < MIN_EXTERNAL_BYTES) return undefined;
  const place = data.source.placeOf(data.start, data.end);
  if (place === undefined) return undefined;
  const location = relative(resolve(folder), resolve(place.path));
  if (location.startsWith('..') || isAbsolute(location)) return undefined;
  return { location, offset: place.start, length };
}
