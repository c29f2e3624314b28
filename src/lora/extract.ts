import { OnnxLoraError } from '../errors.js';
import { ExternalFiles } from '../onnx/external.js';
import { elementCount } from '../onnx/model.js';
import { openModel } from '../onnx/parse.js';
import { TensorReader } from '../onnx/tensor.js';
import { type WriteOptions, writeFiles } from '../onnx/write.js';
import { adapterFilePieces } from './adapter-file.js';
import { adapterParameters } from './insert.js';
import type { ModelManifest } from './manifest.js';
import { inputFiles } from './output.js';
import { PatchedModel } from './patched.js';
import { headParameters } from './report.js';

export const adapterFormats = ['safetensors'] as const;
export type AdapterFormat = (typeof adapterFormats)[number];

export interface ExtractOptions extends WriteOptions {
  readonly output: string;
  /** The adapter set. May be left out where the model has one. */
  readonly name?: string | undefined;
  /** Default: from the output's ending. */
  readonly format?: AdapterFormat | undefined;
}

export interface ExtractResult {
  readonly output: string;
  readonly format: AdapterFormat;
  readonly set: string;
  /** Names of the adapters. */
  readonly adapters: readonly string[];
  /** Numbers in the file: those of adapters, head and biases. */
  readonly parameters: number;
}

/**
 * Writes one adapter set of the model at `path` to a file of its own.
 * @throws OnnxLoraError `no-adapter`, `invalid-argument`, and those of reading and writing
 */
export async function extract(path: string, options: ExtractOptions): Promise<ExtractResult> {
  const { output } = options;
  const format = options.format ?? formatOf(output);
  const model = openModel(path);
  const files = new ExternalFiles(model);
  try {
    const patched = new PatchedModel(model);
    const set = theSet(patched, options.name);
    const pieces = adapterFilePieces(patched, set, new TensorReader(model, files));
    await writeFiles([{ path: output, pieces }], inputFiles(model), options);
    const adapters = set.adapters.map(({ name }) => name);
    return { output, format, set: set.set, adapters, parameters: parametersIn(patched, set) };
  } finally {
    files.close();
    model.close();
  }
}

function parametersIn(patched: PatchedModel, { adapters, head, biases = [] }: ModelManifest) {
  const counts = [
    ...adapters.map((record) => adapterParameters(record)),
    ...(head ? [headParameters(head)] : []),
    ...biases.map(({ tensor }) => elementCount(patched.initializer(tensor).dims)),
  ];
  return counts.reduce((sum, count) => sum + count, 0);
}

function theSet(patched: PatchedModel, name: string | undefined) {
  const sets = patched.chosenSets(name);
  if (sets.length === 1) return sets[0]!;
  throw new OnnxLoraError(
    'invalid-argument',
    `${patched.model.source.label} has ${sets.length} adapter sets (${sets.map(({ set }) => set).join(', ')}), expected one to extract`,
    { hint: 'Choose one with --name.' },
  );
}

/**
 * The format that the ending of a path names.
 * @throws OnnxLoraError `invalid-argument` where it names none
 */
export function formatOf(output: string): AdapterFormat {
  if (output.endsWith('.safetensors')) return 'safetensors';
  throw new OnnxLoraError(
    'invalid-argument',
    `${output}: its ending names no adapter format, expected .safetensors`,
    { hint: 'Give the output a known ending, or name the format with --format.' },
  );
}
