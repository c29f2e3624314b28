/** Samples to train on or to evaluate with. */
import type { DataTypeName } from '../onnx/dtype.js';
import type { TensorValue } from '../runtime/tensor-value.js';

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
