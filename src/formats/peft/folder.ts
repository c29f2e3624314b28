/** An adapter as Hugging Face PEFT saves it: `adapter_config.json` and `adapter_model.safetensors`. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { fileError } from '../../onnx/source.js';
import { show } from '../json.js';
import { kindOf } from '../path-kind.js';
import { openSafetensors, type SafetensorsFile } from '../safetensors.js';
import type { SafetensorsEntry } from '../safetensors-header.js';
import { type PeftConfig, parsePeftConfig } from './config.js';
import { type Part, parseKey } from './keys.js';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
const PICKLED = 'adapter_model.bin';

/** A config names modules; the largest that are known have some hundred kilobytes. */
const MAX_CONFIG_BYTES = 16 * 2 ** 20;

/** A tensor of an adapter. */
export interface PeftTensor extends Pick<SafetensorsEntry, 'dtype' | 'shape'> {
  /** Its name in the file. */
  readonly key: string;
}

/** Contents of a file for one module. */
export interface PeftModule {
  readonly module: string;
  readonly parts: ReadonlyMap<Part, PeftTensor>;
  /** Parameters of the module itself, `weight` or `bias`, that were trained whole. */
  readonly parameters: ReadonlyMap<string, PeftTensor>;
}

/** An open adapter of PEFT. */
export interface PeftFolder {
  /** The file of weights. */
  readonly path: string;
  readonly configPath: string;
  readonly config: PeftConfig;
  /** The adapter's name: that of the sub-folder it was found in, or of its keys; else `default`. */
  readonly name: string;
  readonly file: SafetensorsFile;
  readonly modules: readonly PeftModule[];
}

/** Whether a path is an adapter of PEFT, or looks like one that lacks something. */
export function isPeft(path: string): boolean {
  return kindOf(path) === 'folder' || basename(path) === CONFIG || hasConfigBeside(path);
}

/**
 * Opens an adapter of PEFT: its folder, or a file in it, or the folder around the one of an adapter with
 * a name. Nothing that the config names is opened.
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `io`; `invalid-adapter`, `unsupported`
 */
export function openPeftFolder(path: string): PeftFolder {
  const place = locate(path);
  const config = parsePeftConfig(readConfig(place.config), place.config);
  const file = openSafetensors(place.weights);
  try {
    const { modules, adapter } = readModules(file, place.weights, config);
    const name = place.name ?? adapter ?? 'default';
    return { path: place.weights, configPath: place.config, config, name, file, modules };
  } catch (error) {
    file.close();
    throw error;
  }
}

interface Place {
  readonly config: string;
  readonly weights: string;
  readonly name: string | undefined;
}

function locate(path: string): Place {
  const kind = kindOf(path);
  if (kind === 'none') throw new OnnxLoraError('file-not-found', `${path} does not exist`);
  if (kind === 'folder') return inFolder(path);
  if (basename(path) === CONFIG) return inFolder(dirname(path));
  if (!hasConfigBeside(path)) throw noConfig(path, dirname(path));
  if (/\.(bin|pt|pth)$/.test(path)) throw pickled(path);
  return { config: join(dirname(path), CONFIG), weights: path, name: undefined };
}

function inFolder(folder: string): Place {
  const named = hasFile(folder, CONFIG) ? undefined : namedAdapter(folder);
  const inside = named === undefined ? folder : join(folder, named);
  const weights = join(inside, WEIGHTS);
  if (!hasFile(inside, WEIGHTS)) {
    if (hasFile(inside, PICKLED)) throw pickled(join(inside, PICKLED));
    throw new OnnxLoraError('invalid-adapter', `${inside} has no ${WEIGHTS}`, {
      hint: 'Save the adapter with PEFT: model.save_pretrained(FOLDER).',
    });
  }
  return { config: join(inside, CONFIG), weights, name: named };
}

/** PEFT saves an adapter that is not called `default` in a sub-folder of its name. */
function namedAdapter(folder: string): string {
  const names = attempt(folder, () => readdirSync(folder)).filter((name) =>
    hasFile(join(folder, name), CONFIG),
  );
  const [name, ...others] = names.sort();
  if (name === undefined) throw noConfig(folder, folder);
  if (others.length === 0) return name;
  throw new OnnxLoraError(
    'invalid-adapter',
    `${folder} has ${names.length} adapters (${names.join(', ')}), expected one`,
    { hint: `Name one of them: ${join(folder, name)}` },
  );
}

