/** Writes .npy and .npz files by hand, wrong ones too. */
import { deflateRawSync } from 'node:zlib';
import { crc32 } from '../../src/formats/crc32.js';

export interface NpyOptions {
  readonly version?: number;
  readonly fortran?: boolean;
}

/** A .npy file: `descr` is NumPy's word for the type, e.g. `<f4`. */
export function npy(
  descr: string,
  shape: readonly number[],
  data: Uint8Array,
  { version = 1, fortran = false }: NpyOptions = {},
): Uint8Array {
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const order = fortran ? 'True' : 'False';
  const quoted = descr.startsWith('[') ? descr : `'${descr}'`;
  return npyWithHeader(
    `{'descr': ${quoted}, 'fortran_order': ${order}, 'shape': (${sizes}), }`,
    data,
    version,
  );
}

export function npyWithHeader(
  header: string,
  data: Uint8Array = new Uint8Array(0),
  version = 1,
): Uint8Array {
  const start = version === 1 ? 10 : 12;
  const length = Math.ceil((start + header.length + 1) / 64) * 64 - start;
  const text = Buffer.from(`${header.padEnd(length - 1)}\n`, 'latin1');
  const prefix = Buffer.alloc(start);
  prefix.write('\x93NUMPY', 'latin1');
  prefix[6] = version;
  if (version === 1) prefix.writeUInt16LE(text.length, 8);
  else prefix.writeUInt32LE(text.length, 8);
  return Buffer.concat([prefix, text, data]);
}

export interface ZipMember {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly deflate?: boolean;
  /** What the directory says, where it lies. */
  readonly claims?: {
    readonly size?: number;
    readonly crc?: number;
    readonly method?: number;
    readonly flags?: number;
  };
  /** With sizes as ZIP64 has them. */
  readonly zip64?: boolean;
}

/** A zip file, by the application note of PKWARE (sections 4.3.7, 4.3.12, 4.3.16). */
export function zip(members: readonly ZipMember[]): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, bytes, deflate = false, claims = {}, zip64 = false } of members) {
    const stored = deflate ? deflateRawSync(bytes) : Buffer.from(bytes);
    const size = claims.size ?? bytes.length;
    const compressed = claims.size === undefined || deflate ? stored.length : claims.size;
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(zip64 ? 45 : 20, 0);
    fields.writeUInt16LE(claims.flags ?? 0x800, 2);
    fields.writeUInt16LE(claims.method ?? (deflate ? 8 : 0), 4);
    fields.writeUInt32LE(claims.crc ?? crc32(bytes), 10);
    fields.writeUInt32LE(zip64 ? 0xffffffff : compressed, 14);
    fields.writeUInt32LE(zip64 ? 0xffffffff : size, 18);
    fields.writeUInt16LE(Buffer.byteLength(name), 22);
    const extra = zip64 ? sizes64(size, compressed) : Buffer.alloc(0);
    fields.writeUInt16LE(extra.length, 24);
    const local = Buffer.concat([word(0x04034b50), fields, Buffer.from(name), extra, stored]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(offset, 10);
    const made = Buffer.from([20, 0]);
    directory.push(Buffer.concat([word(0x02014b50), made, fields, rest, Buffer.from(name), extra]));
    locals.push(local);
    offset += local.length;
  }
  const end = Buffer.alloc(18);
  end.writeUInt16LE(members.length, 4);
  end.writeUInt16LE(members.length, 6);
  end.writeUInt32LE(Buffer.concat(directory).length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...locals, ...directory, word(0x06054b50), end]);
}

/** A zip file of .npy arrays. */
export function npz(arrays: Readonly<Record<string, Uint8Array>>, deflate = false): Buffer {
  return zip(
    Object.entries(arrays).map(([name, bytes]) => ({ name: `${name}.npy`, bytes, deflate })),
  );
}

function sizes64(size: number, compressed: number): Buffer {
  const extra = Buffer.alloc(20);
  extra.writeUInt16LE(1, 0);
  extra.writeUInt16LE(16, 2);
  extra.writeBigUInt64LE(BigInt(size), 4);
  extra.writeBigUInt64LE(BigInt(compressed), 12);
  return extra;
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** Little-endian bytes of a typed array. */
export function bytesOf(values: ArrayBufferView): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
