/** Folders of ONNX Runtime GenAI: `genai_config.json` names the files. */
import { posix } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { filesIn, has, isObject, type Json, readConfig } from './inside.js';
import type { Layout } from './layout.js';

const CONFIG = 'genai_config.json';

export const genaiLayout: Layout = {
  mark: CONFIG,
  find(folder, chosen) {
    if (!has(folder, CONFIG)) return undefined;
    const { model: described } = readConfig(folder, CONFIG);
    const files = [...new Set(filesNamed(described).map(posix.normalize))];
    const model = chosen ?? posix.normalize(decoderOf(folder, described));
    const isModel = (name: string) => /\.onnx$/i.test(name);
    return {
      path: folder,
      layout: 'ONNX Runtime GenAI',
      model,
      parts: files.filter((name) => isModel(name) && name !== model),
      forms: [],
      named: files.filter((name) => !isModel(name)),
    };
  },
};

/** Files are named by keys that end in `filename`, at any depth: of an encoder, of a vision model. */
function filesNamed(described: unknown): string[] {
  if (typeof described !== 'object' || described === null) return [];
  return Object.entries(described).flatMap(([key, value]) =>
    typeof value === 'string' && key.endsWith('filename') && value !== ''
      ? [value]
      : filesNamed(value),
  );
}

function decoderOf(folder: string, described: unknown): string {
  const decoder = isObject(described) && isObject(described.decoder) ? described.decoder : {};
  const stages = stagesOf(decoder);
  if (stages.length > 0) {
    throw undecided(folder, `its decoder is a pipeline of ${stages.join(', ')}`, stages[0]!);
  }
  const { filename } = decoder;
  if (typeof filename === 'string' && filename !== '') return filename;
  const files = filesIn(folder).filter((name) => name.endsWith('.onnx'));
  const there = files.length > 0 ? `; there is ${files.join(', ')}` : '';
  const problem = `${CONFIG} has no model.decoder.filename${there}`;
  throw undecided(folder, problem, files[0] ?? 'model.onnx');
}

/** Decoders of some devices are cut into several files. */
function stagesOf({ pipeline }: Json): string[] {
  return Array.isArray(pipeline) ? filesNamed(pipeline) : [];
}

function undecided(folder: string, problem: string, example: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', `${folder}: ${problem}`, {
    hint: `Name the model's file: ${posix.join(folder, example)}`,
  });
}
