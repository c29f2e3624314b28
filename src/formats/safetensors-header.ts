/** The JSON header of safetensors: the types, shapes and places of the tensors. */
import { OnnxLoraError } from '../errors.js';
import { byteLength, type DataTypeName, dataTypes } from '../onnx/dtype.js';
import { JsonProblem, parseStrictJson, show } from './json.js';

/** Limit of the reference implementation, so no writer exceeds it either. */
export const MAX_HEADER_BYTES = 100_000_000;

/** A header needs 3 levels; the rest is room for fields that are ignored, at a bounded cost. */
const MAX_HEADER_DEPTH = 16;

export const LENGTH_BYTES = 8;
export const METADATA_KEY = '__metadata__';

const dtypeOfCode: Readonly<Record<string, DataTypeName>> = {
  BOOL: 'bool',
  U8: 'uint8',
  I8: 'int8',
  U16: 'uint16',
  I16: 'int16',
  U32: 'uint32',
  I32: 'int32',
  U64: 'uint64',
  I64: 'int64',
  F16: 'float16',
  BF16: 'bfloat16',
  F32: 'float32',
  F64: 'float64',
  C64: 'complex64',
  F8_E4M3: 'float8e4m3fn',
  F8_E4M3FNUZ: 'float8e4m3fnuz',
  F8_E5M2: 'float8e5m2',
  F8_E5M2FNUZ: 'float8e5m2fnuz',
  F8_E8M0: 'float8e8m0',
  F4: 'float4e2m1',
};

const dtypeByCode = new Map(Object.entries(dtypeOfCode));
export const codeByDtype = new Map(
  Object.entries(dtypeOfCode).map(([code, dtype]) => [dtype, code]),
);
const bitsByDtype = new Map<string, number>(
  Object.values(dataTypes).map(({ name, bits }) => [name, bits]),
);

/** The place of a tensor: `start` and `end` count bytes from the end of the header, as it does. */
export interface SafetensorsEntry {
  /** Type of the numbers. */
  readonly dtype: DataTypeName;
  /** Its shape. */
  readonly shape: readonly number[];
  /** First byte in the file. */
  readonly start: number;
  /** The byte after the last one. */
  readonly end: number;
}

/** A header that was read. */
export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of their bytes. */
  readonly tensors: Map<string, SafetensorsEntry>;
}

/**
 * Checks a header as strictly as the reference implementation does.
 * @param label names the file in errors
 * @param dataBytes the bytes after the header, which the tensors have to fill
 * @throws OnnxLoraError `invalid-adapter`
 */
export function readHeader(label: string, bytes: Uint8Array, dataBytes: number): SafetensorsHeader {
  const { [METADATA_KEY]: metadata, ...entries } = parseHeader(label, decodeHeader(label, bytes));
  const tensors = parseEntries(label, entries, dataBytes);
  return { metadata: parseMetadata(label, metadata), tensors };
}

export function invalid(
  label: string,
  problem: string,
  hint?: string,
  cause?: unknown,
): OnnxLoraError {
  return new OnnxLoraError('invalid-adapter', `${label}: ${problem}`, { hint, cause });
}

export function invalidTensor(label: string, name: string, problem: string): OnnxLoraError {
  return invalid(label, `tensor ${show(name)} ${problem}`);
}

function decodeHeader(label: string, bytes: Uint8Array): string {
  try {
    // A byte order mark is kept so that it is an error, as it is in the reference implementation.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw invalid(label, 'its header is not valid UTF-8', undefined, error);
  }
}

function parseHeader(label: string, text: string): Record<string, unknown> {
  if (!text.startsWith('{')) {
    throw invalid(label, `its header starts with ${show(text.charAt(0))}, expected "{"`);
  }
  try {
    return parseStrictJson(text, MAX_HEADER_DEPTH) as Record<string, unknown>;
  } catch (error) {
    if (!(error instanceof JsonProblem)) throw error;
    throw invalid(label, `its header ${error.message}`, undefined, error);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function parseMetadata(label: string, value: unknown): Record<string, string> {
  if (value === undefined || value === null) return {};
  const expected = `its ${METADATA_KEY} must map names to strings`;
  if (!isObject(value)) throw invalid(label, `${expected}, found ${show(value)}`);
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry === 'string') continue;
    throw invalid(label, `${expected}, found ${show(entry)} for ${show(key)}`);
  }
  return value as Record<string, string>;
}

