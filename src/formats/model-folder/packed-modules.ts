/** Models whose own modules compute query, key and value together, by the configuration beside the file. */
import { basename, dirname } from 'node:path';
import { has, isObject, readConfig } from './inside.js';

/** By `model_type` of transformers, `model.type` of ONNX Runtime GenAI. */
const PACKED = new Set(['phi3', 'phi3small', 'phi3v', 'phi4mm', 'chatglm', 'internlm2']);

/** Whether a file lies in the folder of such a model. */
export function hasPackedModules(file: string): boolean {
  const own = dirname(file);
  const folders = basename(own) === 'onnx' ? [own, dirname(own)] : [own];
  return folders.some((folder) =>
    ['genai_config.json', 'config.json'].some((name) => PACKED.has(typeIn(folder, name) ?? '')),
  );
}

/** A file that is not a configuration says nothing here: others complain of it. */
function typeIn(folder: string, name: string): string | undefined {
  if (!has(folder, name)) return undefined;
  try {
    const { model_type: type, model } = readConfig(folder, name);
    const found = type ?? (isObject(model) ? model.type : undefined);
    return typeof found === 'string' ? found : undefined;
  } catch {
    return undefined;
  }
}
