/**
 * The text of a manifest in a model's `metadata_props`: JSON, and where that is long, JSON that is deflated.
 * Adapters beside thousands of layers, the experts of a mixture, have names that differ in a number or two:
 * deflated they take a fiftieth.
 */
import { constants, deflateSync, inflateSync } from 'node:zlib';

/** In front of deflated JSON in base64; JSON begins otherwise. */
const DEFLATED = 'deflate:';

/** Shorter ones stay readable. */
const MAX_PLAIN_LENGTH = 2 ** 20;

/** Any model may have a manifest this long, whatever its own size. */
const MIN_LIMIT = 16 * 2 ** 20;

/** The metadata value of a manifest. */
export function packManifest(json: string): string {
  if (json.length <= MAX_PLAIN_LENGTH) return json;
  const level = constants.Z_BEST_COMPRESSION;
  return DEFLATED + deflateSync(Buffer.from(json), { level }).toString('base64');
}

/**
 * The JSON of a metadata value.
 * @param modelBytes size of the file: it contains all that a manifest names, so that a longer manifest
 * is not valid, and one that unpacks to more than that an attack
 * @throws Error saying what is wrong
 */
export function unpackManifest(text: string, modelBytes: number): string {
  if (!text.startsWith(DEFLATED)) return text;
  const maxOutputLength = Math.max(MIN_LIMIT, modelBytes);
  return inflateSync(Buffer.from(text.slice(DEFLATED.length), 'base64'), {
    maxOutputLength,
  }).toString();
}
