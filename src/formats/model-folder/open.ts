/** Which file of a folder is the model. */
import { basename, dirname, join, relative, sep } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { textsIn } from './companions.js';
import { genaiLayout } from './genai.js';
import { filesIn, pathInside } from './inside.js';
import type { Layout, ModelFolder } from './layout.js';
import { transformersJsLayout } from './transformers-js.js';

/** In the order in which they are looked for. */
const layouts: readonly Layout[] = [genaiLayout, transformersJsLayout];

/**
 * The model of a folder: what `genai_config.json` names; else, beside a `config.json`, of the files in `onnx/`
 * or of those in the folder itself.
 * @throws OnnxLoraError `not-a-file` for a folder that is not laid out as one of a model; `invalid-argument` for one whose
 * files may any be meant; `invalid-data` for a damaged configuration, or one that leads out of the folder;
 * `file-not-found` for a file that it names and that is not there
 */
export function openModelFolder(path: string): ModelFolder {
  for (const layout of layouts) {
    const found = layout.find(path);
    if (found) return checked(found);
  }
  const marks = layouts.map(({ mark }) => mark).join(', or ');
  const models = [...filesIn(path), ...filesIn(path, 'onnx')].filter((one) => /\.onnx$/.test(one));
  throw new OnnxLoraError('not-a-file', `${path} is not a model's folder: no ${marks}`, {
    hint:
      models.length > 0
        ? `Name the model's file: ${join(path, models[0]!)}`
        : 'Name an .onnx file, or a folder that holds one with its configuration.',
  });
}

/**
 * The folder that a model's file belongs to: its own, or the one above `onnx/`.
 * @returns undefined where neither is laid out as one of a model
 */
export function folderOfModel(file: string): ModelFolder | undefined {
  const own = dirname(file);
  for (const folder of basename(own) === 'onnx' ? [dirname(own), own] : [own]) {
    const name = relative(folder, file).split(sep).join('/');
    for (const layout of layouts) {
      const found = layout.find(folder, name);
      if (found) return checked(found);
    }
  }
  return undefined;
}

/** Of all that any command may read. */
function checked(folder: ModelFolder): ModelFolder {
  const { path, model, parts, named } = folder;
  for (const name of [model, ...parts, ...named, ...textsIn(path)]) pathInside(path, name);
  return folder;
}
