/** The files that a command reads: none of them may be an output. */
import { dirname, join } from 'node:path';
import { externalLocations } from '../onnx/external.js';
import type { Model } from '../onnx/model.js';
import { openModel } from '../onnx/parse.js';
import type { WriteOptions } from '../onnx/write.js';

/** The files that a model is made of. */
export function inputFiles(model: Model): string[] {
  const { path } = model.source;
  return path === undefined ? [] : filesAt(path, externalLocations(model));
}

/**
 * The files that the model at a path is made of.
 * @throws OnnxLoraError those of reading
 */
export function filesOfModel(path: string): string[] {
  return filesAt(path, locationsIn(path));
}

function filesAt(path: string, locations: readonly string[]): string[] {
  return [path, ...locations.map((location) => join(dirname(path), location))];
}

/**
 * The data files of the model at a path, as it names them.
 * @throws OnnxLoraError those of reading
 */
export function locationsIn(path: string): string[] {
  const model = openModel(path);
  try {
    return externalLocations(model);
  } finally {
    model.close();
  }
}

/** Options that name a file or folder to read, of all commands. */
export const inputOptions = [
  ...(['adapter', 'samples', 'tuned', 'compare'] as const),
  ...(['data', 'evalData', 'labels', 'tokenizer', 'processor', 'dictionary'] as const),
] as const;

type InputOptions = { readonly [K in (typeof inputOptions)[number]]?: unknown };

/** The files and folders that options name to be read. */
export function inputsOf(options: InputOptions & WriteOptions): string[] {
  const named = inputOptions.flatMap((key) => options[key]);
  const paths = named.filter((value) => typeof value === 'string');
  return [...paths, ...(options.alsoRead ?? [])];
}
