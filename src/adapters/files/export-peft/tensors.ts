/** Adapters as the tensors of PEFT: names and orientations. */

import type { SafetensorsTensor } from '../../../formats/safetensors-output.js';
import { byteLength, type FloatName, fromFloat64, toFloat64 } from '../../../onnx/dtype.js';
import { collect, type Piece, pieceLength } from '../../../onnx/edit.js';
import { type PlainFactors, transposed } from '../../factors/plain.js';
import { kindOf } from '../../kinds/index.js';
import { numbersOf, ownTensors } from '../../kinds/tensors.js';
import { finiteBytes, finitePiece } from '../../structure/finite.js';
import type { OutgoingAdapter } from '../adapter-contents.js';
import { keyOf, type TrainedParameter } from './names.js';

export type PeftTensor = SafetensorsTensor<Piece>;

/**
 * The tensors of plain LoRA, and of HiRA: A [rank, in] and B [out, rank], with the axes of a convolution's kernel
 * after, and what the kind has beside them, which is as long as the output.
 */
export function loraTensors(
  module: string,
  adapter: OutgoingAdapter,
  rank: number,
  factors: () => PlainFactors,
): PeftTensor[] {
  const { in: rows, out: columns } = adapter.record;
  const kernel = new Array<number>(adapter.kernelAxes).fill(1);
  const { keys, factors: names, hasScale } = kindOf(adapter.record).peft;
  const { scale } = adapter.record;
  const scaled = (b: Float64Array) => (hasScale || scale === 1 ? b : b.map((v) => v * scale));
  const shape = adapter.kernelAxes > 0 ? [1, columns, ...kernel] : [columns];
  return [
    tensor(adapter, `${keyOf(module)}.${names[0]}`, [rank, rows, ...kernel], () =>
      transposed(factors().a, rows, rank),
    ),
    tensor(adapter, `${keyOf(module)}.${names[1]}`, [columns, rank, ...kernel], () =>
      transposed(scaled(factors().b), rank, columns),
    ),
    ...ownTensors(adapter.record).map(({ key }) =>
      tensor(adapter, `${keyOf(module)}.${keys[key]}`, shape, () => numbersOf(adapter, key)),
    ),
  ];
}

/**
 * The tensors of GraLoRA, whose blocks lie as ours do: A [k, in/k, r], B [k, r, out/k], and those of a
 * hybrid's global part.
 * @param factor goes into B, where the modules of a set share a scale that is not this adapter's
 */
export function graloraTensors(
  module: string,
  adapter: OutgoingAdapter,
  factor: number,
): PeftTensor[] {
  const { in: rows, out: columns, grid, blockRank, hybridRank } = adapter.record;
  const [k] = grid;
  const rank = k * blockRank;
  const key = keyOf(module);
  const scaled = (name: 'b' | 'generalB') => adapter.values(name).map((value) => value * factor);
  const blocks = [
    tensor(adapter, `${key}.gralora_A`, [k, rows / k, rank], () => adapter.values('a')),
    tensor(adapter, `${key}.gralora_B`, [k, rank, columns / k], () => scaled('b')),
  ];
  if (hybridRank === 0) return blocks;
  return [
    ...blocks,
    tensor(adapter, `${key}.gralora_A_general.weight`, [hybridRank, rows], () =>
      transposed(adapter.values('generalA'), rows, hybridRank),
    ),
    tensor(adapter, `${key}.gralora_B_general.weight`, [columns, hybridRank], () =>
      transposed(scaled('generalB'), hybridRank, columns),
    ),
  ];
}

/**
 * A trained parameter of the model itself.
 * @throws OnnxLoraError `invalid-adapter` for numbers that are not finite
 */
export function parameterTensor({ key, tensor, isTransposed }: TrainedParameter): PeftTensor {
  const { dtype, dims } = tensor;
  const data = finitePiece(tensor.data, dtype, `the trained ${key}`);
  if (!isTransposed) return { name: key, dtype, shape: dims, data };
  const [rows = 1, columns = 1] = dims;
  const chunks = async function* () {
    const values = toFloat64(dtype, await collect([data]), rows * columns);
    yield fromFloat64(dtype as FloatName, transposed(values, rows, columns));
  };
  return { name: key, dtype, shape: [columns, rows], data: { length: pieceLength(data), chunks } };
}

function tensor(
  { dtype, record }: OutgoingAdapter,
  name: string,
  shape: readonly number[],
  values: () => Float64Array,
): PeftTensor {
  const count = shape.reduce((product, size) => product * size, 1);
  const chunks = function* () {
    yield finiteBytes(dtype, values(), `the adapter of ${record.name}`);
  };
  return { name, dtype, shape, data: { length: byteLength(dtype, count), chunks } };
}
