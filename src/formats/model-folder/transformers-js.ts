/**
 * Folders as optimum exports them and transformers.js loads them: `config.json`, and the model in one or
 * several forms, `onnx/model.onnx`, `onnx/model_q4.onnx`.
 */
import { posix } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { filesIn, has } from './inside.js';
import type { Layout, ModelFolder } from './layout.js';

const CONFIG = 'config.json';

/** The ending that transformers.js adds to the name of a file for each `dtype`; float32 has none. */
const PRECISION = /_(fp16|quantized|int8|uint8|q8|q4|q4f16|bnb4|q1|q1f16|q2|q2f16)(?=\.onnx$)/;

/**
 * Files that are the whole decoder in another form. transformers.js 3 loads `model` where earlier versions
 * loaded `decoder_model_merged`, and many folders hold both.
 */
const DECODERS = ['model', 'decoder_model_merged', 'decoder_model', 'decoder_with_past_model'];

export const transformersJsLayout: Layout = {
  mark: `${CONFIG} with onnx/model.onnx or model.onnx`,
  find(folder, chosen) {
    if (!has(folder, CONFIG)) return undefined;
    const below = filesIn(folder, 'onnx').filter(isModel);
    const models = below.length > 0 ? below : filesIn(folder).filter(isModel);
    if (models.length === 0) return undefined;
    return described(folder, models, chosen ?? choose(folder, models));
  },
};

/** Results of ours beside a model have a second dot: `model.lora.onnx`. */
function isModel(name: string): boolean {
  return /^[^.]+\.onnx$/.test(posix.basename(name));
}

/** The file's name without folder, precision and ending. */
export function stemOf(name: string): string {
  return posix
    .basename(name)
    .replace(PRECISION, '')
    .replace(/\.onnx$/, '');
}

function described(folder: string, models: readonly string[], model: string): ModelFolder {
  const stem = stemOf(model);
  const isForm = (name: string) =>
    stemOf(name) === stem || (DECODERS.includes(stem) && DECODERS.includes(stemOf(name)));
  const others = models.filter((name) => name !== model);
  return {
    ...{ path: folder, layout: 'transformers.js', model },
    parts: others.filter((name) => !isForm(name)),
    forms: others.filter(isForm),
    named: [],
  };
}

/**
 * `model`, else `decoder_model_merged`, else the only one; of its forms the one in float32, else the only
 * one.
 */
function choose(folder: string, models: readonly string[]): string {
  const stems = [...new Set(models.map(stemOf))];
  const preferred = DECODERS.slice(0, 2).find((one) => stems.includes(one));
  const stem = preferred ?? (stems.length === 1 ? stems[0]! : undefined);
  if (stem === undefined) throw ambiguous(folder, models);
  const forms = models.filter((name) => stemOf(name) === stem);
  const whole = forms.find((name) => !PRECISION.test(name));
  if (whole !== undefined) return whole;
  if (forms.length > 1) throw ambiguous(folder, forms);
  return forms[0]!;
}

function ambiguous(folder: string, candidates: readonly string[]): OnnxLoraError {
  const example = posix.join(folder, candidates[0]!);
  return new OnnxLoraError(
    'invalid-argument',
    `${folder} holds ${candidates.length} models, and any may be meant: ${candidates.join(', ')}`,
    { hint: `Name the file: ${example} (with \`output\` FOLDER/ its folder goes with it)` },
  );
}
