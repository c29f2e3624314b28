/** Folders in the place of models: commands work on the file in them, and write folders that run. */
import { mkdirSync, readdirSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { dataKindsIn } from '../data/data-kind.js';
import { OnnxLoraError } from '../errors.js';
import { type Companion, companionsOf, isCompanion } from '../formats/model-folder/companions.js';
import { withDataFiles } from '../formats/model-folder/external-data.js';
import { readConfig } from '../formats/model-folder/inside.js';
import type { ModelFolder } from '../formats/model-folder/layout.js';
import { folderOfModel, openModelFolder } from '../formats/model-folder/open.js';
import { kindOf } from '../formats/path-kind.js';
import { leavesFolder } from '../onnx/external.js';
import { makeFolder } from '../onnx/new-folder.js';
import { FileSource } from '../onnx/source.js';
import { type WriteOptions, writeFiles } from '../onnx/write.js';
import { inputsOf, locationsIn } from './inputs.js';
import { defaultFolder, namedFolder, type OutputKind } from './output.js';

/** A model's file, and the folder that was named for it. */
export interface Located {
  readonly file: string;
  readonly folder?: ModelFolder;
}

type OnNote = ((text: string) => void) | undefined;

/**
 * The model's file where a path names a folder; a note says which one it is.
 * @throws OnnxLoraError as `openModelFolder`
 */
export function locateModel(path: string, onNote?: OnNote): Located {
  if (kindOf(path) !== 'folder') return { file: path };
  const folder = openModelFolder(path);
  const { layout, model, forms } = folder;
  const rest = forms.length > 0 ? `, not ${forms.join(', ')}` : '';
  onNote?.(`${path} is a folder of ${layout}: its model is ${model}${rest}`);
  return { file: join(path, model), folder };
}

interface Texts {
  readonly tokenizer?: string | undefined;
  readonly samplePrompt?: readonly string[] | undefined;
}

/** The options with the tokenizer of the model's folder, where texts need one and no other one is named. */
export function withTokenizer<O extends Texts>(options: O, { folder }: Located): O {
  const hasTexts = options.samplePrompt !== undefined || dataKindsIn(options).includes('rows');
  if (!folder || !hasTexts) return options;
  return { ...options, tokenizer: options.tokenizer ?? folder.path };
}

type Options = WriteOptions & { readonly output?: string | undefined };

/**
 * Runs work that writes a model. From a folder comes a folder: the model under its own name, and beside it
 * what it needs to run. It appears whole or not at all. An output that ends in `.onnx` is the model alone;
 * where a file is named and the output ends in a slash, the folder of the file goes with it.
 * @throws OnnxLoraError `output-exists`, `invalid-argument` for an output that cannot be a folder of its own,
 * and those of the work
 */
export async function onModel<O extends Options, R extends { readonly output: string }>(
  path: string,
  options: O,
  kind: OutputKind,
  work: (located: Located, options: O) => Promise<R>,
): Promise<R> {
  const { output } = options;
  const located = wantsFolder(path, output) ? chosenIn(path) : locateModel(path, options.onNote);
  const { folder } = located;
  if (!folder || /\.onnx$/i.test(output ?? '')) return await work(located, options);
  const target = namedFolder(output ?? defaultFolder(folder.path, kind));
  const replaces = checkTarget(target, folder, inputsOf(options), options.force ?? false);
  const companions = companionsOf(folder);
  noteLeftOut(folder, options.onNote);
  return await makeFolder(
    target,
    async (aside) => {
      const file = join(aside, folder.model);
      mkdirSync(dirname(file), { recursive: true });
      const result = await work(located, { ...options, output: file, finalOutput: target });
      await copyCompanions(companions, aside, options);
      countDataFiles(folder, aside);
      return { ...result, output: target };
    },
    replaces,
  );
}

/** Whether a file is named, and its folder meant. */
function wantsFolder(path: string, output: string | undefined): output is string {
  return output !== undefined && /[/\\]$/.test(output) && kindOf(path) === 'file';
}

function chosenIn(file: string): Located {
  const folder = folderOfModel(file);
  if (folder) return { file, folder };
  throw new OnnxLoraError('invalid-argument', `${file} does not lie in a model's folder`, {
    hint: 'Its folder needs a genai_config.json or a config.json; or name a file with `output`.',
  });
}

function noteLeftOut({ path, forms }: ModelFolder, onNote: OnNote): void {
  if (forms.length === 0) return;
  onNote?.(`${path}: left out, for their weights are the old ones: ${forms.join(', ')}`);
}

async function copyCompanions(
  companions: readonly Companion[],
  target: string,
  options: WriteOptions,
): Promise<void> {
  if (companions.length === 0) return;
  const sources = companions.map(({ path }) => new FileSource(path));
  try {
    const files = companions.map(({ name }, i) => {
      const path = join(target, name);
      mkdirSync(dirname(path), { recursive: true });
      return { path, pieces: [{ source: sources[i]!, start: 0, end: sources[i]!.size }] };
    });
    const { signal, onProgress } = options;
    await writeFiles(files, [], { signal, onProgress });
  } finally {
    for (const source of sources) source.close();
  }
}

function countDataFiles(folder: ModelFolder, target: string): void {
  if (folder.layout !== 'transformers.js') return;
  const config = readConfig(target, 'config.json');
  const files = locationsIn(join(target, folder.model)).length;
  const changed = withDataFiles(config, folder, files);
  if (changed === config) return;
  writeFileSync(join(target, 'config.json'), `${JSON.stringify(changed, null, 2)}\n`);
}

/**
 * @param inputs files and folders that are read
 * @returns whether there is a folder to replace
 */
function checkTarget(
  target: string,
  folder: ModelFolder,
  inputs: readonly string[],
  force: boolean,
): boolean {
  for (const input of [folder.path, ...inputs]) checkApart(target, input);
  checkNotInside(target, folder.path);
  const kind = kindOf(target);
  if (kindOf(dirname(target)) !== 'folder') {
    throw new OnnxLoraError('file-not-found', `${target}: its folder does not exist`, {
      hint: 'Create the folder first, or name another place with `output`.',
    });
  }
  if (kind === 'none') return false;
  if (kind !== 'folder') {
    throw new OnnxLoraError('not-a-file', `${target} is a file, expected a new folder`, {
      hint: 'From a folder comes a folder; `output` NAME.onnx writes the model alone.',
    });
  }
  if (!force) {
    throw new OnnxLoraError('output-exists', `${target} exists already`, {
      hint: 'Replace it with `force`, or name another place with `output`.',
    });
  }
  checkReplaceable(target);
  return true;
}

/** Refuses a folder to write that holds what is read. */
function checkApart(target: string, input: string): void {
  if (leavesFolder(relative(realOf(target), realOf(input)))) return;
  throw new OnnxLoraError('invalid-argument', `${input} is an input, and lies in ${target}`, {
    hint: 'Inputs are never modified: name another place with `output`.',
  });
}

function checkNotInside(target: string, folder: string): void {
  if (leavesFolder(relative(realOf(folder), realOf(target)))) return;
  throw new OnnxLoraError('invalid-argument', `${target} lies in the model's own folder`, {
    hint: 'Inputs are never modified: name a place beside it with `output`.',
  });
}

/** Its real path, or of what is not there yet that of its folder with its name. */
function realOf(path: string): string {
  const whole = resolve(path);
  try {
    return realpathSync(whole);
  } catch {
    const parent = dirname(whole);
    return parent === whole ? whole : join(realOf(parent), relative(parent, whole));
  }
}

/** The files that a model refers to; nothing for what is not a model. */
function locationsAt(folder: string, name: string): string[] {
  try {
    return locationsIn(join(folder, name));
  } catch {
    return [];
  }
}

/** Only what such a run has written is removed, not what else somebody keeps there. */
function checkReplaceable(target: string): void {
  const isOfModel = (name: string) =>
    isCompanion(name) || /\.onnx([._]data.*)?$|\.onnx_adapter$/.test(name);
  const files = readdirSync(target, { recursive: true, encoding: 'utf8' }).filter(
    (name) => !statSync(join(target, name), { throwIfNoEntry: false })?.isDirectory(),
  );
  const models = files.filter((name) => name.endsWith('.onnx'));
  const data = new Set(
    models.flatMap((name) => locationsAt(target, name).map((one) => join(dirname(name), one))),
  );
  const foreign = files.find((name) => !isOfModel(name) && !data.has(name));
  if (foreign === undefined) return;
  throw new OnnxLoraError(
    'output-exists',
    `${target} holds ${foreign.split(sep).join('/')}, which is not a part of a model: it is not replaced`,
    { hint: 'Move it elsewhere, or name another place with `output`.' },
  );
}