function noConfig(path: string, folder: string): OnnxLoraError {
  const where = path === folder ? 'in it' : 'beside it';
  return new OnnxLoraError(
    'invalid-adapter',
    `${path} is not a readable adapter: it is not a file of onnx-lora, and there is no ${CONFIG} ${where}`,
    { hint: `PEFT writes ${CONFIG} and ${WEIGHTS} into one folder: name that folder.` },
  );
}

function pickled(path: string): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${path} is a pickle of PyTorch, which runs code when it is read; expected ${WEIGHTS}`,
    {
      hint: `Convert it where you trust it: python -c "import torch, safetensors.torch as s; s.save_file(torch.load('${PICKLED}', weights_only=True, map_location='cpu'), '${WEIGHTS}')"`,
    },
  );
}

function hasFile(folder: string, name: string): boolean {
  return kindOf(join(folder, name)) === 'file';
}

function hasConfigBeside(path: string): boolean {
  return kindOf(path) === 'file' && hasFile(dirname(path), CONFIG);
}

function readConfig(path: string): string {
  const { size } = attempt(path, () => statSync(path));
  if (size > MAX_CONFIG_BYTES) {
    throw new OnnxLoraError(
      'invalid-adapter',
      `${path} has ${size} bytes, at most ${MAX_CONFIG_BYTES} are read`,
    );
  }
  return attempt(path, () => readFileSync(path, 'utf8'));
}

function attempt<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw fileError(path, error);
  }
}

type MutableModule = PeftModule & {
  readonly parts: Map<Part, PeftTensor>;
  readonly parameters: Map<string, PeftTensor>;
};

function readModules(file: SafetensorsFile, path: string, config: PeftConfig) {
  const modules = new Map<string, MutableModule>();
  const adapters = new Map<string, string>();
  for (const [key, { dtype, shape }] of file.tensors) {
    const parsed = parseKey(key);
    if (!parsed) throw unknownKey(path, key);
    const { module, part, adapter } = parsed;
    if (adapter !== undefined) adapters.set(adapter, key);
    const found: MutableModule = modules.get(module) ?? {
      module,
      parts: new Map(),
      parameters: new Map(),
    };
    modules.set(module, found);
    const tensor = { key, dtype, shape };
    const other =
      typeof part === 'string' ? found.parts.get(part) : found.parameters.get(part.parameter);
    if (other && adapters.size < 2) throw twice(path, other.key, key);
    if (typeof part === 'string') found.parts.set(part, tensor);
    else found.parameters.set(part.parameter, tensor);
  }
  if (adapters.size > 1) throw severalAdapters(path, [...adapters.keys()]);
  const all = [...modules.values()];
  if (!all.some(({ parts }) => parts.size > 0)) throw noFactors(path, file, config);
  return { modules: all, adapter: [...adapters.keys()][0] };
}

function unknownKey(path: string, key: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-adapter',
    `${path}: the tensor ${show(key)} does not belong to an adapter of PEFT, expected names like base_model.model.MODULE.lora_A.weight`,
  );
}

function twice(path: string, first: string, second: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-adapter',
    `${path}: ${show(first)} and ${show(second)} are the same part of one module`,
    { hint: 'Leave one of them in the file.' },
  );
}

function severalAdapters(path: string, names: readonly string[]): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-adapter',
    `${path} holds ${names.length} adapters (${names.join(', ')}), expected one`,
    { hint: 'Save one of them: model.save_pretrained(FOLDER, selected_adapters=[NAME]).' },
  );
}

function noFactors(path: string, file: SafetensorsFile, { type }: PeftConfig): OnnxLoraError {
  const part = { LORA: 'lora_A.weight', GRALORA: 'gralora_A', HIRA: 'hira_A' }[type];
  const [first] = file.tensors.keys();
  return new OnnxLoraError(
    'invalid-adapter',
    `${path} has no factors of an adapter: expected names like base_model.model.MODULE.${part}, found ${first === undefined ? 'no tensor' : show(first)}`,
    { hint: 'Other programs name them differently; save the adapter with PEFT.' },
  );
}
