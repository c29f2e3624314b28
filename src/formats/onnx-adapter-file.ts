/**
 * ONNX Runtime's file of adapters (`.onnx_adapter`): named tensors in a FlatBuffer, which the runtime
 * feeds to the graph inputs of the same names. The schema (onnxruntime/lora/adapter_format):
 *
 *     table Parameter { name:string; dims:[int64]; data_type:int32; raw_data:[uint8] (force_align: 8); }
 *     table Adapter { format_version:int; adapter_version:int; model_version:int; parameters:[Parameter]; }
 *     root_type Adapter;  file_identifier "TORT";
 */
import { OnnxLoraError } from '../errors.js';
import type { ByteSource } from '../onnx/byte-source.js';
import {
  byteLength,
  type DataTypeName,
  dataTypeNumber,
  findDataType,
  isConvertible,
  toFloat64,
} from '../onnx/dtype.js';
import { type Piece, pieceLength } from '../onnx/edit.js';
import type { NewTensor } from '../onnx/encode.js';
import { elementCount } from '../onnx/model.js';
import { FileSource } from '../onnx/source.js';
import { rootTable, type Table } from './flatbuffers.js';

const IDENTIFIER = 'TORT';
const FORMAT_VERSION = 1;

// Far beyond any adapter, and small enough that listing them is not an attack.
const MAX_PARAMETERS = 1_000_000;
const MAX_NAME_BYTES = 4096;
const MAX_DIMS = 64;

// Offsets are 32 bits, and readers take them for signed.
const MAX_FILE_BYTES = 2 ** 31 - 1;

/** A tensor of the file: the bytes from `start` to `end` of it. */
export interface AdapterParameter {
  readonly dtype: DataTypeName;
  readonly dims: readonly number[];
  readonly start: number;
  readonly end: number;
}

/** Numbers that the writer of a file chose; ONNX Runtime passes them on and nothing more. */
export interface AdapterVersions {
  readonly adapterVersion: number;
  readonly modelVersion: number;
}

/** An open file. */
export interface OnnxAdapterFile extends AdapterVersions {
  readonly parameters: ReadonlyMap<string, AdapterParameter>;
  /**
   * The values of a floating-point parameter, row-major.
   * @throws OnnxLoraError `invalid-adapter` for another type
   */
  readFloat64(name: string): Float64Array;
  close(): void;
}

/**
 * Opens a file and reads its table of contents; numbers are read when asked for.
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `invalid-adapter` for a file that is damaged,
 * names a parameter twice, or is of another format version
 */
export function openOnnxAdapterFile(path: string): OnnxAdapterFile {
  const source = new FileSource(path);
  try {
    const root = rootTable(source, IDENTIFIER);
    const version = root.int(0);
    if (version !== FORMAT_VERSION) {
      throw invalid(source, `is of format version ${version}, expected ${FORMAT_VERSION}`);
    }
    const parameters = readParameters(source, root);
    return {
      adapterVersion: root.int(1),
      modelVersion: root.int(2),
      parameters,
      readFloat64: (name) => floatsOf(source, name, parameters.get(name)!),
      close: () => source.close(),
    };
  } catch (error) {
    source.close();
    throw error;
  }
}

function readParameters(source: ByteSource, root: Table): Map<string, AdapterParameter> {
  const parameters = new Map<string, AdapterParameter>();
  for (const table of root.tables(3)) {
    if (parameters.size === MAX_PARAMETERS) {
      throw invalid(source, `has more than ${MAX_PARAMETERS} parameters`);
    }
    const name = table.text(0, MAX_NAME_BYTES);
    if (parameters.has(name)) {
      throw invalid(source, `has the parameter ${JSON.stringify(name)} twice`);
    }
    parameters.set(name, readParameter(source, name, table));
  }
  return parameters;
}

function readParameter(source: ByteSource, name: string, table: Table): AdapterParameter {
  const dtype = findDataType(table.int(2));
  if (!dtype || dtype === 'string') {
    throw invalid(
      source,
      `parameter ${JSON.stringify(name)} has the data type ${table.int(2)}, expected a number's`,
    );
  }
  const dims = readDims(source, name, table);
  const { start, length } = table.vector(3, 1) ?? { start: 0, length: 0 };
  const expected = byteLength(dtype, elementCount(dims));
  if (length === expected) return { dtype, dims, start, end: start + length };
  throw invalid(
    source,
    `parameter ${JSON.stringify(name)} of ${dtype} [${dims.join(', ')}] has ${length} bytes, expected ${expected}`,
  );
}

function readDims(source: ByteSource, name: string, table: Table): number[] {
  const { start, length } = table.vector(1, 8) ?? { start: 0, length: 0 };
  if (length > MAX_DIMS) {
    throw invalid(source, `parameter ${JSON.stringify(name)} has ${length} dimensions`);
  }
  const bytes = source.read(start, start + 8 * length);
  const dims = [...new BigInt64Array(bytes.buffer, 0, length)].map(Number);
  const bad = dims.find((dim) => dim < 0 || !Number.isSafeInteger(dim));
  if (bad === undefined) return dims;
  throw invalid(source, `parameter ${JSON.stringify(name)} has a dimension of ${bad}`);
}

