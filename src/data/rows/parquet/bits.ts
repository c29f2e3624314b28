/** Runs and packed bits, as levels, dictionary indices and differences of Parquet are written. */

/** A place in bytes; reading past their end throws a RangeError. */
export interface Cursor {
  readonly view: DataView;
  offset: number;
}

export function cursorOf(bytes: Uint8Array, offset = 0): Cursor {
  return { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset };
}

/** Bits in a number of 32, and in one of 64, seven a byte. */
const [MAX_VARINT_32, MAX_VARINT_64] = [5, 10];

/** An unsigned number of 32 bits. */
export function varint(cursor: Cursor): number {
  let value = 0;
  for (let i = 0; i < MAX_VARINT_32; i++) {
    const byte = cursor.view.getUint8(cursor.offset++);
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return value;
  }
  throw new RangeError('a number has more than 32 bits');
}

/** A signed number of 64 bits. */
export function zigzag(cursor: Cursor): bigint {
  let value = 0n;
  for (let i = 0; i < MAX_VARINT_64; i++) {
    const byte = cursor.view.getUint8(cursor.offset++);
    value |= BigInt(byte & 0x7f) << BigInt(7 * i);
    if (byte < 0x80) return (value >> 1n) ^ -(value & 1n);
  }
  throw new RangeError('a number has more than 64 bits');
}

/** Fills `output` with numbers of `width` bits, from runs of one number and of packed ones. */
export function readRuns(cursor: Cursor, width: number, output: Uint8Array | Uint32Array): void {
  if (width > 32) throw new RangeError(`numbers of ${width} bits`);
  for (let done = 0; done < output.length; ) {
    const header = varint(cursor);
    const rest = output.length - done;
    if (header % 2 === 1) {
      const count = Math.min(rest, ((header - 1) / 2) * 8);
      const bytes = ((header - 1) / 2) * width;
      readPacked(cursor, width, output.subarray(done, done + count));
      cursor.offset = Math.min(cursor.view.byteLength, cursor.offset + bytes);
      done += count;
    } else {
      const count = Math.min(rest, header / 2);
      output.fill(readBytes(cursor, Math.ceil(width / 8)), done, done + count);
      done += count;
    }
  }
}

function readBytes(cursor: Cursor, count: number): number {
  let value = 0;
  for (let i = 0; i < count; i++) value += cursor.view.getUint8(cursor.offset++) * 2 ** (8 * i);
  return value;
}

/** Does not move the cursor. */
function readPacked(
  { view, offset }: Cursor,
  width: number,
  output: Uint8Array | Uint32Array,
): void {
  let [at, bits, held] = [offset, 0, 0];
  for (let i = 0; i < output.length; i++) {
    let [value, got] = [0, 0];
    while (got < width) {
      if (held === 0) {
        bits = view.getUint8(at++);
        held = 8;
      }
      const take = Math.min(width - got, held);
      value += (bits & ((1 << take) - 1)) * 2 ** got;
      bits >>= take;
      held -= take;
      got += take;
    }
    output[i] = value;
  }
}

/**
 * Numbers by their differences (DELTA_BINARY_PACKED): in blocks with a least difference, cut into parts with
 * a width of bits each. Sums wrap around, as the format has them.
 */
export function readDeltas(cursor: Cursor, count: number, bits: 32 | 64): bigint[] {
  const blockSize = varint(cursor);
  const parts = varint(cursor);
  varint(cursor);
  const values: bigint[] = [];
  let value = zigzag(cursor);
  if (count > 0) values.push(value);
  const size = blockSize / parts;
  if (!Number.isInteger(size) || size < 1) throw new RangeError(`${parts} parts of ${blockSize}`);
  while (values.length < count) {
    const least = zigzag(cursor);
    const widths = cursor.offset;
    cursor.offset += parts;
    for (let part = 0; part < parts && values.length < count; part++) {
      const width = cursor.view.getUint8(widths + part);
      const start = cursor.offset;
      for (let i = 0; i < size && values.length < count; i++) {
        value = BigInt.asIntN(bits, value + least + bitsAt(cursor.view, start, i * width, width));
        values.push(value);
      }
      cursor.offset = start + Math.ceil((size * width) / 8);
    }
  }
  return values;
}

function bitsAt(view: DataView, start: number, from: number, width: number): bigint {
  let value = 0n;
  for (let bit = 0; bit < width; ) {
    const at = from + bit;
    const take = Math.min(8 - (at % 8), width - bit);
    const byte = view.getUint8(start + Math.floor(at / 8)) >> (at % 8);
    value |= BigInt(byte & ((1 << take) - 1)) << BigInt(bit);
    bit += take;
  }
  return value;
}
