import { basename } from 'node:path';
import { type Binding, bindAdapters } from '../adapters/binding/bind.js';
import type { BindOptions } from '../adapters/binding/bind-options.js';
import { adapterNorm, type Insertion, insertAdapters } from '../adapters/edit/insert.js';
import type { AdapterFile } from '../adapters/files/adapter-file.js';
import { openAdapter } from '../adapters/files/open-adapter.js';
import { describeAdapters } from '../adapters/kinds/summary.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { NewDataFile } from '../onnx/data-file.js';
import { resolveOptions } from '../options/resolve.js';
import { onModel } from './model-folder.js';
import { type ApplyOptions, applyOptions } from './options/apply.js';
import { defaultOutput, writeWithData } from './output.js';
import type { PatchResult } from './patch-result.js';

export type { ApplyOptions };

/** The result of `apply`. */
export interface ApplyResult extends Omit<PatchResult, 'skipped' | 'slots'> {
  /** Tensors of the model that got other numbers. */
  readonly replaced: readonly string[];
  /** Names that the model has no place for, where that is allowed. */
  readonly unmatched: readonly string[];
}

/**
 * Inserts adapters into the model at `path`: those of a file of ours, of a folder of PEFT, or of an
 * .onnx_adapter.
 * @throws OnnxLoraError `adapter-mismatch`, `invalid-adapter`, and those of reading and writing
 * @example
 * ```ts
 * import { apply } from 'onnx-lora';
 *
 * const { output, adapters } = await apply('model.onnx', 'german.safetensors');
 * console.log(`${output}: ${adapters.map(({ name }) => name).join(', ')}`);
 * ```
 */
export async function apply(
  path: string,
  adapterPath: string,
  given: ApplyOptions = {},
): Promise<ApplyResult> {
  const options = resolveOptions(applyOptions, given, 'apply');
  const alsoRead = [...(options.alsoRead ?? []), adapterPath];
  return await onModel(path, { ...options, alsoRead }, 'lora', ({ file: model }, options) =>
    withModel(model, async (opened) => {
      const file = openAdapter(adapterPath, options.format);
      try {
        return await applyFile(
          opened,
          file,
          options.output ?? defaultOutput(model, 'lora'),
          options,
        );
      } finally {
        file.close();
      }
    }),
  );
}

async function applyFile(
  { model, files, patched }: OpenedModel,
  file: AdapterFile,
  output: string,
  options: ApplyOptions,
): Promise<ApplyResult> {
  const set = options.name ?? file.set;
  const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
  const inserted = insertFile(patched, file, set, options, dataFile);
  const { edit, manifest, adapters, unmatched } = inserted;
  await writeWithData(model, edit, output, options, dataFile);
  const norms = adapters.map(adapterNorm);
  const { replaced: tensors = [], biases = [] } = manifest;
  const replaced = [...tensors, ...biases].map(({ tensor }) => tensor);
  const described = describeAdapters(model, manifest, (i) => norms[i]!);
  return { output, ...described, replaced, unmatched };
}

/**
 * Inserts the adapters of an open file, and what belongs to them, under the name `set`.
 * @param dataFile for tensors that replace external ones
 * @throws OnnxLoraError `adapter-mismatch` and those of inserting
 */
export function insertFile(
  patched: PatchedModel,
  file: AdapterFile,
  set: string,
  options: BindOptions = {},
  dataFile?: NewDataFile,
): Insertion & Binding {
  const binding = bindAdapters(patched, file, options);
  const { adapters, extras } = binding;
  return { ...insertAdapters(patched, set, adapters, extras, dataFile), ...binding };
}
