/** Samples to train on or to evaluate with. */
import type { DataTypeName } from '../onnx/dtype.js';
import type { TensorValue } from '../runtime/tensor-value.js';

/** Contents of a key. */
export interface SampleSpec {
  /** Type of the numbers. */
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
  /** Its name in messages: the path. */
  readonly label: string;
  /** Number of samples. */
  readonly size: number;
  /** Type and shape of each tensor of a sample, by its name in the data. */
  readonly keys: ReadonlyMap<string, SampleSpec>;
  /**
   * The samples as one batch, in the given order, each array [indices.length, ...shape of a sample].
   * @param keys which arrays; default all
   * @throws OnnxLoraError `io` or `invalid-data` for a file that changed since it was opened
   */
  batch(indices: ArrayLike<number>, keys?: Iterable<string>): Promise<Map<string, TensorValue>>;
  /** The classes that `labels` count, by their numbers, where they have names. */
  readonly classes?: readonly string[] | undefined;
  /** Rows of the file that are left out because something is wrong with them. */
  readonly skipped?: number | undefined;
  /** Whether its rows are conversations. */
  readonly isChat?: boolean;
  /** Settings that the arrays depend on besides the file, in words. */
  readonly recipe?: string;
  /** The place of a sample where its number is not enough: a line of the file, an image. */
  placeOf?(sample: number): string;
  /** Leaves samples out, and counts them among those that are; only where bad rows are to be. */
  readonly leaveOut?: ((samples: readonly number[]) => void) | undefined;
  /** Length of a sample, roughly and in any unit, where lengths differ. */
  lengthOf?(sample: number): number;
  /** May be called again. */
  close(): void;
}
