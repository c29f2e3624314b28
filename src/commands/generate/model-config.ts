/** Configuration files beside a model, as far as generation goes by them. */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { readWholeFile } from '../../formats/whole-file.js';

export interface ModelConfig {
  /** Tokens that end a text, by number. */
  readonly eos: readonly number[];
  /** Number of tokens that the model was made for. */
  readonly context: number | undefined;
}

/** In the order in which they are believed. */
const FILES = ['generation_config.json', 'genai_config.json', 'config.json'];

/** Lists of classes may be long. */
const MAX_BYTES = 2 ** 24;

const LENGTHS = ['context_length', 'max_position_embeddings', 'n_positions', 'n_ctx'];

/** The settings in the files of these folders; a file that cannot be read counts as empty. */
export function modelConfig(folders: readonly string[]): ModelConfig {
  const found = FILES.flatMap((file) => folders.flatMap((folder) => read(join(folder, file))));
  const eos = found.map(({ eos_token_id }) => numbersOf(eos_token_id));
  const lengths = found.flatMap((config) => LENGTHS.flatMap((key) => numbersOf(config[key])));
  return { eos: eos.find((ids) => ids.length > 0) ?? [], context: lengths[0] };
}

/** The folder of a model, and the one above where it lies in `onnx/`, as on the hub. */
export function foldersOf(model: string): string[] {
  const folder = dirname(model);
  return basename(folder) === 'onnx' ? [folder, dirname(folder)] : [folder];
}

type Config = Readonly<Record<string, unknown>>;

/** Models of several parts have theirs one level deeper. */
function read(path: string): Config[] {
  const config = existsSync(path) ? parsed(path) : undefined;
  if (!config) return [];
  return [config, config.model, config.text_config].filter(isObject);
}

function parsed(path: string): Config | undefined {
  try {
    const value: unknown = JSON.parse(readWholeFile(path, MAX_BYTES).toString());
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Config {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A number, or a list of them. */
function numbersOf(value: unknown): number[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  return list.filter((one): one is number => Number.isSafeInteger(one) && (one as number) >= 0);
}
