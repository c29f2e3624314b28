/** A dataset in a file of tensors. */
import { OnnxLoraError } from '../errors.js';
import { byteLength, type DataTypeName, toFloat32 } from '../onnx/dtype.js';
import { elementCount } from '../onnx/model.js';
import { isFeedable, type TensorValue, tensorFromBytes } from '../runtime/tensor-value.js';
import type { Dataset, SampleSpec } from './dataset.js';

/** A file whose tensors can be read in part: what formats have in common. */
export interface TensorFile {
  readonly tensors: ReadonlyMap<
    string,
    { readonly dtype: DataTypeName; readonly shape: readonly number[] }
  >;
  read(name: string, start?: number, end?: number): Uint8Array;
  close(): void;
}

/**
 * @param mayLeaveOut whether samples may be left out
 * @throws OnnxLoraError as `openDataset` does
 */
export async function tensorDataset(
  label: string,
  open: () => TensorFile | Promise<TensorFile>,
  mayLeaveOut = false,
): Promise<Dataset> {
  const file = await inTermsOfData(open);
  try {
    checkTypes(label, file);
    return new TensorDataset(label, commonSize(label, file), file, mayLeaveOut);
  } catch (error) {
    file.close();
    throw error;
  }
}

class TensorDataset implements Dataset {
  readonly keys: ReadonlyMap<string, SampleSpec>;
  readonly leaveOut: ((samples: readonly number[]) => void) | undefined;
  /** The samples of the file that count, where some are left out. */
  private kept: readonly number[] | undefined;

  constructor(
    readonly label: string,
    private readonly stored: number,
    private readonly file: TensorFile,
    mayLeaveOut: boolean,
  ) {
    if (mayLeaveOut) this.leaveOut = (out) => this.without(new Set(out));
    this.keys = new Map(
      [...file.tensors].map(([key, { dtype, shape }]) => [
        key,
        { dtype: dtype === 'bfloat16' ? 'float32' : dtype, shape: shape.slice(1) },
      ]),
    );
  }

  get size(): number {
    return this.kept?.length ?? this.stored;
  }

  get skipped(): number | undefined {
    return this.leaveOut && this.stored - this.size;
  }

  async batch(
    indices: ArrayLike<number>,
    keys: Iterable<string> = this.keys.keys(),
  ): Promise<Map<string, TensorValue>> {
    const { kept } = this;
    const places = kept ? Array.from(indices, (sample) => kept[sample]!) : indices;
    const batch = new Map<string, TensorValue>();
    for (const key of keys) {
      batch.set(key, await inTermsOfData(() => this.rows(key, places)));
    }
    return batch;
  }

  close(): void {
    this.file.close();
  }

  private without(samples: ReadonlySet<number>): void {
    const kept = this.kept ?? Array.from({ length: this.stored }, (_, sample) => sample);
    this.kept = kept.filter((_, sample) => !samples.has(sample));
  }

  private rows(key: string, indices: ArrayLike<number>): TensorValue {
    const { dtype, shape } = this.file.tensors.get(key)!;
    const dims = [indices.length, ...shape.slice(1)];
    const width = byteLength(dtype, elementCount(shape.slice(1)));
    const bytes = new Uint8Array(indices.length * width);
    for (const { at, first, count } of runsOf(indices)) {
      bytes.set(this.file.read(key, first * width, (first + count) * width), at * width);
    }
    if (dtype !== 'bfloat16') return tensorFromBytes(dtype, dims, bytes);
    return { dtype: 'float32', dims, data: toFloat32(dtype, bytes, elementCount(dims)) };
  }
}

/** Samples that follow each other in the file are read at once: `count` from `first` on. */
function* runsOf(
  indices: ArrayLike<number>,
): Generator<{ at: number; first: number; count: number }> {
  for (let at = 0, count = 1; at < indices.length; at += count, count = 1) {
    const first = indices[at]!;
    while (indices[at + count] === first + count) count++;
    yield { at, first, count };
  }
}

/** bfloat16 is read as float32, which holds all of it: the binding has no arrays of it. */
function checkTypes(label: string, { tensors }: TensorFile): void {
  for (const [key, { dtype }] of tensors) {
    if (isFeedable(dtype) || dtype === 'bfloat16') continue;
    const expected = 'expected bools, integers, or floats of 16, 32 or 64 bits';
    throw invalid(label, `key ${key} holds ${dtype}, ${expected}`);
  }
}

function commonSize(label: string, { tensors }: TensorFile): number {
  const bySize = new Map<number, string[]>();
  for (const [key, { shape }] of tensors) {
    const [size] = shape;
    if (size === undefined) {
      throw invalid(label, `key ${key} is a single number, expected an axis that counts samples`);
    }
    bySize.set(size, [...(bySize.get(size) ?? []), key]);
  }
  const [first, ...others] = bySize.keys();
  if (first === undefined) throw invalid(label, 'the file holds no arrays');
  if (others.length === 0) return first;
  const found = [...bySize].map(([size, keys]) => `${keys.join(', ')} (${size})`).join('; ');
  throw invalid(label, `its keys have different numbers of samples: ${found}`);
}

function invalid(label: string, problem: string): OnnxLoraError {
  return new OnnxLoraError('invalid-data', `${label}: ${problem}`, {
    hint: 'Save arrays whose first axis counts samples, one for each input of the model.',
  });
}

/** A file format is read for adapters too, and its errors say so. */
async function inTermsOfData<T>(run: () => T | Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof OnnxLoraError) || error.code !== 'invalid-adapter') throw error;
    throw new OnnxLoraError('invalid-data', error.message, { cause: error });
  }
}
