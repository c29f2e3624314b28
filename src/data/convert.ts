/** Converts the arrays of a file to the inputs of the graph. */
import { type DataTypeName, isConvertible, isFloating } from '../onnx/dtype.js';
import {
  type Feeds,
  type TensorValue,
  tensorFromNumbers,
  tensorToFloat64,
} from '../runtime/tensor-value.js';

/** One input of the graph and where its numbers come from. */
export interface Feed {
  /** The graph input. */
  readonly name: string;
  /** In the dataset. */
  readonly key: string;
  /** The type that the input takes. */
  readonly dtype: DataTypeName;
  /** Rows of the input that a sample is: 1, or more for samples [group, ..] that are compared. */
  readonly group: number;
}

/** Labels that are made of the model's own inputs: the ids where the mask is not 0. */
export interface OwnLabels {
  /** Graph inputs. */
  readonly ids: string;
  readonly mask: string | undefined;
  /** Stands for "does not count". */
  readonly ignoreIndex: number;
}

export interface FeedPlan {
  readonly feeds: readonly Feed[];
  readonly ownLabels: OwnLabels | undefined;
  /** Whether `input_lengths` of spelling is not in the dataset: then every frame counts. */
  readonly allFrames: boolean;
}

/** It is only asked whether a frame is below a row's length. */
const EVERY_FRAME = 2n ** 31n - 1n;

/** Least and greatest value, as far as comparing them needs it. */
const ranges: Partial<Record<DataTypeName, readonly [number, number]>> = {
  bool: [0, 1],
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-(2 ** 15), 2 ** 15 - 1],
  uint16: [0, 2 ** 16 - 1],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [-(2 ** 63), 2 ** 63],
  uint64: [0, 2 ** 64],
};

/**
 * Whether numbers of one type are taken for another without being asked: bools and integers where
 * the type holds them all, floats for any floats, which rounds them. Never floats for integers.
 */
export function isTaken(from: DataTypeName, to: DataTypeName): boolean {
  if (from === to) return true;
  if (isFloating(from)) return isConvertible(from) && isConvertible(to);
  const [inner, outer] = [ranges[from], ranges[to]];
  if (!inner || !outer || to === 'bool') return false;
  return inner[0] >= outer[0] && inner[1] <= outer[1];
}

/** The same numbers in another type: floats are rounded, integers have to fit. */
export function convertTensor(value: TensorValue, dtype: DataTypeName): TensorValue {
  if (value.dtype === dtype) return value;
  return tensorFromNumbers(dtype, value.dims, tensorToFloat64(value));
}

/**
 * A batch of a dataset as the feeds of the graph, in exactly the types that it takes.
 * @param batch by key; keys that the plan does not name are left out
 */
export function convertBatch(
  batch: ReadonlyMap<string, TensorValue>,
  { feeds, ownLabels, allFrames }: FeedPlan,
): Map<string, TensorValue> {
  const result = new Map<string, TensorValue>();
  for (const { name, key, dtype, group } of feeds) {
    const value = convertTensor(batch.get(key)!, dtype);
    result.set(name, group > 1 ? partsInTurn(value, group) : value);
  }
  if (ownLabels) result.set('labels', labelsOf(result, ownLabels));
  if (allFrames) {
    const [rows] = result.get('label_lengths')!.dims as [number];
    const data = new BigInt64Array(rows).fill(EVERY_FRAME);
    result.set('input_lengths', { dtype: 'int64', dims: [rows], data });
  }
  return result;
}

/** [B, G, ..] to [G·B, ..]: the first parts of all samples, then the second ones, and so on. */
function partsInTurn({ dtype, dims, data }: TensorValue, group: number): TensorValue {
  const [count = 0, , ...shape] = dims;
  const rows = group * count;
  const width = data.length / rows || 0;
  const result = data.slice();
  for (let i = 0; i < rows; i++) {
    const row = data.subarray(i * width, (i + 1) * width);
    result.set(row as never, ((i % group) * count + Math.floor(i / group)) * width);
  }
  return { dtype, dims: [rows, ...shape], data: result };
}

function labelsOf(feeds: Feeds, { ids, mask, ignoreIndex }: OwnLabels): TensorValue {
  const { dims, data } = convertTensor(feeds.get(ids)!, 'int64');
  const labels = (data as BigInt64Array).slice();
  if (mask !== undefined) {
    const counted = tensorToFloat64(feeds.get(mask)!);
    const length = dims.at(-1)!;
    // Padding in front of the first token does not predict it.
    let isPaddedBefore = false;
    for (let i = 0; i < labels.length; i++) {
      if (i % length === 0) isPaddedBefore = counted[i] === 0;
      if (counted[i] === 0 || isPaddedBefore) labels[i] = BigInt(ignoreIndex);
      if (counted[i] !== 0) isPaddedBefore = false;
    }
  }
  return { dtype: 'int64', dims, data: labels };
}
