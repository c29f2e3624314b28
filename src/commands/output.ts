/** Writes an edited model: where its files go, and which data files go with them. */
import { existsSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import type { NewDataFile } from '../onnx/data-file.js';
import { type MessageEdit, totalLength } from '../onnx/edit.js';
import {
  allTensors,
  checkExternalData,
  externalLocations,
  leavesFolder,
  resolveLocation,
  type TensorPlace,
} from '../onnx/external.js';
import { MAX_MESSAGE_BYTES } from '../onnx/limits.js';
import type { Model } from '../onnx/model.js';
import { isTensorDropped, setLocation } from '../onnx/rewrite.js';
import { FileSource } from '../onnx/source.js';
import { checkOutput, type OutputFile, type WriteOptions, writeFiles } from '../onnx/write.js';
import { DataNames, styleOf } from './data-names.js';
import { inputFiles, inputsOf } from './inputs.js';
import {
  forgetOriginalNames,
  isPlainDataName,
  readOriginalNames,
  writeOriginalNames,
} from './original-names.js';

const kinds = ['lora', 'slots', 'trained', 'merged', 'base'] as const;
export type OutputKind = (typeof kinds)[number];

const SUFFIX = new RegExp(`(\\.(${kinds.join('|')}))?\\.onnx$`, 'i');

/** `model.onnx` or `model.lora.onnx` -> `model.<kind>.onnx`, beside it. */
export function defaultOutput(input: string, kind: OutputKind): string {
  const stem = basename(input).replace(isFirst(kind) ? /\.onnx$/i : SUFFIX, '');
  return join(dirname(input), `${stem}.${kind}.onnx`);
}

/** `llama` or `llama.lora` -> `llama.<kind>`, beside it. */
export function defaultFolder(input: string, kind: OutputKind): string {
  const folder = namedFolder(input);
  const ending = new RegExp(`\\.(${kinds.join('|')})$`, 'i');
  const stem = isFirst(kind) ? basename(folder) : basename(folder).replace(ending, '');
  return join(dirname(folder), `${stem}.${kind}`);
}

/** A folder's path by its own name, which `.` and `..` do not say, and without a slash at its end. */
export function namedFolder(path: string): string {
  return /^\.*$/.test(basename(path)) ? resolve(path) : join(dirname(path), basename(path));
}

function isFirst(kind: OutputKind): boolean {
  return kind === 'lora' || kind === 'slots';
}

export { inputFiles } from './inputs.js';

/**
 * The names of external data that go with an output to another folder: `own` names, with the model's
 * remembered in it or forgotten, or the model's own, as far as they are plain names of data.
 */
export type DataNaming = 'remember' | 'forget' | 'restore';

export interface ModelOutput {
  /** Takes tensors that change or are new. */
  readonly dataFile?: NewDataFile | undefined;
  /** Files that become new with the model, or not at all. */
  readonly beside?: readonly OutputFile[] | undefined;
  /** Default `remember`. */
  readonly naming?: DataNaming | undefined;
}

/**
 * Writes an edited model. External data files are referenced where they are; an output in another
 * folder gets copies of them beside it. All files appear as one: data before the model, under names that
 * the model in its place does not have.
 */
export async function writeModel(
  model: Model,
  edit: MessageEdit,
  output: string,
  options: WriteOptions,
  { dataFile, beside = [], naming = 'remember' }: ModelOutput = {},
): Promise<void> {
  const inputs = [...inputFiles(model), ...inputsOf(options)];
  checkOutput(output, inputs, options.force ?? false);
  if (model.source.path !== undefined) checkExternalData(model);
  const opened: FileSource[] = [];
  try {
    const places = placesOf(model, edit, dataFile);
    const kept = isBeside(model, output) ? [...places.keys()] : [];
    const names = new DataNames(output, kept, styleOf(externalLocations(model)));
    const made = newData(edit, names, dataFile);
    const copies = new DataCopies(model, edit, places, names, opened);
    copies[naming](isBeside(model, output));
    const pieces = edit.pieces();
    checkSize(model, totalLength(pieces));
    const files = [...beside, ...made, ...copies.files, { path: output, pieces }];
    await writeFiles(files, inputs, options);
    names.removeOld();
  } finally {
    for (const source of opened) source.close();
  }
}

/** Writes an edited model, and the data file that tensors of it moved to, if there are any. */
export function writeWithData(
  model: Model,
  edit: MessageEdit,
  output: string,
  options: WriteOptions,
  dataFile: NewDataFile,
  naming?: DataNaming,
): Promise<void> {
  return writeModel(model, edit, output, options, { dataFile, naming });
}

/** The tensors that stay in external data, by where. */
function placesOf(model: Model, edit: MessageEdit, dataFile?: NewDataFile) {
  const moved = dataFile?.touched();
  const places = new Map<string, TensorPlace[]>();
  for (const place of allTensors(model)) {
    const { data } = place.tensor;
    if (data.kind !== 'external' || moved?.has(data.location)) continue;
    if (isTensorDropped(edit, place)) continue;
    const known = places.get(data.location);
    if (known) known.push(place);
    else places.set(data.location, [place]);
  }
  return places;
}

function newData(edit: MessageEdit, names: DataNames, dataFile?: NewDataFile): OutputFile[] {
  if (!dataFile || dataFile.isEmpty) return [];
  dataFile.location = names.next();
  return [{ path: names.pathOf(dataFile.location), pieces: dataFile.finish(edit) }];
}

function isBeside({ source: { path } }: Model, output: string): boolean {
  return path === undefined || realpathSync(dirname(path)) === realpathSync(dirname(output));
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

/** The data files of a model that an output needs beside it, and the names that they get. */
class DataCopies {
  readonly files: OutputFile[] = [];
  private readonly originals: ReadonlyMap<string, string>;

  /** @param opened what is opened is closed by the caller */
  constructor(
    private readonly model: Model,
    private readonly edit: MessageEdit,
    private readonly places: ReadonlyMap<string, readonly TensorPlace[]>,
    private readonly names: DataNames,
    private readonly opened: FileSource[],
  ) {
    this.originals = readOriginalNames(model);
  }

  forget(isBeside: boolean): void {
    if (!isBeside) for (const location of this.places.keys()) this.copy(location);
    forgetOriginalNames(this.edit, this.model);
  }

  remember(isBeside: boolean): void {
    if (isBeside) return;
    const originals = new Map<string, string>();
    for (const location of this.places.keys()) {
      originals.set(this.copy(location), this.originals.get(location) ?? location);
    }
    writeOriginalNames(this.edit, this.model, originals);
  }

  restore(isBeside: boolean): void {
    for (const location of this.places.keys()) {
      const original = this.originals.get(location) ?? location;
      if (isBeside && original === location) continue;
      if (this.giveBack(location, original)) continue;
      if (!isBeside) this.copy(location);
    }
    forgetOriginalNames(this.edit, this.model);
  }

  /** @returns the copy's name, which is ours */
  private copy(location: string): string {
    const source = this.open(location);
    const name = this.names.next((path) => sameContents(source, path));
    this.write(source, name);
    this.point(location, name);
    return name;
  }

  /** @returns whether the data are or can be where the original model looks for them */
  private giveBack(location: string, original: string): boolean {
    if (leavesFolder(original)) return false;
    const source = this.open(location);
    const path = this.names.pathOf(original);
    const isThere = sameContents(source, path);
    if (!isThere && (!isPlainDataName(original) || existsSync(path))) return false;
    if (!this.names.take(original)) return false;
    this.write(source, original);
    this.point(location, original);
    return true;
  }

  private open(location: string): FileSource {
    const source = new FileSource(resolveLocation(this.model, location));
    this.opened.push(source);
    return source;
  }

  /** Several models may share one data file: a copy that is there already is used. */
  private write(source: FileSource, name: string): void {
    const path = this.names.pathOf(name);
    if (sameContents(source, path)) return;
    this.files.push({ path, pieces: [{ source, start: 0, end: source.size }] });
  }

  private point(location: string, name: string): void {
    if (name === location) return;
    for (const place of this.places.get(location)!) {
      setLocation(this.edit, this.model, place, name);
    }
  }
}

const COMPARE_BYTES = 1 << 20;

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
