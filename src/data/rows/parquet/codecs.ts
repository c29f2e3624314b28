/** The codecs of pages. Each gives as many bytes as the page says, or throws. */
import * as zlib from 'node:zlib';
import { snappyUncompress } from 'hyparquet';
import { OnnxLoraError } from '../../../errors.js';

type Decompress = (input: Uint8Array, length: number) => Uint8Array;

export type Codecs = Readonly<Record<string, Decompress>>;

/** Node's own, which stop at a given size. */
const native: Codecs = {
  UNCOMPRESSED: (input) => input,
  GZIP: (input, length) => zlib.unzipSync(input, most(length)),
  BROTLI: (input, length) => zlib.brotliDecompressSync(input, most(length)),
  SNAPPY(input, length) {
    const output = new Uint8Array(length);
    snappyUncompress(input, output);
    return output;
  },
};

function most(length: number) {
  return { maxOutputLength: Math.max(1, length) };
}

/**
 * The codecs that some columns need.
 * @throws OnnxLoraError `unsupported` for one that is not known, `runtime` where WebAssembly has no memory
 */
export async function codecsFor(names: ReadonlySet<string>): Promise<Codecs> {
  const missing = [...names].filter((name) => !Object.hasOwn(native, name));
  const [foreign, codecs] = [missing[0], missing.length === 0 ? native : await withPackage()];
  if (foreign === undefined || missing.every((name) => Object.hasOwn(codecs, name))) return codecs;
  throw new OnnxLoraError('unsupported', `the codec ${foreign} is not known`, {
    hint: `Known are ${Object.keys(codecs).join(', ')}.`,
  });
}

async function withPackage(): Promise<Codecs> {
  try {
    const { decompressLz4, decompressLz4Raw, decompressZstd } = await import(
      'hyparquet-compressors'
    );
    return {
      ...native,
      ZSTD(input, length) {
        checkFrame(input);
        // Into bytes of the length that the page says: frames may say another.
        return decompressZstd(input, new Uint8Array(length));
      },
      LZ4: decompressLz4,
      LZ4_RAW: decompressLz4Raw,
    };
  } catch (error) {
    throw new OnnxLoraError('runtime', `codecs cannot be loaded: ${(error as Error).message}`, {
      hint: 'They reserve memory: is the address space limited (ulimit -v)? Or write the file with gzip.',
      cause: error,
    });
  }
}

/**
 * The package writes a second frame over the first.
 * @throws RangeError for bytes that are not one frame of Zstandard
 */
function checkFrame(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== 0xfd2fb528)
    throw new RangeError('it does not begin as Zstandard');
  const flags = view.getUint8(4);
  const isSingle = ((flags >> 5) & 1) === 1;
  const dictionary = [0, 1, 2, 4][flags & 3]!;
  const content = flags >> 6 === 0 ? Number(isSingle) : 1 << (flags >> 6);
  let at = 5 + Number(!isSingle) + dictionary + content;
  for (let isLast = false; !isLast; ) {
    const header = view.getUint8(at) + view.getUint16(at + 1, true) * 256;
    isLast = header % 2 === 1;
    const isRun = ((header >> 1) & 3) === 1;
    at += 3 + (isRun ? 1 : header >> 3);
  }
  if (at + 4 * ((flags >> 2) & 1) === bytes.length) return;
  throw new RangeError('a page is not one frame of Zstandard');
}
