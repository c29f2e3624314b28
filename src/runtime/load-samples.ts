/** Real inputs from a file, in place of random ones. */
import { OnnxLoraError } from '../errors.js';
import { openSafetensors, type SafetensorsFile } from '../formats/safetensors.js';
import type { SafetensorsEntry } from '../formats/safetensors-header.js';
import type { ValueMeta } from './session.js';
import { type Feeds, isFeedable, type TensorValue, tensorFromBytes } from './tensor-value.js';

const PREFIX = 'input.';

/**
 * One batch of inputs from a .safetensors file, whose keys are the names of the graph inputs, with
 * or without `input.` in front. Other keys are left alone: a file may hold labels too.
 * @param inputs of the session that is to run; without them nothing is checked, and every key is taken
 * @throws OnnxLoraError `invalid-argument` naming file and key where an input is missing or has
 * another type or shape than the model's, and those of reading the file
 */
export function loadSamples(path: string, inputs?: readonly ValueMeta[]): Feeds {
  const file = openSafetensors(path);
  try {
    if (!inputs) return allTensors(file);
    return new Map(inputs.map((input) => [input.name, load(path, file, input)]));
  } finally {
    file.close();
  }
}

function allTensors(file: SafetensorsFile): Feeds {
  const feedable = [...file.tensors].filter(([, { dtype }]) => isFeedable(dtype));
  return new Map(
    feedable.map(([key, { dtype, shape }]) => [
      key.startsWith(PREFIX) ? key.slice(PREFIX.length) : key,
      tensorFromBytes(dtype, shape, file.read(key)),
    ]),
  );
}

function load(path: string, file: SafetensorsFile, input: ValueMeta): TensorValue {
  const key = [input.name, PREFIX + input.name].find((name) => file.tensors.has(name));
  const entry = key === undefined ? undefined : file.tensors.get(key);
  if (key === undefined || !entry) throw missing(path, file, input);
  checkEntry(path, key, entry, input);
  return tensorFromBytes(entry.dtype, entry.shape, file.read(key));
}

function missing(path: string, file: SafetensorsFile, { name }: ValueMeta): OnnxLoraError {
  const keys = [...file.tensors.keys()].join(', ') || 'nothing';
  return new OnnxLoraError('invalid-argument', `${path} has no key ${name}, it has ${keys}`, {
    hint: `Save an array for every input of the model, under its name.`,
  });
}

function checkEntry(path: string, key: string, entry: SafetensorsEntry, input: ValueMeta): void {
  const { dtype, shape } = input;
  if (entry.dtype !== dtype) {
    const expected = dtype ?? 'no tensor at all';
    throw mismatch(path, key, `holds ${entry.dtype}, the model's input takes ${expected}`);
  }
  const fits =
    // A session shows an input of open rank like a scalar.
    shape.length === 0 ||
    (entry.shape.length === shape.length &&
      shape.every((dim, axis) => typeof dim !== 'number' || dim === entry.shape[axis]));
  if (!fits) {
    const expected = shape.map((dim) => dim ?? '?').join(', ');
    const found = entry.shape.join(', ');
    throw mismatch(path, key, `has shape [${found}], the model's input takes [${expected}]`);
  }
}

function mismatch(path: string, key: string, problem: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', `${path}: key ${key} ${problem}`, {
    hint: 'Save the array as the model takes it.',
  });
}
