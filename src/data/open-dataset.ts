/** Opens files and folders of samples. */
import { extname } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import { openNpz } from '../formats/npz.js';
import { kindOf } from '../formats/path-kind.js';
import { openSafetensors } from '../formats/safetensors.js';
import { resolveOptions } from '../options/resolve.js';
import type { Dataset } from './dataset.js';
import { takesImages } from './images/plan.js';
import { withMadeInputs } from './made-inputs.js';
import { type DataRequest, requestOptions } from './request.js';
import { isRowFile, rowExtensions } from './rows/row-file.js';
import { type TensorFile, tensorDataset } from './tensor-dataset.js';
import { openTexts } from './text/dataset.js';
import { takesTokens } from './text/inputs.js';

const openers: Readonly<Record<string, (path: string) => TensorFile | Promise<TensorFile>>> = {
  '.safetensors': openSafetensors,
  '.npz': openNpz,
};

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
  const extension = extname(path).toLowerCase();
  const open = Object.hasOwn(openers, extension) ? openers[extension] : undefined;
  if (open) {
    // Only spelling has samples that are bad for what they hold.
    const mayLeaveOut = request?.labelKind === 'spelling' && request.skipBadRows;
    const dataset = await tensorDataset(path, () => open(path), mayLeaveOut);
    return request ? withMadeInputs(dataset, request) : dataset;
  }
  if (request && isFolder(path)) return (await images()).openImageFolder(path, request);
  if (request && isRowFile(path)) {
    const isImages = takesImages(request.inputs) && !takesTokens(request.inputs);
    return isImages ? (await images()).openImageRows(path, request) : openTexts(path, request);
  }
  const found = extension ? `its name ends in ${extension}` : 'its name has no extension';
  throw new OnnxLoraError('invalid-argument', `${path} is not a data file: ${found}`, {
    hint: `Give a ${Object.keys(openers).join(' or ')} file with an array for every input of the model, texts in a ${rowExtensions.join(', ')} file, or a folder with a folder of images for each class.`,
  });
}

/** Loaded where it is needed: it brings a library of native code. */
function images() {
  return import('./images/open.js');
}

function isFolder(path: string): boolean {
  return kindOf(path) === 'folder';
}
