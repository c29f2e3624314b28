/** Writes safetensors files. */
import { constants } from 'node:buffer';
import type { DataTypeName } from '../onnx/dtype.js';
import { type Piece, pieceLength, totalLength } from '../onnx/edit.js';
import { show } from './json.js';
import {
  codeByDtype,
  invalid,
  invalidTensor,
  LENGTH_BYTES,
  MAX_HEADER_BYTES,
  METADATA_KEY,
  parseShape,
  tensorBytes,
} from './safetensors-header.js';

/** A tensor to write: `data` is its raw little-endian bytes. */
export interface SafetensorsTensor<Data extends Piece = Uint8Array> {
  readonly name: string;
  readonly dtype: DataTypeName;
  readonly shape: readonly number[];
  readonly data: Data;
}

/**
 * A safetensors file with the tensors in the order given, for writeFiles. Other readers map tensors
 * into memory, so pass wide types before narrow ones if they should be aligned there.
 * @throws OnnxLoraError `invalid-adapter` for a name that is given twice or reserved, a type
 * safetensors does not have, or a length that does not fit the shape.
 */
export function safetensorsPieces(
  tensors: readonly SafetensorsTensor<Piece>[],
  metadata?: Readonly<Record<string, string>>,
): Piece[] {
  const header = encodeHeader(tensors, metadata);
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setBigUint64(0, BigInt(header.length), true);
  return [length, header, ...tensors.map(({ data }) => data)];
}

/** The same as bytes, for tensors that are in memory. */
export function encodeSafetensors(
  tensors: Iterable<SafetensorsTensor>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const pieces = safetensorsPieces([...tensors], metadata);
  const total = totalLength(pieces);
  if (total > constants.MAX_LENGTH) {
    throw invalid('safetensors output', `has ${total} bytes, at most ${constants.MAX_LENGTH} fit`);
  }
  return new Uint8Array(Buffer.concat(pieces as Uint8Array[]));
}

function encodeHeader(
  tensors: readonly SafetensorsTensor<Piece>[],
  metadata: Readonly<Record<string, string>> | undefined,
): Uint8Array {
  // Joined by hand: an object would put names that look like numbers first.
  const fields = metadata ? [`"${METADATA_KEY}":${JSON.stringify(metadata)}`] : [];
  const names = new Set<string>();
  let offset = 0;
  for (const tensor of tensors) {
    addName(names, tensor.name);
    fields.push(`${JSON.stringify(tensor.name)}:${encodeEntry(tensor, offset)}`);
    offset += pieceLength(tensor.data);
  }
  return padHeader(new TextEncoder().encode(`{${fields.join(',')}}`));
}

function addName(names: Set<string>, name: string): void {
  const label = 'safetensors output';
  if (name === METADATA_KEY) throw invalidTensor(label, name, 'has the name of the metadata');
  if (names.has(name)) throw invalidTensor(label, name, 'is given twice');
  names.add(name);
}

function encodeEntry(
  { name, dtype, shape, data }: SafetensorsTensor<Piece>,
  offset: number,
): string {
  const label = 'safetensors output';
  const code = codeByDtype.get(dtype);
  if (!code) throw invalidTensor(label, name, `has type ${dtype}, which safetensors lacks`);
  const expected = tensorBytes(label, name, dtype, parseShape(label, name, shape));
  const length = pieceLength(data);
  if (length !== expected) {
    const what = `${code} ${show(shape)} takes ${expected} bytes`;
    throw invalidTensor(label, name, `${what}, its data has ${length}`);
  }
  return JSON.stringify({ dtype: code, shape, data_offsets: [offset, offset + length] });
}

/** Readers that map the file expect the data at a multiple of eight. */
function padHeader(header: Uint8Array): Uint8Array {
  const padded = new Uint8Array(Math.ceil(header.length / 8) * 8).fill(0x20);
  if (padded.length > MAX_HEADER_BYTES) {
    const problem = `its header has ${padded.length} bytes, at most ${MAX_HEADER_BYTES} are allowed`;
    throw invalid('safetensors output', problem);
  }
  padded.set(header);
  return padded;
}