function floatsOf(
  source: ByteSource,
  name: string,
  { dtype, dims, start, end }: AdapterParameter,
): Float64Array {
  if (isConvertible(dtype)) return toFloat64(dtype, source.read(start, end), elementCount(dims));
  throw invalid(
    source,
    `parameter ${JSON.stringify(name)} is ${dtype}, expected float32, float16, bfloat16 or float64`,
  );
}

function invalid(source: ByteSource, problem: string): OnnxLoraError {
  return new OnnxLoraError('invalid-adapter', `${source.label}: ${problem}`, {
    hint: 'Write the adapter again: the file is damaged, or no adapter of floating-point numbers.',
  });
}

// vtables: their own length, the table's, and the places of its four fields.
const VTABLE = [12, 20, 4, 8, 12, 16];
const VTABLE_BYTES = 2 * VTABLE.length;
const TABLE_BYTES = 20;
const ROOT_VTABLE = 8;
const ROOT = ROOT_VTABLE + VTABLE_BYTES;
const PARAMETER_VTABLE = ROOT + TABLE_BYTES;
const PARAMETERS = PARAMETER_VTABLE + VTABLE_BYTES;

/**
 * The contents of a file with these parameters. Their data come last, so that they are copied from
 * where they are and never held in memory.
 * @throws OnnxLoraError `unsupported` for more than the 2 GB that offsets reach
 */
export function onnxAdapterFilePieces(
  parameters: readonly NewTensor[],
  { adapterVersion, modelVersion }: AdapterVersions = { adapterVersion: 1, modelVersion: 1 },
): Piece[] {
  const places = layOut(parameters);
  const frontBytes = places[0]?.data ?? PARAMETERS + 4;
  const front = new Uint8Array(frontBytes);
  const write = new DataView(front.buffer);
  const offset = (at: number, target: number) => write.setUint32(at, target - at, true);
  offset(0, ROOT);
  front.set(new TextEncoder().encode(IDENTIFIER), 4);
  for (const vtable of [ROOT_VTABLE, PARAMETER_VTABLE]) {
    for (const [i, value] of VTABLE.entries()) write.setUint16(vtable + 2 * i, value, true);
  }
  write.setInt32(ROOT, ROOT - ROOT_VTABLE, true);
  const versions = [FORMAT_VERSION, adapterVersion, modelVersion];
  for (const [i, value] of versions.entries()) write.setInt32(ROOT + 4 + 4 * i, value, true);
  offset(ROOT + 16, PARAMETERS);
  write.setUint32(PARAMETERS, parameters.length, true);
  for (const [i, place] of places.entries()) {
    offset(PARAMETERS + 4 + 4 * i, place.table);
    write.setInt32(place.table, place.table - PARAMETER_VTABLE, true);
    offset(place.table + 4, place.name);
    offset(place.table + 8, place.dims);
    write.setInt32(place.table + 12, dataTypeNumber(parameters[i]!.dtype), true);
    offset(place.table + 16, place.data);
    write.setUint32(place.name, place.nameBytes.length, true);
    front.set(place.nameBytes, place.name + 4);
    const { dims } = parameters[i]!;
    write.setUint32(place.dims, dims.length, true);
    for (const [j, dim] of dims.entries()) {
      write.setBigInt64(place.dims + 4 + 8 * j, BigInt(dim), true);
    }
  }
  return [front, ...dataPieces(parameters, places)];
}

/** Places of the parts of a parameter: its table, and the three vectors, each after its length. */
interface Place {
  readonly table: number;
  readonly name: number;
  readonly nameBytes: Uint8Array;
  readonly dims: number;
  readonly data: number;
}

function layOut(parameters: readonly NewTensor[]): Place[] {
  const tables = PARAMETERS + 4 + 4 * parameters.length;
  let end = tables + TABLE_BYTES * parameters.length;
  const named = parameters.map(({ name, dims }) => {
    const nameBytes = new TextEncoder().encode(name);
    const at = aligned(end, 4, 0);
    // A string ends in a zero that its length does not count.
    const dimsAt = aligned(at + 4 + nameBytes.length + 1, 8, 4);
    end = dimsAt + 4 + 8 * dims.length;
    return { name: at, nameBytes, dims: dimsAt };
  });
  const places = named.map((place, i): Place => {
    const data = aligned(end, 8, 4);
    end = data + 4 + pieceLength(parameters[i]!.data);
    return { table: tables + TABLE_BYTES * i, ...place, data };
  });
  if (end <= MAX_FILE_BYTES) return places;
  throw new OnnxLoraError(
    'unsupported',
    `the adapter takes ${end} bytes, and an .onnx_adapter file ends at ${MAX_FILE_BYTES}`,
    { hint: 'Write it as .safetensors.' },
  );
}

/** The next place that is `rest` after a multiple of `step`. */
function aligned(at: number, step: number, rest: number): number {
  return at + ((((rest - at) % step) + step) % step);
}

/** The bytes from the first data vector to the end: lengths, data, and the padding between. */
function dataPieces(parameters: readonly NewTensor[], places: readonly Place[]): Piece[] {
  return parameters.flatMap(({ data }, i) => {
    const length = pieceLength(data);
    const header = new Uint8Array(4);
    new DataView(header.buffer).setUint32(0, length, true);
    const next = places[i + 1]?.data;
    const padding = next === undefined ? 0 : next - (places[i]!.data + 4 + length);
    return [header, data, new Uint8Array(padding)];
  });
}
