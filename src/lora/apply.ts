import { totalNorm } from '../analysis/norms.js';
import { openModel } from '../onnx/parse.js';
import { type AdapterFile, openAdapterFile } from './adapter-file.js';
import { bindAdapters } from './bind.js';
import {
  factorsOf,
  type Insertion,
  insertAdapters,
  type NewAdapter,
  structureOf,
} from './insert.js';
import { defaultOutput, writeModel } from './output.js';
import type { PatchOptions, PatchResult } from './patch.js';
import { PatchedModel } from './patched.js';
import { describeAdapters } from './report.js';

export type ApplyOptions = Pick<
  PatchOptions,
  'output' | 'name' | 'force' | 'signal' | 'onProgress'
>;
export type ApplyResult = Omit<PatchResult, 'skipped'>;

/**
 * Inserts the adapters of a file into the model at `path`.
 * @throws OnnxLoraError `adapter-mismatch`, `invalid-adapter`, and those of reading and writing
 */
export async function apply(
  path: string,
  adapterPath: string,
  options: ApplyOptions = {},
): Promise<ApplyResult> {
  const model = openModel(path);
  let file: AdapterFile | undefined;
  try {
    file = openAdapterFile(adapterPath);
    const patched = new PatchedModel(model);
    const set = options.name ?? file.set;
    const { edit, manifest, adapters } = insertFile(patched, file, set);
    const output = options.output ?? defaultOutput(path, 'lora');
    await writeModel(model, edit, output, options);
    const norms = adapters.map(adapterNorm);
    return { output, ...describeAdapters(model, manifest, (i) => norms[i]!) };
  } finally {
    file?.close();
    model.close();
  }
}

/**
 * Inserts the adapters of an open file, and what belongs to them, under the name `set`.
 * @throws OnnxLoraError `adapter-mismatch` and those of inserting
 */
export function insertFile(
  patched: PatchedModel,
  file: AdapterFile,
  set: string,
): Insertion & { readonly adapters: readonly NewAdapter[] } {
  const adapters = bindAdapters(patched, file);
  return { ...insertAdapters(patched, set, adapters, file.extras), adapters };
}

/** |ΔW| of an adapter before it is inserted. */
function adapterNorm(adapter: NewAdapter): number {
  const { record } = adapter;
  return totalNorm(structureOf(record), factorsOf(adapter), record.scale);
}
