/** Samples to train on or to evaluate with. */
import { extname } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { openNpz } from '../../formats/npz.js';
import { kindOf } from '../../formats/path-kind.js';
import { openSafetensors } from '../../formats/safetensors.js';
import type { DataTypeName } from '../../onnx/dtype.js';
import type { TensorValue } from '../../runtime/tensor-value.js';
import { takesImages } from './images/plan.js';
import { withMadeInputs } from './made-inputs.js';
import type { DataRequest } from './request.js';
import { isRowFile, rowExtensions } from './rows/row-file.js';
import { type TensorFile, tensorDataset } from './tensor-dataset.js';
import { openTexts } from './text/dataset.js';
import { takesTokens } from './text/inputs.js';

/** What a key holds. */
export interface SampleSpec {
  readonly dtype: DataTypeName;
  /** Of one sample: without the axis that counts samples. */
  readonly shape: readonly number[];
  /** Batches are as long as their longest sample: then `shape` is that of a typical batch. */
  readonly varies?: boolean;
  /** No number is below the first or above the second, which is known without reading them. */
  readonly range?: readonly [least: number, most: number];
}

/** Samples by their number. A key is one array of every sample. */
export interface Dataset {
  /** What to call it in a message: the path. */
  readonly label: string;
  /** How many samples there are. */
  readonly size: number;
  readonly keys: ReadonlyMap<string, SampleSpec>;
  /**
   * The samples as one batch, in the given order, each array [indices.length, ...shape of a sample].
   * @param keys which arrays; default all
   * @throws OnnxLoraError `io` or `invalid-data` for a file that changed since it was opened
   */
  batch(indices: ArrayLike<number>, keys?: Iterable<string>): Promise<Map<string, TensorValue>>;
  /** The classes that `labels` count, by their numbers, where they have names. */
  readonly classes?: readonly string[] | undefined;
  /** Rows of the file that are no samples because something is wrong with them. */
  readonly skipped?: number;
  /** What the arrays depend on besides the file, in words. */
  readonly recipe?: string;
  /** Where a sample stands, where its number does not say it: a line of the file, an image. */
  placeOf?(sample: number): string;
  /** How long a sample is, roughly and in any unit, where they differ. */
  lengthOf?(sample: number): number;
  /** May be called again. */
  close(): void;
}

const openers: Readonly<Record<string, (path: string) => TensorFile | Promise<TensorFile>>> = {
  '.safetensors': openSafetensors,
  '.npz': openNpz,
};

/**
 * Opens samples: a .safetensors or .npz file whose arrays share their first axis; or, for the model and
 * the loss of a request, texts in a .jsonl, .csv, .tsv or .parquet file, and images in a folder of class
 * folders or named by the rows of such a file. Memory follows the batches, not
 * the file, except for compressed .npz files (see {@link openNpz}) and a few bytes for each row of texts.
 * @throws OnnxLoraError `invalid-argument` for another kind of file; `file-not-found`, `not-a-file`,
 * `io`; `invalid-data` for a damaged file, arrays of a type that no model takes, arrays with different
 * numbers of samples, and bad rows; see also {@link openTexts}
 */
export async function openDataset(path: string, request?: DataRequest): Promise<Dataset> {
  const extension = extname(path).toLowerCase();
  const open = Object.hasOwn(openers, extension) ? openers[extension] : undefined;
  if (open) {
    const dataset = await tensorDataset(path, () => open(path));
    return request ? withMadeInputs(dataset, request.inputs) : dataset;
  }
  if (request && isFolder(path)) return (await images()).openImageFolder(path, request);
  if (request && isRowFile(path)) {
    const isImages = takesImages(request.inputs) && !takesTokens(request.inputs);
    return isImages ? (await images()).openImageRows(path, request) : openTexts(path, request);
  }
  const found = extension ? `its name ends in ${extension}` : 'its name has no extension';
  throw new OnnxLoraError('invalid-argument', `${path} is no data file: ${found}`, {
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
