/** Opens files and folders of samples. */
import { extname } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import { openNpz } from '../formats/npz.js';
import { kindOf } from '../formats/path-kind.js';
import { openSafetensors } from '../formats/safetensors.js';
import { resolveOptions } from '../options/resolve.js';
import { dataKindOf, rowExtensions, type TensorExtension, tensorExtensions } from './data-kind.js';
import { imageOptionKeys, textOptionKeys } from './data-options.js';
import type { Dataset } from './dataset.js';
import { takesImages } from './images/plan.js';
import { withMadeInputs } from './made-inputs.js';
import { type DataRequest, requestOptions } from './request.js';
import { type TensorFile, tensorDataset } from './tensor-dataset.js';
import { openTexts } from './text/dataset.js';
import { takesTokens } from './text/inputs.js';

type Opener = (path: string) => TensorFile | Promise<TensorFile>;

const openers: Readonly<Record<string, Opener>> = {
  '.safetensors': openSafetensors,
  '.npz': openNpz,
} satisfies Record<TensorExtension, Opener>;

/**
 * Opens samples: a .safetensors or .npz file whose arrays share their first axis; or, for the model and
 * the labels of a request, texts in a .jsonl, .csv, .tsv or .parquet file, and images in a folder of class
 * folders or named by the rows of such a file. Memory follows the batches, not
 * the file, except for compressed .npz files, which are held in memory, and a few bytes for each row of texts.
 * @throws OnnxLoraError `invalid-argument` for another kind of file, or naming the option; `file-not-found`, `not-a-file`,
 * `io`; `invalid-data` for a damaged file, arrays of a type that no model takes, arrays with different
 * numbers of samples, a file without rows, and bad rows, naming file and line
 * @example
 * ```ts
 * import { openDataset } from 'onnx-lora';
 *
 * const data = await openDataset('train.safetensors');
 * const batch = await data.batch([0, 1, 2, 3]);
 * for (const [key, { dtype, dims }] of batch) console.log(key, dtype, dims);
 * data.close();
 * ```
 */
export async function openDataset(path: string, given?: DataRequest): Promise<Dataset> {
  const request = given && resolveOptions(requestOptions, given, 'openDataset');
  if (kindOf(path) === 'none') throw missing(path);
  const extension = extname(path).toLowerCase();
  const open = Object.hasOwn(openers, extension) ? openers[extension] : undefined;
  if (open) {
    // Only spelling has samples that are bad for what they hold.
    const mayLeaveOut = request?.labelKind === 'spelling' && request.skipBadRows;
    const dataset = await tensorDataset(path, () => open(path), mayLeaveOut);
    return request ? withMadeInputs(dataset, request) : dataset;
  }
  const kind = request && dataKindOf(path);
  if (kind === 'images') return (await images()).openImageFolder(path, request!);
  if (kind === 'rows') return await openRows(path, request!);
  const found = extension ? `its name ends in ${extension}` : 'its name has no extension';
  throw new OnnxLoraError('invalid-argument', `${path} is not a data file: ${found}`, {
    hint: `Give ${KINDS}.`,
  });
}

const KINDS = `a ${tensorExtensions.join(' or ')} file with an array for every input of the model, texts in a ${rowExtensions.slice(0, -1).join(', ')} or ${rowExtensions.at(-1)} file, or a folder with a folder of images for each class`;

function missing(path: string): OnnxLoraError {
  return new OnnxLoraError(
    'file-not-found',
    `${path} does not exist: there are no samples to read`,
    {
      hint: `Check the path, which is taken relative to the current folder. Samples are ${KINDS}.`,
    },
  );
}

/** Rows hold what the model takes: texts, or paths of images. */
async function openRows(path: string, request: DataRequest): Promise<Dataset> {
  const isImages = takesImages(request.inputs) && !takesTokens(request.inputs);
  refuseIdle(path, request, isImages);
  return isImages ? (await images()).openImageRows(path, request) : openTexts(path, request);
}

/** @throws OnnxLoraError `invalid-argument` for options of what the model does not take */
function refuseIdle(path: string, request: DataRequest, isImages: boolean): void {
  const [found, of] = isImages ? ['images', 'texts'] : ['texts', 'images'];
  const keys = isImages ? textOptionKeys : imageOptionKeys;
  const idle = keys.find((key) => request[key] !== undefined && request[key] !== true);
  if (idle === undefined) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `\`${idle}\` has no effect on the ${found} that ${path} holds for this model`,
    { hint: `Leave it out: it is for models that take ${of}.` },
  );
}

/** Loaded where it is needed: it brings a library of native code. */
function images() {
  return import('./images/open.js');
}
