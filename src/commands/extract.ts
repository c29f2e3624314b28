import { type AdapterContents, contentsOfModel } from '../adapters/files/adapter-contents.js';
import { adapterFilePieces } from '../adapters/files/adapter-file.js';
import {
  adapterFiles,
  checkAdapterOutput,
  writeAdapters,
} from '../adapters/files/adapter-output.js';
import type { PeftSummary } from '../adapters/files/export-peft.js';
import { formatOf } from '../adapters/files/format-of.js';
import { headParameters } from '../adapters/kinds/summary.js';
import { adapterParameters } from '../adapters/kinds/tensors.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import type { AdapterFormat } from '../adapters/structure/choices.js';
import { OnnxLoraError } from '../errors.js';
import { relativeToBase } from '../fitting/init/relative.js';
import { elementCount } from '../onnx/model.js';
import type { OutputFile } from '../onnx/write.js';
import { resolveOptions } from '../options/resolve.js';
import { locateModel } from './model-folder.js';
import { type ExtractOptions, extractOptions } from './options/extract.js';
import { inputFiles } from './output.js';

export type { ExtractOptions };

/** The result of `extract`. */
export interface ExtractResult {
  /** Path of the file or folder. */
  readonly output: string;
  /** Its format. */
  readonly format: AdapterFormat;
  /** The adapter set. */
  readonly set: string;
  /** Names of the adapters. */
  readonly adapters: readonly string[];
  /** Numbers of the set: those of adapters, head and trained tensors of the model. */
  readonly parameters: number;
  /** The adapters in PEFT's terms, where that is the format. */
  readonly peft?: PeftSummary | undefined;
}

/**
 * Writes one adapter set of the model at `path` to a file or folder of its own.
 * @throws OnnxLoraError `no-adapter`, `invalid-argument`, `unsupported` for what the format cannot say,
 * and those of reading and writing
 * @example
 * ```ts
 * import { extract } from 'onnx-lora';
 *
 * await extract('model.lora.onnx', { output: 'adapter.safetensors' });
 * const { peft } = await extract('model.lora.onnx', { output: 'peft', format: 'peft' });
 * console.log(peft?.type, peft?.modules.map(({ name }) => name));
 * ```
 */
export async function extract(path: string, given: ExtractOptions): Promise<ExtractResult> {
  const options = resolveOptions(extractOptions, given, 'extract');
  const { file } = locateModel(path, options.onNote);
  return await withModel(file, async (opened) => {
    const { set, contents, own } = await contentsIn(opened, options, () =>
      checkAdapterOutput(options, inputFiles(opened.model)),
    );
    const written = await writeAdapters(contents, own, inputFiles(opened.model), options);
    return { ...written, ...describe(contents, set.head ? headParameters(set.head) : 0) };
  });
}

/** The files of an adapter set, to be written with others. */
export async function extractedFiles(
  opened: OpenedModel,
  options: ExtractOptions,
): Promise<readonly OutputFile[]> {
  const { contents, own } = await contentsIn(opened, options);
  return (await adapterFiles(contents, own, options)).files;
}

/** @param check whether what is made of them can be written: known before they are read */
async function contentsIn(
  { patched, reader }: OpenedModel,
  options: ExtractOptions,
  check: () => void = () => {},
) {
  const set = theSet(patched, options.name);
  check();
  const whole = contentsOfModel(patched, set, reader);
  const isOwn = (options.format ?? formatOf(options.output)) === 'safetensors';
  const contents = isOwn ? whole : await relativeToBase(patched, set, reader, whole);
  return { set, contents, own: () => adapterFilePieces(patched, set, reader) };
}

function describe({ set, adapters, trained }: AdapterContents, ofHead: number) {
  const counts = [
    ...adapters.map(({ record }) => adapterParameters(record)),
    ...trained.map(({ dims }) => elementCount(dims)),
  ];
  return {
    set,
    adapters: adapters.map(({ record }) => record.name),
    parameters: counts.reduce((sum, count) => sum + count, ofHead),
  };
}

function theSet(patched: PatchedModel, name: string | undefined) {
  const sets = patched.chosenSets(name);
  if (sets.length === 1) return sets[0]!;
  throw new OnnxLoraError(
    'invalid-argument',
    `${patched.model.source.label} has ${sets.length} adapter sets (${sets.map(({ set }) => set).join(', ')}), expected one to extract`,
    { hint: 'Choose one with `name`.' },
  );
}
