/** The files that a run leaves. */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import { adapterFilesAt } from '../lora/files/adapter-output.js';
import { inputFiles } from '../lora/output.js';
import type { Model } from '../onnx/model.js';
import { checkOutput } from '../onnx/write.js';
import type { ResolvedOptions } from './options.js';

/**
 * Checks that everything can be written, for that is better known before hours of work.
 * @param output where the model goes
 * @throws OnnxLoraError `output-exists`, `invalid-argument`, `file-not-found`, `not-a-file`
 */
export function checkOutputs(model: Model, output: string, options: ResolvedOptions): void {
  const { data, evalData, saveAdapter, plot, report, log, resume, force } = options;
  const inputs = [...inputFiles(model), data, ...given(evalData)];
  const adapterFiles = given(saveAdapter).flatMap(adapterFilesAt);
  for (const path of given(output, ...adapterFiles, plot, report)) checkOutput(path, inputs, force);
  // A resumed run goes on with its log.
  for (const path of given(log)) checkOutput(path, inputs, force || resume === true);
  checkDistinct(given(output, saveAdapter, plot, report, log));
  for (const option of ['checkpoint', 'tensorboard'] as const) checkFolder(option, options[option]);
}

function checkFolder(option: string, path: string | undefined): void {
  if (path === undefined || isFolder(path) !== false) return;
  throw new OnnxLoraError('invalid-argument', `${path} is a file, expected a folder`, {
    hint: `Name a folder with --${option}; it is made where there is none.`,
  });
}

function given(...paths: readonly (string | undefined)[]): string[] {
  return paths.filter((path) => path !== undefined);
}

function checkDistinct(paths: readonly string[]): void {
  const whole = paths.map((path) => resolve(path));
  const twice = paths.find((_, i) => whole.indexOf(whole[i]!) < i);
  if (twice === undefined) return;
  throw new OnnxLoraError('invalid-argument', `${twice} is to hold two outputs of the run`, {
    hint: 'Name a file for each.',
  });
}

/** undefined where there is nothing of that name. */
function isFolder(path: string): boolean | undefined {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory();
}
