/**
 * What `fit` costs on two models of 1 GB, and its decompositions beside NumPy's dense SVD, which is what a
 * script of one's own would call for each layer.
 *
 *   node bench/fit.mjs [--python PYTHON] [--repeat 3] [--layers 64] [--rank 16] [--folder DIR] [--keep]
 *
 * PYTHON needs numpy. It gets few layers, and the time of one is compared: a dense SVD of all of them would
 * take half an hour.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, createWriteStream, mkdirSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  inTemporaryFolder,
  pairedRatio,
  saveResults,
  spread,
  table,
  withSpread,
} from './common.mjs';
import { linearStack, uniform } from './models.mjs';

const { values: args } = parseArgs({
  options: {
    python: { type: 'string' },
    repeat: { type: 'string', default: '3' },
    layers: { type: 'string', default: '64' },
    rank: { type: 'string', default: '16' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});
const [layers, rank, rounds] = [args.layers, args.rank, args.repeat].map(Number);

const SIZE = 2048;
const WEIGHT = SIZE * SIZE;
const MB = 1e6;

// What fine-tuning leaves: singular values that fall off, and small changes everywhere.
const DIRECTIONS = 32;

/** A change of one weight, row by row. @param {number} seed */
function* changedRows(seed) {
  const random = uniform(seed);
  const vector = () => Float32Array.from({ length: SIZE }, random);
  const [left, right] = [0, 1].map(() => Array.from({ length: DIRECTIONS }, vector));
  for (let row = 0; row < SIZE; row++) {
    const change = Float32Array.from({ length: SIZE }, () => 2e-4 * random());
    for (let k = 0; k < DIRECTIONS; k++) {
      const factor = (1e-3 * left[k][row]) / (k + 1);
      for (let i = 0; i < SIZE; i++) change[i] += factor * right[k][i];
    }
    yield change;
  }
}

/** A copy of the data file with every weight changed. @param {string} from @param {string} to */
async function tune(from, to) {
  const file = openSync(from, 'r');
  const out = createWriteStream(to);
  for (let layer = 0; layer < layers; layer++) {
    const weight = new Float32Array(WEIGHT);
    readSync(file, weight, 0, weight.byteLength, layer * weight.byteLength);
    let at = 0;
    for (const change of changedRows(layer + 1)) for (const value of change) weight[at++] += value;
    if (!out.write(new Uint8Array(weight.buffer))) await once(out, 'drain');
  }
  out.end();
  await once(out, 'finish');
}

/** Runs a program that prints JSON. @param {string} program @param {string[]} argv */
async function output(program, argv) {
  const child = spawn(program, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${program} ${argv.join(' ')}: exit ${code}`);
  return JSON.parse(text);
}

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

/** `fit` in a process of its own: time, most memory, result. */
function fitted(models, folder, options) {
  const task = {
    operation: 'fit',
    input: models.map((model) => join(model, 'model.onnx')),
    options: { output: join(folder, 'adapter.safetensors'), force: true, ...options },
  };
  return output(process.execPath, [path('./child.mjs'), JSON.stringify(task)]);
}

const numpy = (script, argv) => output(args.python, [path(`./peer/${script}`), ...argv]);

async function compare(folder) {
  const models = ['base', 'tuned'].map((name) => join(folder, name));
  for (const model of models) mkdirSync(model);
  const [base, tuned] = models.map((model) => join(model, 'model.onnx'));
  const { bytes } = await linearStack(base, { layers, in: SIZE, external: true });
  copyFileSync(base, tuned);
  await tune(`${base}.data`, `${tuned}.data`);
  console.log(
    `two models of ${(bytes / 1e9).toFixed(2)} GB, ${layers} layers of ${SIZE} x ${SIZE}`,
  );
  const runs = {
    global: () => fitted(models, folder, { structure: 'global', rank }),
    auto: () => fitted(models, folder, { rank }),
    ...(args.python && {
      numpy: () => numpy('dense_svd.py', [...models, `${SIZE}`, `${rank}`, '1']),
    }),
  };
  const results = Object.fromEntries(Object.keys(runs).map((name) => [name, []]));
  const names = Object.keys(runs);
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + round) % names.length];
      results[name].push(await runs[name]());
    }
  }
  report(results);
  const factors = await decompositions();
  saveResults('fit', { bytes, layers, size: SIZE, rank, results: summary(results), factors });
}

/** Milliseconds of one layer. */
const perLayer = (runs) => runs.map(({ ms, layers: count = layers }) => ms / count);

function summary(results) {
  return Object.fromEntries(
    Object.entries(results).map(([name, runs]) => [
      name,
      {
        msPerLayer: spread(perLayer(runs)),
        ...(results.numpy && { ratio: pairedRatio(perLayer(runs), perLayer(results.numpy)) }),
        maxRss: spread(runs.map(({ maxRss }) => maxRss)),
        error: runs[0].result?.error ?? runs[0].error,
      },
    ]),
  );
}

function report(results) {
  const all = summary(results);
  table(
    ['', 'ms a layer', 'ratio to numpy', 'peak MB', 'weights of it', 'error'],
    Object.entries(all).map(([name, { msPerLayer, ratio, maxRss, error }]) => [
      name,
      withSpread(msPerLayer, 0),
      ratio ? withSpread(ratio, 3) : '-',
      (maxRss.median / MB).toFixed(0),
      (maxRss.median / (4 * WEIGHT)).toFixed(1),
      error.toFixed(4),
    ]),
  );
}

/** The decomposition alone, of a matrix without any structure: the worst case. */
async function decompositions() {
  const { truncatedSvd } = await import('../dist/src/linalg/svd.js');
  const rows = [];
  for (const size of [1024, 2048, 4096]) {
    const random = uniform(size);
    const matrix = Float32Array.from({ length: size * size }, random);
    const start = performance.now();
    const { squares, residual } = await truncatedSvd(matrix, size, size, 64);
    const ms = performance.now() - start;
    rows.push({ size, rank: 64, ms, error: Math.sqrt(residual / squares) });
  }
  console.log();
  table(
    ['uniform noise, rank 64', 's', 'error'],
    rows.map(({ size, ms, error }) => [
      `${size} x ${size}`,
      (ms / 1000).toFixed(1),
      error.toFixed(5),
    ]),
  );
  return rows;
}

const needed = 2 * 4 * WEIGHT * layers + 200 * MB;
await inTemporaryFolder({ keep: args.keep, folder: args.folder, bytes: needed }, compare);
