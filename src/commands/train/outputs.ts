/** The files that a run leaves. */
import { accessSync, constants } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { adapterFilesAt } from '../../adapters/files/adapter-output.js';
import { OnnxLoraError } from '../../errors.js';
import { kindOf } from '../../formats/path-kind.js';
import { Claim } from '../../onnx/claim.js';
import type { Model } from '../../onnx/model.js';
import { fileError } from '../../onnx/source.js';
import { checkDistinct, checkOutput } from '../../onnx/write.js';
import { checkpointFile, hasCheckpoint } from '../../training/checkpoint.js';
import { inputFiles, inputsOf } from '../inputs.js';
import type { ResolvedTrainOptions } from '../options/train.js';

/**
 * Checks that everything can be written, for that is better known before hours of work.
 * @param output where the model goes
 * @throws OnnxLoraError `output-exists`, `invalid-argument`, `file-not-found`, `not-a-file`
 */
export function checkOutputs(model: Model, output: string, options: ResolvedTrainOptions): void {
  const { saveAdapter, plot, report, log, resume, force, checkpoint, tensorboard } = options;
  const inputs = runInputs(model, options);
  const adapterFiles = given(saveAdapter).flatMap(adapterFilesAt);
  checkOutput(output, inputs, force);
  for (const path of adapterFiles) checkOutput(path, inputs, force, 'saveAdapter');
  for (const path of given(plot)) checkOutput(path, inputs, force, 'plot');
  for (const path of given(report)) checkOutput(path, inputs, force, 'report');
  // A resumed run goes on with its log, and every run with its checkpoint.
  for (const path of given(log)) checkOutput(path, inputs, force || resume, 'log');
  const checkpoints = given(checkpoint).map(checkpointFile);
  for (const path of checkpoints.filter(hasFolder)) checkOutput(path, inputs, true, 'checkpoint');
  const files = given(output, `${output}.data`, ...adapterFiles, plot, report, log);
  checkDistinct([...files, ...checkpoints]);
  for (const option of ['checkpoint', 'tensorboard'] as const) checkFolder(option, options[option]);
  for (const folder of given(checkpoint, tensorboard)) checkDistinct([...files, folder]);
}

/**
 * Claims what two runs at a time would take from each other: the output, and the checkpoints.
 * @throws OnnxLoraError `output-exists` where another run is at it
 */
export function claimOutputs(output: string, { checkpoint }: ResolvedTrainOptions): Claim[] {
  const claims: Claim[] = [];
  try {
    // A folder that does not exist yet has no claims.
    for (const path of given(output, checkpoint)) {
      if (kindOf(dirname(path)) === 'folder') claims.push(Claim.take(path));
    }
    return claims;
  } catch (error) {
    for (const claim of claims) claim.release();
    throw error;
  }
}

/** The folder that keeps a run without checkpoints: never that of an older one. */
export function rescueFolderFor(output: string): string {
  const first = `${output}.checkpoint`;
  let folder = first;
  for (let number = 2; hasCheckpoint(folder); number++) folder = `${first}-${number}`;
  return folder;
}

/** The files that a run reads. */
export function runInputs(model: Model, options: ResolvedTrainOptions): string[] {
  return [...inputFiles(model), ...inputsOf(options)];
}

function hasFolder(path: string): boolean {
  return kindOf(dirname(path)) === 'folder';
}

/** It is made where there is none, in a folder that is there and may be written to. */
function checkFolder(option: string, path: string | undefined): void {
  if (path === undefined) return;
  let there = resolve(path);
  while (kindOf(there) === 'none' && dirname(there) !== there) there = dirname(there);
  if (kindOf(there) === 'folder') {
    checkWritable(there);
    return;
  }
  throw new OnnxLoraError(
    'invalid-argument',
    `${there === resolve(path) ? path : there} is a file, expected a folder`,
    {
      hint: `Name a folder with \`${option}\`; it is made where there is none.`,
    },
  );
}

function checkWritable(folder: string): void {
  try {
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw fileError(folder, error);
  }
}

function given(...paths: readonly (string | undefined)[]): string[] {
  return paths.filter((path) => path !== undefined);
}
