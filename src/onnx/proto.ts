/** The messages of ONNX in generated code, to encode new elements. Files are read by wire.ts and parse.ts. */
import { createRequire } from 'node:module';
import type onnxProto from 'onnx-proto';

// Required, not imported: of a CommonJS file Node would scan all 330 kB for names first, at every start.
export const { onnx } = createRequire(import.meta.url)('onnx-proto') as typeof onnxProto;
