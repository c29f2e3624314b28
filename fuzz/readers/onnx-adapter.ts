import { join } from 'node:path';
import { apply } from '../../src/commands/apply.js';
import { withAdapters } from '../adapters.js';
import { MODEL } from '../models/reader.js';
import { damageBytes } from '../mutate/bytes.js';
import { type Reader, withFile } from '../reader.js';

const ADAPTER = 'runtime.onnx_adapter';

/** ONNX Runtime's adapter files: FlatBuffers, whose bytes are offsets for the most part. */
export const onnxAdapterReader: Reader = {
  seeds: async () => [await withAdapters(ADAPTER)],
  mutate: (files, random) => withFile(files, ADAPTER, (bytes) => damageBytes(bytes, random)),
  run: (folder) =>
    apply(join(folder, MODEL), join(folder, ADAPTER), { output: join(folder, 'out.onnx') }),
};
