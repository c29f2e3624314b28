/** Adapter files from a page: safetensors with the step graph's description of its adapters. */
import { OnnxLoraError } from '../errors.js';
import type { StepManifest } from '../training/step-format.js';

/** safetensors starts with the length of its header, as an unsigned 64-bit number. */
const LENGTH_BYTES = 8;

/**
 * The adapter file for a trained `theta`, as `extract` writes it: for `apply`, and for
 * `merge` as its `adapter`.
 * @throws OnnxLoraError `unsupported` where tensors of the model belong to it that do not train, as
 * after `patch` with `init: 'pissa'`
 */
export function adapterBytes(
  { adapterFile, parameters }: StepManifest,
  theta: Float32Array,
): Uint8Array<ArrayBuffer> {
  const places = new Map(parameters.map((parameter) => [parameter.name, parameter]));
  const entries: Record<string, unknown> = { __metadata__: adapterFile.metadata };
  const data = new Float32Array(theta.length);
  let end = 0;
  for (const [name, parameter] of Object.entries(adapterFile.tensors)) {
    const { shape, offset, length } = places.get(parameter) ?? untrained(parameter);
    data.set(theta.subarray(offset, offset + length), end);
    const bytes = [end, end + length].map((element) => element * data.BYTES_PER_ELEMENT);
    entries[name] = { dtype: 'F32', shape, data_offsets: bytes };
    end += length;
  }
  return withHeader(entries, data.subarray(0, end));
}

function untrained(tensor: string): never {
  throw new OnnxLoraError(
    'unsupported',
    `the adapter file has to hold ${tensor} of the model, which the step does not train`,
    {
      hint: 'Save the trained model (withTensors), and run: `extract(model, { output: ADAPTER })`',
    },
  );
}

function withHeader(entries: object, data: Float32Array): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(JSON.stringify(entries));
  // Spaces after the header let the numbers start at a multiple of 8.
  const length = Math.ceil(text.length / LENGTH_BYTES) * LENGTH_BYTES;
  const file = new Uint8Array(LENGTH_BYTES + length + data.byteLength).fill(' '.charCodeAt(0));
  new DataView(file.buffer).setBigUint64(0, BigInt(length), true);
  file.set(text, LENGTH_BYTES);
  file.set(new Uint8Array(data.buffer, 0, data.byteLength), LENGTH_BYTES + length);
  return file;
}
