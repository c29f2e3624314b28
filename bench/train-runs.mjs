/** The training command on a model with its data, as a user runs it: what the benches of training share. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { patch } from '../dist/src/commands/patch.js';
import { encodeSafetensors } from '../dist/src/formats/safetensors-output.js';
import { median } from './common.mjs';
import { runLogged } from './logged-process.mjs';
import { encoder, uniform } from './models.mjs';

const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

/** Steps that are left out of every median. */
export const WARM_UP = 3;
/** Batches in a data set; more steps begin again. */
export const BATCHES = 4;

/**
 * A patched model with what it takes to train it.
 * @typedef {object} Subject
 * @property {string} base @property {string} patched paths
 * @property {string} data a data set of BATCHES batches
 * @property {number} parameters that train
 * @property {number} batch samples a step
 * @property {string} loss its name
 */

/**
 * @param {Subject} one @param {number} steps
 * @param {string[]} [options] further ones of `train`
 * @param {string} [provider] that runs it
 * @param {(pid: number) => void} [watch] called every second while it runs
 */
export function trainOurs(one, steps, options = [], provider = 'cpu', watch) {
  const log = `${one.patched}.jsonl`;
  const files = ['--data', one.data, '--log', log, '-o', `${one.patched}.out`, '--force'];
  const loop = ['--batch-size', String(one.batch), '--steps', String(steps), '--no-shuffle'];
  const fixed = '--lr 1e-4 --schedule constant --clip 1 --json'.split(' ');
  const command = [CLI, 'train', one.patched, ...files, ...loop, '--loss', one.loss, ...fixed];
  command.push('--provider', provider);
  return runLogged(process.execPath, [...command, ...options], log, watch);
}

/** Median time of a step. @param {import('./logged-process.mjs').LoggedRun} run */
export const stepMs = ({ steps }) => median(steps.slice(WARM_UP).map(({ ms }) => ms));

let subjects = 0;

/**
 * The encoder of models.mjs, for which no Python is needed. It has no classifier: each token's
 * features are taken for the logits of as many classes.
 * @param {string} folder
 * @param {{ layers: number, hidden: number, batch: number, length: number, rank: number, blocks: number,
 *   targets?: string[] }} options
 * @returns {Promise<Subject>}
 */
export async function generatedEncoder(folder, options) {
  const { layers, hidden, batch, length, rank, blocks, targets } = options;
  const base = join(folder, `encoder-${layers}.onnx`);
  await encoder(base, { hidden, layers });
  const rows = batch * BATCHES;
  const random = uniform(5);
  const labels = BigInt64Array.from({ length: rows * length }, (_, i) => BigInt(i % hidden));
  const x = Float32Array.from({ length: rows * length * hidden }, random);
  const at = join(folder, String(subjects++));
  const data = `${at}.safetensors`;
  const bytes = ({ buffer }) => new Uint8Array(buffer);
  writeFileSync(
    data,
    encodeSafetensors([
      { name: 'x', shape: [rows, length, hidden], dtype: 'float32', data: bytes(x) },
      { name: 'labels', shape: [rows, length], dtype: 'int64', data: bytes(labels) },
    ]),
  );
  const patched = `${at}.lora.onnx`;
  const { parameters } = await patch(base, { output: patched, rank, blocks, targets });
  return { base, patched, data, parameters: parameters.trainable, batch, loss: 'cross-entropy' };
}
