/** The .npy format of NumPy: a magic word, a header that is a Python dict, then the elements. */
import { OnnxLoraError } from '../errors.js';
import { byteLength, type DataTypeName } from '../onnx/dtype.js';

/** NumPy writes about a hundred bytes, and its own reader stops at 10 000. */
const MAX_HEADER_BYTES = 16_384;

/** So much of the beginning of a file is enough to parse any header. */
export const MAX_NPY_PREFIX = 12 + MAX_HEADER_BYTES;

const MAGIC = '\x93NUMPY';

const dtypeOfDescr: Readonly<Record<string, DataTypeName>> = {
  b1: 'bool',
  i1: 'int8',
  u1: 'uint8',
  i2: 'int16',
  u2: 'uint16',
  i4: 'int32',
  u4: 'uint32',
  i8: 'int64',
  u8: 'uint64',
  f2: 'float16',
  f4: 'float32',
  f8: 'float64',
};

/** Contents of other kinds of arrays, by NumPy's letter for them. */
const otherKinds: Readonly<Record<string, string>> = {
  O: 'Python objects',
  U: 'strings',
  S: 'strings',
  V: 'raw bytes',
  c: 'complex numbers',
  M: 'dates',
  m: 'time spans',
};

/** One array: `dataStart` counts bytes from the magic word. */
export interface NpyHeader {
  readonly dtype: DataTypeName;
  readonly shape: readonly number[];
  readonly dataStart: number;
  /** Of the elements. */
  readonly dataBytes: number;
}

/**
 * Parses the header of a .npy file of version 1, 2 or 3, whose elements are little-endian numbers in
 * C order.
 * @param bytes the file, or its first {@link MAX_NPY_PREFIX} bytes
 * @param label names the array in errors
 * @throws OnnxLoraError `invalid-data` for anything else, with the reason
 */
export function parseNpyHeader(bytes: Uint8Array, label: string): NpyHeader {
  const { text, dataStart } = headerText(bytes, label);
  const fields = parseDict(text, label);
  const dtype = parseDescr(fields.get('descr')!, label);
  const shape = parseShape(fields.get('shape')!, label);
  // With one axis longer than 1 both orders are the same.
  if (fields.get('fortran_order') === 'True' && shape.filter((size) => size !== 1).length > 1) {
    const hint = 'Save numpy.ascontiguousarray(x) in its place.';
    throw invalid(label, 'is in Fortran order, expected C order', hint);
  }
  const dataBytes = byteLength(dtype, countOf(shape));
  if (Number.isSafeInteger(dataBytes)) return { dtype, shape, dataStart, dataBytes };
  throw invalid(label, `has shape (${shape.join(', ')}), which is too large`);
}

function headerText(bytes: Uint8Array, label: string): { text: string; dataStart: number } {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.toString('latin1', 0, MAGIC.length) !== MAGIC) {
    throw invalid(label, 'is not a .npy array: it does not start with the word NUMPY');
  }
  const version = view[6];
  if (version !== 1 && version !== 2 && version !== 3) {
    throw invalid(label, `has version ${version ?? 'none'} of the .npy format, expected 1, 2 or 3`);
  }
  const start = version === 1 ? 10 : 12;
  if (view.length < start) throw cutShort(label);
  const length = version === 1 ? view.readUInt16LE(8) : view.readUInt32LE(8);
  if (length > MAX_HEADER_BYTES) {
    const problem = `says that its header has ${length} bytes`;
    throw invalid(label, `${problem}, at most ${MAX_HEADER_BYTES} are allowed`);
  }
  const dataStart = start + length;
  if (view.length < dataStart) throw cutShort(label);
  return { text: view.toString(version === 3 ? 'utf8' : 'latin1', start, dataStart), dataStart };
}

/** One key with its value: a string, a bool, a tuple of numbers, or a list, which is not read. */
const ENTRY =
  /\s*(?:'(\w+)'|"(\w+)")\s*:\s*('[^']*'|"[^"]*"|True|False|\([\d\sL,]*\)|\[.*\])\s*(?:,\s*|$)/sy;

const KEYS = ['descr', 'fortran_order', 'shape'];

/** Values as they are written. */
function parseDict(text: string, label: string): Map<string, string> {
  const fields = new Map<string, string>();
  const body = /^\{(.*)\}\s*$/s.exec(text)?.[1]?.trim() ?? '';
  const entries = new RegExp(ENTRY);
  for (let entry = entries.exec(body); entry; entry = entries.exec(body)) {
    fields.set((entry[1] ?? entry[2])!, entry[3]!);
    if (entries.lastIndex === body.length && KEYS.every((key) => fields.has(key))) return fields;
  }
  const expected = `expected a dict of ${KEYS.join(', ')}`;
  throw invalid(label, `has the header ${JSON.stringify(text.trim().slice(0, 200))}, ${expected}`);
}

function parseDescr(written: string, label: string): DataTypeName {
  if (written.startsWith('[')) {
    const hint = 'Save each field as an array of its own.';
    throw invalid(label, 'holds records, expected numbers', hint);
  }
  const descr = written.slice(1, -1);
  const [order, code] = /^[<>|=]/.test(descr) ? [descr[0]!, descr.slice(1)] : ['=', descr];
  const dtype = Object.hasOwn(dtypeOfDescr, code) ? dtypeOfDescr[code] : undefined;
  if (dtype === undefined) {
    const kind = otherKinds[code.charAt(0)];
    const found = kind ? `${kind} (${descr})` : `elements of type ${JSON.stringify(descr)}`;
    const hint = 'Save it as an array of bools, integers, or floats of 16, 32 or 64 bits.';
    throw invalid(label, `holds ${found}, expected numbers`, hint);
  }
  if (order !== '>') return dtype;
  const hint = "Save x.astype(x.dtype.newbyteorder('<')) in its place.";
  throw invalid(label, `is big-endian (${descr}), expected little-endian`, hint);
}

/** Python 2 wrote an L after long numbers. */
function parseShape(written: string, label: string): number[] {
  const inner = written.slice(1, -1).trim().replace(/,$/, '');
  const sizes = inner === '' ? [] : inner.split(',').map((size) => size.trim().replace(/L$/, ''));
  if (!/^[([]/.test(written) || sizes.some((size) => !/^\d{1,15}$/.test(size))) {
    throw invalid(label, `has the shape ${written.slice(0, 80)}, expected a tuple of sizes`);
  }
  return sizes.map(Number);
}

function countOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function cutShort(label: string): OnnxLoraError {
  return invalid(label, 'is cut short: it ends within its header', 'Is the file complete?');
}

function invalid(label: string, problem: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-data', `${label} ${problem}`, { hint });
}
