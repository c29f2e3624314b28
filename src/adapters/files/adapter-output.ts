/** Adapter sets as files, in every format that is written. */

import { readFileSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { kindOf } from '../../formats/path-kind.js';
import { safetensorsPieces } from '../../formats/safetensors-output.js';
import type { Piece } from '../../onnx/edit.js';
import { makeFolder } from '../../onnx/new-folder.js';
import { checkOutput, type OutputFile, type WriteOptions, writeFiles } from '../../onnx/write.js';
import type { AdapterFormat } from '../structure/choices.js';
import type { AdapterContents } from './adapter-contents.js';
import { type PeftContents, type PeftSummary, peftContents } from './export-peft.js';
import { formatOf } from './format-of.js';
import { onnxAdapterPieces } from './onnx-adapter.js';
import type { AdapterOutputOptions } from './output-options.js';

export type { AdapterOutputOptions };

/**
 * The files that adapters at a path are written to, as far as there is a folder for them.
 * @throws OnnxLoraError `invalid-argument` as {@link formatOf}
 */
export function adapterFilesAt(output: string): string[] {
  return formatOf(output) === 'peft' ? filesOf(output) : [output];
}

/** The files that adapters at a path are read from. */
export function filesOf(path: string): string[] {
  return isFolder(path) ? [TENSORS, CONFIG].map((name) => join(path, name)) : [path];
}

const TENSORS = 'adapter_model.safetensors';
const CONFIG = 'adapter_config.json';

function isFolder(path: string): boolean {
  return kindOf(path) === 'folder';
}

/** The written files. */
export interface AdapterOutput {
  /** Path of the file or folder. */
  readonly output: string;
  /** Its format. */
  readonly format: AdapterFormat;
  /** The contents of the folder; only for the format `peft`. */
  readonly peft?: PeftSummary | undefined;
}

/**
 * Refuses an output that cannot be written to, before any work is done for it.
 * @param inputs files that are read
 * @throws OnnxLoraError `invalid-argument` as {@link formatOf}, and those of `checkOutput`
 */
export function checkAdapterOutput(options: AdapterOutputOptions, inputs: readonly string[]): void {
  const { output, force = false, alsoRead = [] } = options;
  const isPeft = (options.format ?? formatOf(output)) === 'peft';
  if (isPeft && kindOf(output) === 'file') {
    throw new OnnxLoraError('not-a-file', `${output} is a file, expected a folder for PEFT`, {
      hint: 'Name a folder, which is made where there is none, or another `format`.',
    });
  }
  // A folder that is not there yet is made, and holds nothing.
  const files = isPeft && isFolder(output) ? filesOf(output) : [output];
  for (const path of files) checkOutput(path, [...inputs, ...alsoRead], force);
}

/**
 * Writes an adapter set.
 * @param own makes the bytes of our own format
 * @param inputs files that must not be overwritten
 * @throws OnnxLoraError `unsupported` for what the format cannot say, `invalid-argument` for options
 * that it does not have, and those of writing
 */
export async function writeAdapters(
  contents: AdapterContents,
  own: () => Piece[],
  inputs: readonly string[],
  options: AdapterOutputOptions,
): Promise<AdapterOutput> {
  const { files, ...written } = await adapterFiles(contents, own, options);
  if (written.format === 'peft') await writeFolder(options.output, files, inputs, options);
  else await writeFiles(files, inputs, options);
  return written;
}

/** The contents to write, and their files; the one that is opened first comes last. */
export async function adapterFiles(
  contents: AdapterContents,
  own: () => Piece[],
  options: AdapterOutputOptions,
): Promise<AdapterOutput & { readonly files: readonly OutputFile[] }> {
  const { output } = options;
  const format = options.format ?? formatOf(output);
  switch (format) {
    case 'safetensors':
      return { output, format, files: [{ path: output, pieces: own() }] };
    case 'onnx_adapter':
      return { output, format, files: [{ path: output, pieces: onnxAdapterPieces(contents) }] };
    case 'peft': {
      const peft = await peftContents(contents, options);
      return { output, format, peft: peft.summary, files: peftFiles(output, peft) };
    }
  }
}

/**
 * The configuration comes last: PEFT needs it to see an adapter in a folder. One that is there already stays: then
 * the folder changes with one rename.
 */
function peftFiles(folder: string, { config, tensors }: PeftContents): OutputFile[] {
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  const text = Buffer.from(`${JSON.stringify(sorted, null, 2)}\n`);
  const [weights, configuration] = [TENSORS, CONFIG].map((name) => join(folder, name));
  return [
    { path: weights!, pieces: safetensorsPieces(tensors, { format: 'pt' }) },
    ...(holds(configuration!, text) ? [] : [{ path: configuration!, pieces: [text] }]),
  ];
}

function holds(path: string, bytes: Buffer): boolean {
  const isAlike = statSync(path, { throwIfNoEntry: false })?.size === bytes.length;
  return isAlike && kindOf(path) === 'file' && readFileSync(path).equals(bytes);
}

/** Writes the files of a folder; one that is new appears whole. */
async function writeFolder(
  path: string,
  files: readonly OutputFile[],
  inputs: readonly string[],
  options: WriteOptions,
): Promise<void> {
  const folder = resolve(path);
  if (isFolder(folder)) return await writeFiles(files, inputs, options);
  await makeFolder(folder, async (aside) => {
    const inside = files.map(({ path, pieces }) => ({ path: join(aside, basename(path)), pieces }));
    await writeFiles(inside, inputs, options);
  });
}
