/**
 * The names that a model had for its external data before copies of them got names of ours: its metadata
 * keep them, so that it can be given back as it was.
 */
import { normalize } from 'node:path';
import type { MessageEdit } from '../onnx/edit.js';
import type { Model } from '../onnx/model.js';
import { findMetadata, setMetadata } from '../onnx/rewrite.js';

const KEY = 'onnx_lora.data_names';

/** The model's own names by ours. What is not of that form counts for nothing. */
export function readOriginalNames(model: Model): Map<string, string> {
  const entry = findMetadata(model, KEY);
  if (!entry) return new Map();
  try {
    const named = Object.entries(JSON.parse(entry.value()) as object);
    return new Map(named.filter(([, name]) => typeof name === 'string'));
  } catch {
    return new Map();
  }
}

/** Puts the names into the model, or takes the entry out where there are none. */
export function writeOriginalNames(
  edit: MessageEdit,
  model: Model,
  names: ReadonlyMap<string, string>,
): void {
  if (names.size > 0) setMetadata(edit, model, KEY, JSON.stringify(Object.fromEntries(names)));
  else forgetOriginalNames(edit, model);
}

export function forgetOriginalNames(edit: MessageEdit, model: Model): void {
  const entry = findMetadata(model, KEY);
  if (entry) edit.remove(entry.field);
}

/**
 * Whether a name can only be one of data: no folder, nothing hidden, nothing that a program acts on. Some
 * `.bin` files are pickles, which run what they hold when PyTorch's libraries find them in a folder.
 */
export function isPlainDataName(name: string): boolean {
  const normal = normalize(name);
  return DATA.test(normal) && !PICKLED.test(normal);
}

const DATA = /^[\w-][\w.+-]*\.(data|bin|raw|weights?|bias|onnx_data)(_\d+)?$/i;

/** Of transformers, PEFT, diffusers, accelerate: weights, optimizers and arguments, also in several files. */
const PICKLED =
  /(torch|adapter|lora|embed|optimizer|scheduler|training|random|scaler).*\.bin(_\d+)?$/i;