function parseEntries(
  label: string,
  entries: Record<string, unknown>,
  dataBytes: number,
): Map<string, SafetensorsEntry> {
  const parsed = Object.entries(entries).map(
    ([name, value]) => [name, parseEntry(label, name, value)] as const,
  );
  parsed.sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  checkCoverage(label, parsed, dataBytes);
  return new Map(parsed);
}

function parseEntry(label: string, name: string, value: unknown): SafetensorsEntry {
  if (!isObject(value)) {
    throw invalidTensor(label, name, `must be described by an object, found ${show(value)}`);
  }
  const dtype = parseDtype(label, name, value.dtype);
  const shape = parseShape(label, name, value.shape);
  const [start, end] = parseOffsets(label, name, value.data_offsets);
  const expected = tensorBytes(label, name, dtype, shape);
  if (end - start !== expected) {
    const what = `${value.dtype} ${show(shape)} takes ${expected} bytes`;
    throw invalidTensor(label, name, `${what}, its data_offsets span ${end - start}`);
  }
  return { dtype, shape, start, end };
}

function parseDtype(label: string, name: string, value: unknown): DataTypeName {
  const dtype = typeof value === 'string' ? dtypeByCode.get(value) : undefined;
  if (dtype) return dtype;
  const known = [...dtypeByCode.keys()].join(', ');
  throw invalidTensor(label, name, `has dtype ${show(value)}, expected one of ${known}`);
}

export function parseShape(label: string, name: string, value: unknown): number[] {
  if (Array.isArray(value) && value.every(isSize)) return value;
  const expected = 'expected an array of non-negative integers';
  throw invalidTensor(label, name, `has shape ${show(value)}, ${expected}`);
}

function parseOffsets(label: string, name: string, value: unknown): [number, number] {
  if (Array.isArray(value) && value.length === 2 && value.every(isSize)) {
    const [start, end] = value as [number, number];
    if (start <= end) return [start, end];
  }
  const expected = 'expected a start and an end no smaller, both non-negative integers';
  throw invalidTensor(label, name, `has data_offsets ${show(value)}, ${expected}`);
}

/** Refuses what the reference implementation does: sizes that overflow, tensors of half bytes. */
export function tensorBytes(
  label: string,
  name: string,
  dtype: DataTypeName,
  shape: readonly number[],
): number {
  let count = 1;
  for (const size of shape) {
    count *= size;
    if (!Number.isSafeInteger(count)) break;
  }
  const bits = count * (bitsByDtype.get(dtype) as number);
  if (!Number.isSafeInteger(bits)) {
    throw invalidTensor(label, name, `has shape ${show(shape)}, which is too large`);
  }
  if (bits % 8 !== 0) {
    const problem = `has ${count} elements of ${dtype}, which do not fill whole bytes`;
    throw invalidTensor(label, name, problem);
  }
  return byteLength(dtype, count);
}

/** Bytes in no tensor could hide something; bytes in two tensors are an attack or a mistake. */
function checkCoverage(
  label: string,
  sorted: readonly (readonly [string, SafetensorsEntry])[],
  dataBytes: number,
): void {
  let covered = 0;
  for (const [name, { start, end }] of sorted) {
    if (end > dataBytes) {
      const problem = `ends at byte ${end} of the data, which has ${dataBytes}`;
      throw invalid(label, `tensor ${show(name)} ${problem}`, 'is the file complete?');
    }
    if (start !== covered) {
      const problem = start < covered ? 'overlaps another tensor' : 'leaves a hole before it';
      const where = `it starts at byte ${start}, expected ${covered}`;
      throw invalidTensor(label, name, `${problem}: ${where}`);
    }
    covered = end;
  }
  if (covered !== dataBytes) {
    throw invalid(label, `its tensors take ${covered} bytes, its data has ${dataBytes}`);
  }
}
