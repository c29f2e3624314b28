/** Arrays for a decoder whose file leaves out what texts would get: masks, positions, empty caches. */
import type { DataTypeName } from '../onnx/dtype.js';
import { elementCount, type ValueInfo } from '../onnx/model.js';
import { type TensorValue, tensorFromNumbers, tensorToFloat64 } from '../runtime/tensor-value.js';
import type { Dataset, SampleSpec } from './dataset.js';
import type { DataRequest } from './request.js';
import { isPast, type PastInput, pastInput, roleOf, sequenceInput } from './text/inputs.js';

/** The way to make one input; a sequence of ones, or of places. */
interface MadeSequence {
  readonly name: string;
  readonly dtype: DataTypeName;
  readonly role: 'mask' | 'positions';
}

/**
 * The dataset with what the model takes and the file leaves out, as texts feed it: empty caches, masks of
 * ones, and positions that count from the first token that the mask shows. Only for decoders,
 * models with caches, whose ids are in the file.
 * @throws OnnxLoraError `unsupported` for a cache that cannot be empty
 */
export function withMadeInputs(
  dataset: Dataset,
  { inputs, hasCache }: Pick<DataRequest, 'inputs' | 'hasCache'>,
): Dataset {
  const ids = inputs.find(({ name }) => roleOf(name) === 'ids' && dataset.keys.has(name));
  const shape = ids && dataset.keys.get(ids.name)!.shape;
  const missing = inputs.filter(({ name }) => !dataset.keys.has(name));
  const past = shape ? missing.filter(({ name }) => isPast(name)).map(pastInput) : [];
  // Without a cache, a mask that was forgotten would silently let padding count.
  const isDecoder = hasCache ?? inputs.some(({ name }) => isPast(name));
  const sequences = isDecoder && shape?.length === 1 ? missing.flatMap(madeSequence) : [];
  if (past.length + sequences.length === 0) return dataset;
  return new MadeInputs(dataset, ids!.name, shape!, past, sequences);
}

function madeSequence(input: ValueInfo): MadeSequence[] {
  const role = roleOf(input.name);
  if (isPast(input.name) || (role !== 'mask' && role !== 'positions')) return [];
  const { name, dtype } = sequenceInput(input);
  return [{ name, dtype, role }];
}

class MadeInputs implements Dataset {
  readonly keys: ReadonlyMap<string, SampleSpec>;
  readonly label: string;
  readonly size: number;

  constructor(
    private readonly dataset: Dataset,
    private readonly ids: string,
    shape: readonly number[],
    private readonly past: readonly PastInput[],
    private readonly sequences: readonly MadeSequence[],
  ) {
    this.label = dataset.label;
    this.size = dataset.size;
    const last = { mask: 1, positions: shape[0]! - 1 };
    this.keys = new Map<string, SampleSpec>([
      ...dataset.keys,
      ...past.map(
        ({ name, dtype, shape: empty }) => [name, { dtype, shape: empty, range: NONE }] as const,
      ),
      ...sequences.map(
        ({ name, dtype, role }) => [name, { dtype, shape, range: [0, last[role]] }] as const,
      ),
    ]);
  }

  async batch(
    indices: ArrayLike<number>,
    keys: Iterable<string> = this.keys.keys(),
  ): Promise<Map<string, TensorValue>> {
    const wanted = [...keys];
    const isMade = (key: string) => !this.dataset.keys.has(key);
    const stored = new Set(wanted.filter((key) => !isMade(key)));
    const mask = this.maskKey();
    const read = wanted.some(isMade) ? [...stored, this.ids, ...mask] : stored;
    const found = await this.dataset.batch(indices, new Set(read));
    const made = this.made(found.get(this.ids), mask.map((key) => found.get(key)!)[0]);
    return new Map(wanted.map((key) => [key, found.get(key) ?? made.get(key)!]));
  }

  close(): void {
    this.dataset.close();
  }

  /** The mask in the file, if there is one. */
  private maskKey(): string[] {
    return [...this.dataset.keys.keys()].filter((key) => roleOf(key) === 'mask').slice(0, 1);
  }

  private made(ids: TensorValue | undefined, mask: TensorValue | undefined) {
    if (!ids) return new Map<string, TensorValue>();
    const [rows = 0, length = 0] = ids.dims;
    const ones = mask ? tensorToFloat64(mask) : new Float64Array(rows * length).fill(1);
    const values = { mask: ones, positions: positionsIn(ones, length) };
    return new Map<string, TensorValue>([
      ...this.past.map(({ name, dtype, shape }) => {
        const dims = [rows, ...shape];
        const zeros = new Float64Array(elementCount(dims));
        return [name, tensorFromNumbers(dtype, dims, zeros)] as const;
      }),
      ...this.sequences.map(({ name, dtype, role }) => {
        return [name, tensorFromNumbers(dtype, ids.dims, values[role])] as const;
      }),
    ]);
  }
}

const NONE = [0, 0] as const;

/** The place of each token among those of its row that the mask shows; 0 for the others. */
function positionsIn(mask: Float64Array, length: number): Float64Array {
  let next = 0;
  return mask.map((shown, i) => {
    if (i % length === 0) next = 0;
    return shown === 0 ? 0 : next++;
  });
}
