/**
 * ONNX files in memory, as far as a page needs them: their metadata, and the numbers of
 * their initializers. External data is not looked at.
 */
import { OnnxLoraError } from '../errors.js';
import type { ByteSource } from '../onnx/byte-source.js';
import { EntryField, GraphField, ModelField, TensorField } from '../onnx/fields.js';
import { MemorySource } from '../onnx/memory-source.js';
import { fieldsOf, messageRange, type Range, readString } from '../onnx/wire.js';

/**
 * The value of a key in the model's `metadata_props`.
 * @throws OnnxLoraError `invalid-model` for bytes that are not an ONNX model
 */
export function metadataOf(model: Uint8Array, key: string): string | undefined {
  const source = new MemorySource(model, 'the model');
  for (const field of fieldsOf(source, { start: 0, end: source.size })) {
    if (field.number !== ModelField.metadataProps) continue;
    const entry = new Map<number, string>();
    for (const part of fieldsOf(source, messageRange(source, field))) {
      entry.set(part.number, readString(source, part));
    }
    if (entry.get(EntryField.key) === key) return entry.get(EntryField.value);
  }
  return undefined;
}

/**
 * The numbers of a float32 initializer.
 * @throws OnnxLoraError `invalid-model` where the model has none of that name with its numbers in it
 */
export function float32Of(model: Uint8Array, name: string): Float32Array<ArrayBuffer> {
  const { start, end } = rawDataOf(indexed(model), name);
  if ((end - start) % Float32Array.BYTES_PER_ELEMENT !== 0) {
    throw new OnnxLoraError(
      'invalid-model',
      `initializer ${name} has ${end - start} bytes, expected float32 numbers`,
    );
  }
  // In the file they need not be aligned. (`slice` of a Buffer would be no copy.)
  return new Float32Array(new Uint8Array(model.subarray(start, end)).buffer);
}

/**
 * A copy of a model with other numbers in some of its float32 initializers, such as a patched model
 * with trained adapters.
 * @throws OnnxLoraError `invalid-model` for a name that the model does not have, `invalid-argument`
 * for another number of elements
 */
export function withTensors(
  model: Uint8Array,
  tensors: ReadonlyMap<string, Float32Array>,
): Uint8Array<ArrayBuffer> {
  const places = indexed(model);
  const copy = new Uint8Array(model);
  for (const [name, values] of tensors) {
    const { start, end } = rawDataOf(places, name);
    if (values.byteLength !== end - start) {
      throw new OnnxLoraError(
        'invalid-argument',
        `initializer ${name} holds ${end - start} bytes, expected the ${values.byteLength} of ${values.length} float32 numbers`,
      );
    }
    copy.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), start);
  }
  return copy;
}

/** The place of the raw data of each initializer of the main graph. */
function indexed(model: Uint8Array): Map<string, Range> {
  const source = new MemorySource(model, 'the model');
  const found = new Map<string, Range>();
  for (const field of fieldsOf(source, { start: 0, end: source.size })) {
    if (field.number !== ModelField.graph) continue;
    for (const part of fieldsOf(source, messageRange(source, field))) {
      if (part.number === GraphField.initializer) {
        addTensor(found, source, messageRange(source, part));
      }
    }
  }
  return found;
}

function addTensor(found: Map<string, Range>, source: ByteSource, tensor: Range): void {
  let name = '';
  let data: Range | undefined;
  for (const field of fieldsOf(source, tensor)) {
    if (field.number === TensorField.name) name = readString(source, field);
    if (field.number === TensorField.rawData) data = messageRange(source, field);
  }
  if (data) found.set(name, data);
}

function rawDataOf(places: ReadonlyMap<string, Range>, name: string): Range {
  const place = places.get(name);
  if (place) return place;
  throw new OnnxLoraError('invalid-model', `the model has no initializer ${name} with raw data`);
}
