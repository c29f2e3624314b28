/** Files that go with a model from folder to folder. */
import { statSync } from 'node:fs';
import { basename, posix } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { externalLocations } from '../../onnx/external.js';
import { openModel } from '../../onnx/parse.js';
import { filesIn, pathInside } from './inside.js';
import type { ModelFolder } from './layout.js';

/** A file of a model's folder. */
export interface Companion {
  /** Relative to the folder. */
  readonly name: string;
  readonly path: string;
}

/** Configurations, tokenizers, templates, vocabularies, licences. */
const COMPANION = /\.(json|jinja|txt|model|tiktoken|spm|bpe|vocab)$|^(LICEN[CS]E|NOTICE)/i;

/** Of weights in another format, and of adapters: a folder with them would be taken for another kind. */
const NOT_OURS = /\.index\.json$|^adapter_config\.json$/;

/** The longest tokenizers have 35 MB; a file ten times as long is something else. */
const MAX_BYTES = 2 ** 28;

/** Folders with templates beside the main one. */
const BELOW = ['', 'additional_chat_templates'];

/**
 * The files that a model needs beside it: those that people and programs read as text, and the other models
 * of the folder with their data. Not the other forms of the model itself, nor weights in other formats.
 * @throws OnnxLoraError `invalid-data` for a file that is too long for its kind; those of reading the other
 * models
 */
export function companionsOf(folder: ModelFolder): Companion[] {
  const texts = textsIn(folder.path);
  for (const name of texts) checkLength(pathInside(folder.path, name));
  const parts = folder.parts.flatMap((part) => [part, ...dataOf(folder, part)]);
  const names = new Set([...texts, ...folder.named, ...parts]);
  return [...names].map((name) => ({ name, path: pathInside(folder.path, name) }));
}

/** The files of a folder that people and programs read as text. */
export function textsIn(folder: string): string[] {
  return BELOW.flatMap((below) => filesIn(folder, below)).filter(isCompanion);
}

/** Whether a file goes with a model, by its name. */
export function isCompanion(path: string): boolean {
  const name = basename(path);
  return COMPANION.test(name) && !NOT_OURS.test(name);
}

function dataOf(folder: ModelFolder, part: string): string[] {
  const model = openModel(pathInside(folder.path, part));
  try {
    return externalLocations(model).map((one) => posix.join(posix.dirname(part), one));
  } finally {
    model.close();
  }
}

function checkLength(path: string): void {
  const { size } = statSync(path);
  if (size <= MAX_BYTES) return;
  throw new OnnxLoraError(
    'invalid-data',
    `${path} has ${size} bytes, and goes with a model up to ${MAX_BYTES}`,
    { hint: 'Take it out of the folder, or write the model alone: -o NAME.onnx' },
  );
}
