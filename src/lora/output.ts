/** From an edited model to files: where they go, and which data files go with them. */
import { mkdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import type { NewDataFile } from '../onnx/data-file.js';
import { type MessageEdit, totalLength } from '../onnx/edit.js';
import { checkExternalData, externalLocations, resolveLocation } from '../onnx/external.js';
import type { Model } from '../onnx/model.js';
import { FileSource, fileError } from '../onnx/source.js';
import { checkOutput, type OutputFile, type WriteOptions, writeFiles } from '../onnx/write.js';

/** Protobuf messages end here, for every reader. */
const MAX_MESSAGE_BYTES = 2 ** 31 - 1;

const kinds = ['lora', 'slots', 'trained', 'merged', 'base'] as const;

const SUFFIX = new RegExp(`(\\.(${kinds.join('|')}))?\\.onnx$`, 'i');

/** `model.onnx` or `model.lora.onnx` -> `model.<kind>.onnx`, beside it. */
export function defaultOutput(input: string, kind: (typeof kinds)[number]): string {
  const name = basename(input);
  const isFirst = kind === 'lora' || kind === 'slots';
  const stem = name.replace(isFirst ? /\.onnx$/i : SUFFIX, '');
  return join(dirname(input), `${stem}.${kind}.onnx`);
}

/** The files that a model is made of; none of them may be written to. */
export function inputFiles(model: Model): string[] {
  const { path } = model.source;
  if (path === undefined) return [];
  return [path, ...externalLocations(model).map((location) => join(dirname(path), location))];
}

/**
 * Writes an edited model. External data files are referenced where they are; an output in another
 * folder gets copies of them beside it.
 * @param dataFiles further files to put in place before the model
 * @param without locations that the edited model does not refer to any more
 */
export async function writeModel(
  model: Model,
  edit: MessageEdit,
  output: string,
  options: WriteOptions,
  dataFiles: readonly OutputFile[] = [],
  without: ReadonlySet<string> = new Set(),
): Promise<void> {
  const pieces = edit.pieces();
  checkSize(model, totalLength(pieces));
  const inputs = inputFiles(model);
  checkOutput(output, inputs, options.force ?? false);
  if (model.source.path !== undefined) checkExternalData(model);
  const copied: FileSource[] = [];
  try {
    const copies = await dataCopies(model, output, without, copied);
    await writeFiles([...dataFiles, ...copies, { path: output, pieces }], inputs, options);
  } finally {
    for (const source of copied) source.close();
  }
}

/** Writes an edited model, and the data file that tensors of it moved to, if there are any. */
export async function writeWithData(
  model: Model,
  edit: MessageEdit,
  output: string,
  options: WriteOptions,
  dataFile: NewDataFile,
): Promise<void> {
  const touched = dataFile.touched();
  const path = join(dirname(output), dataFile.location);
  const data = dataFile.isEmpty ? [] : [{ path, pieces: dataFile.finish(edit) }];
  await writeModel(model, edit, output, options, data, touched);
}

function checkSize(model: Model, length: number): void {
  if (length <= MAX_MESSAGE_BYTES) return;
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label} would grow to ${length} bytes, and an ONNX file ends at ${MAX_MESSAGE_BYTES}`,
    {
      hint: 'Save its weights as external data first (onnx.save with save_as_external_data=True).',
    },
  );
}

async function dataCopies(
  model: Model,
  output: string,
  without: ReadonlySet<string>,
  opened: FileSource[],
): Promise<OutputFile[]> {
  const { path } = model.source;
  if (path === undefined || resolve(dirname(path)) === resolve(dirname(output))) return [];
  const copies: OutputFile[] = [];
  for (const location of externalLocations(model)) {
    if (without.has(location)) continue;
    const target = join(dirname(output), location);
    const source = new FileSource(resolveLocation(model, location));
    opened.push(source);
    if (sameContents(source, target)) continue;
    await makeFolder(dirname(target));
    copies.push({ path: target, pieces: [{ source, start: 0, end: source.size }] });
  }
  return copies;
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    throw fileError(path, error);
  }
}

const COMPARE_BYTES = 1 << 20;

/** Several models may share one data file: a copy that is there already is used. */
function sameContents(source: FileSource, target: string): boolean {
  let theirs: FileSource;
  try {
    theirs = new FileSource(target);
  } catch {
    return false;
  }
  try {
    if (theirs.size !== source.size) return false;
    for (let at = 0; at < source.size; at += COMPARE_BYTES) {
      const end = Math.min(source.size, at + COMPARE_BYTES);
      if (Buffer.compare(source.read(at, end), theirs.read(at, end)) !== 0) return false;
    }
    return true;
  } finally {
    theirs.close();
  }
}
