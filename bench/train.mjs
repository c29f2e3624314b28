/**
 * What a training step costs, beside Hugging Face PEFT on PyTorch: localized adapters (GraLoRA) on all
 * linear layers of a BERT encoder.
 *
 *   node bench/train.mjs --python PATH [--exporter ts|dynamo] [--rounds 5] [--steps 30] [--batch 8] …
 *   node bench/train.mjs [--scaling]
 *
 * PATH is a Python with torch, transformers, peft, onnx and onnxscript. Without one only our side
 * runs, on the encoder of models.mjs. Both sides take one thread a core. Linux only: logged-process.mjs
 * reads memory from /proc.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import ort from 'onnxruntime-node';
import { patch } from '../dist/src/commands/patch.js';
import { encodeSafetensors } from '../dist/src/formats/safetensors.js';
import {
  inTemporaryFolder,
  median,
  pairedRatio,
  saveResults,
  session,
  spread,
  table,
  withSpread,
} from './common.mjs';
import { runLogged } from './logged-process.mjs';
import { encoder, uniform } from './models.mjs';

const { values: args } = parseArgs({
  options: {
    python: { type: 'string' },
    exporter: { type: 'string', default: 'ts' },
    rounds: { type: 'string', default: '5' },
    steps: { type: 'string', default: '30' },
    batch: { type: 'string', default: '8' },
    length: { type: 'string', default: '128' },
    layers: { type: 'string', default: '6' },
    hidden: { type: 'string', default: '384' },
    rank: { type: 'string', default: '16' },
    blocks: { type: 'string', default: '4' },
    scaling: { type: 'boolean' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});

const [rounds, steps, batch, length, rank, blocks, layers, hidden] = [
  args.rounds,
  args.steps,
  args.batch,
  args.length,
  args.rank,
  args.blocks,
  args.layers,
  args.hidden,
].map(Number);
const threads = availableParallelism();
const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const PEER = fileURLToPath(new URL('./peer/', import.meta.url));

const WARM_UP = 3;
// Batches in a data set; more steps begin again.
const BATCHES = 4;
const VOCABULARY = 30522;
const LABELS = 4;
// Torch's threads wait for each other in loops: with other work on the machine they lose far more than
// ONNX Runtime's, so that no ratio of times means anything.
const BUSY_LOAD = 0.5;
const TARGETS = { step: 0.8, firstStep: 0.5, peakMemory: 0.6 };
// Of what the run takes without it.
const GUARD_TARGET = 0.05;

/**
 * A model with what it takes to train it.
 * @typedef {object} Subject
 * @property {string} base @property {string} patched paths
 * @property {string} data a data set of BATCHES batches
 * @property {Record<string, import('onnxruntime-node').Tensor>} feeds one batch for the base model
 * @property {number} parameters that train
 * @property {string} [peer] folder of the same model for PEFT
 */

/** The BERT of peer/bert.py, which PEFT can train too. @param {string} folder @returns {Promise<Subject>} */
async function exportedBert(folder) {
  const { python, exporter } = args;
  const sizes = ['--layers', args.layers, '--hidden', args.hidden];
  const script = join(PEER, 'export_bert.py');
  execFileSync(python, [script, folder, '--exporters', exporter, ...sizes], { stdio: 'ignore' });
  const peer = join(folder, `bert${hidden}`);
  const base = `${peer}-${exporter}.onnx`;
  const rows = batch * BATCHES;
  const random = uniform(5);
  const ints = (count, high) =>
    BigInt64Array.from({ length: count }, () => BigInt(Math.floor(((random() + 1) / 2) * high)));
  const tokens = [rows, length];
  const tensors = [
    { name: 'input_ids', shape: tokens, data: ints(rows * length, VOCABULARY) },
    { name: 'attention_mask', shape: tokens, data: new BigInt64Array(rows * length).fill(1n) },
    { name: 'token_type_ids', shape: tokens, data: new BigInt64Array(rows * length) },
    { name: 'labels', shape: [rows], data: ints(rows, LABELS) },
  ];
  const exclude = ['pooler.dense', 'classifier'];
  return { ...(await subject(folder, base, tensors, { batch, exclude })), peer };
}

/**
 * The encoder of models.mjs, for which no Python is needed. It has no classifier: each token's
 * features are taken for the logits of as many classes.
 * @param {string} folder
 * @param {{ layers: number, batch: number, targets?: string[] }} options
 * @returns {Promise<Subject>}
 */
async function generatedEncoder(folder, options) {
  const base = join(folder, `encoder-${options.layers}.onnx`);
  await encoder(base, { hidden, layers: options.layers });
  const rows = options.batch * BATCHES;
  const random = uniform(5);
  const labels = BigInt64Array.from({ length: rows * length }, (_, i) => BigInt(i % hidden));
  const x = Float32Array.from({ length: rows * length * hidden }, random);
  const tensors = [
    { name: 'x', shape: [rows, length, hidden], data: x },
    { name: 'labels', shape: [rows, length], data: labels },
  ];
  return subject(folder, base, tensors, options);
}

let subjects = 0;

async function subject(folder, base, tensors, { batch, targets, exclude }) {
  const at = join(folder, String(subjects++));
  const patched = `${at}.lora.onnx`;
  const { parameters } = await patch(base, { output: patched, rank, blocks, targets, exclude });
  const data = `${at}.safetensors`;
  writeFileSync(data, encodeSafetensors(tensors.map(stored)));
  const inputs = tensors.filter(({ name }) => name !== 'labels');
  const feeds = Object.fromEntries(inputs.map((tensor) => [tensor.name, firstRows(tensor, batch)]));
  return { base, patched, data, feeds, parameters: parameters.trainable, batch };
}

const dtypeOf = (data) => (data instanceof Float32Array ? 'float32' : 'int64');

function stored({ name, shape, data }) {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { name, shape, dtype: dtypeOf(data), data: bytes };
}

function firstRows({ shape: [rows, ...rest], data }, count) {
  return new ort.Tensor(dtypeOf(data), data.slice(0, (data.length / rows) * count), [
    count,
    ...rest,
  ]);
}

/** The command as a user runs it. @param {Subject} one */
function trainOurs(one) {
  const log = `${one.patched}.jsonl`;
  const files = ['--data', one.data, '--log', log, '-o', `${one.patched}.out`, '--force'];
  const loop = ['--batch-size', String(one.batch), '--steps', String(steps), '--no-shuffle'];
  const fixed = '--loss cross-entropy --lr 1e-4 --schedule constant --clip 1 --provider cpu --json';
  const command = [CLI, 'train', one.patched, ...files, ...loop, ...fixed.split(' ')];
  return runLogged(process.execPath, command, log);
}

/** @param {Subject} one */
function trainPeft(one) {
  const log = `${one.peer}.jsonl`;
  const files = ['--model', one.peer, '--data', one.data, '--log', log];
  const numbers = { steps, batch, rank, blocks, threads };
  const options = Object.entries(numbers).flatMap(([name, value]) => [`--${name}`, String(value)]);
  return runLogged(args.python, [join(PEER, 'peft_step.py'), ...files, ...options], log);
}

const stepMs = ({ steps: lines }) => median(lines.slice(WARM_UP).map(({ ms }) => ms));

/** Plain inference of the base model. @param {Subject} one */
async function inferenceMs({ base, feeds }) {
  const plain = await session(base, 'all', threads);
  const times = [];
  for (let i = 0; i < WARM_UP + 10; i++) {
    const start = performance.now();
    await plain.run(feeds);
    times.push(performance.now() - start);
  }
  await plain.release();
  return median(times.slice(WARM_UP));
}

/** Both sides in turn, in processes of their own. @param {Subject} one */
async function measureInTurn(one) {
  const ours = [];
  const peft = [];
  const inference = [];
  for (let round = 0; round < rounds; round++) {
    ours.push(await trainOurs(one));
    if (one.peer) {
      peft.push(await trainPeft(one));
      checkSameWork(ours[round], peft[round], one);
    }
    inference.push(await inferenceMs(one));
  }
  return { ours, peft, inference };
}

/** B is zero at first, so the first loss is the base model's: it tells whether both sides have the same. */
function checkSameWork(ours, peft, { parameters }) {
  const [a, b] = [ours, peft].map(({ steps: [first] }) => first.loss);
  if (!(Math.abs(a - b) <= 1e-4 * b)) throw new Error(`first loss ${a} here, ${b} with PEFT`);
  const { trainable } = peft.result;
  if (trainable !== parameters)
    throw new Error(`${parameters} parameters train here, ${trainable} with PEFT`);
}

const MB = 1e6;

/** Figures by name: of each side round by round, in the unit that is printed. */
function figures({ ours, peft, inference }) {
  const both = (read) => ({ ours: ours.map(read), peft: peft.map(read) });
  return {
    step: { unit: 'ms', ...both(stepMs) },
    firstStep: { unit: 'ms', ...both(({ firstStepMs }) => firstStepMs) },
    peakMemory: { unit: 'MB', ...both(({ peakBytes }) => peakBytes / MB) },
    inference: {
      unit: 'ms',
      ours: inference,
      peft: peft.map(({ result }) => result.inferenceMs.median),
    },
  };
}

/** What the comparison with the file costs, as a share of the run around it: both in the same run. */
function guardShare({ ours }) {
  const shares = ours.map(({ result: { guard, seconds } }) => {
    if (guard.passed !== true) throw new Error(`the guard says ${JSON.stringify(guard)}`);
    return guard.seconds / (seconds - guard.seconds);
  });
  return spread(shares);
}

function summary({ ours, peft, unit }) {
  const one = { unit, ours: spread(ours) };
  return peft.length ? { ...one, peft: spread(peft), ratio: pairedRatio(ours, peft) } : one;
}

function printSummaries(summaries, busy) {
  const rows = Object.entries(summaries).map(([name, { unit, ours, peft, ratio }]) => {
    const target = TARGETS[name];
    return [
      `${name}, ${unit}`,
      withSpread(ours, 0),
      peft ? withSpread(peft, 0) : '',
      ratio ? withSpread(ratio) : '',
      target ? `${target}` : '',
      target && ratio ? verdict(ratio, target, busy && unit === 'ms') : '',
    ];
  });
  table(['', 'onnx-lora', 'PEFT', 'ratio', 'at most', 'met'], rows);
}

function verdict(ratio, target, unknown) {
  if (unknown) return 'busy';
  return ratio.median <= target ? 'yes' : 'no';
}

async function compare(folder) {
  const load = loadavg()[0];
  const one = args.python
    ? await exportedBert(folder)
    : await generatedEncoder(folder, { layers, batch });
  const runs = await measureInTurn(one);
  const summaries = Object.fromEntries(
    Object.entries(figures(runs)).map(([name, one]) => [name, summary(one)]),
  );
  console.log(
    `encoder ${hidden}, ${layers} layers, batch ${batch} x ${length}, K=${blocks}, R=${rank}, ` +
      `${one.parameters} parameters, ${threads} threads; median (p25–p75) of ${rounds} rounds`,
  );
  printSummaries(summaries, load > BUSY_LOAD);
  const guard = guardShare(runs);
  const met = guard.median <= GUARD_TARGET ? 'met' : 'missed';
  console.log(
    `guard, share of a run of ${steps} steps: ${withSpread(guard, 3)}, at most ${GUARD_TARGET}: ${met}`,
  );
  if (load > BUSY_LOAD) console.log(`load ${load.toFixed(1)} at the start: times say nothing`);
  const peer = runs.peft.at(-1)?.result;
  if (peer)
    console.log(
      `torch ${peer.torch}; ${(peer.importBytes / MB).toFixed(0)} MB of PEFT's memory are there once its imports are done`,
    );
  return { model: args.python ? args.exporter : 'generated', load, summaries, guard, peer };
}

/**
 * Median step time at each point, the points in turn round by round, and how far they lie from the
 * straight line through them.
 * @param {string} label @param {{ x: number, one: Subject }[]} points
 */
async function scaleOver(label, points) {
  const times = points.map(() => []);
  for (let round = 0; round < rounds; round++)
    for (const [i, { one }] of points.entries()) times[i].push(stepMs(await trainOurs(one)));
  const ms = times.map(spread);
  const x = points.map((point) => point.x);
  const line = fitLine(
    x,
    ms.map((s) => s.median),
  );
  console.log(`\nstep over ${label}`);
  table(
    [label, 'ms', 'line'],
    x.map((value, i) => [
      String(value),
      withSpread(ms[i], 0),
      (line.base + line.slope * value).toFixed(0),
    ]),
  );
  console.log(`off the line by ${(100 * line.worst).toFixed(0)} % at most`);
  return { x, ms, line };
}

/** Least squares; `worst` is the largest relative distance of a point. */
function fitLine(x, y) {
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const [mx, my] = [mean(x), mean(y)];
  const slope = mean(x.map((v, i) => (v - mx) * (y[i] - my))) / mean(x.map((v) => (v - mx) ** 2));
  const base = my - slope * mx;
  const worst = Math.max(...x.map((v, i) => Math.abs(base + slope * v - y[i]) / y[i]));
  return { base, slope, worst };
}

async function scaling(folder) {
  const generated = (options) => generatedEncoder(folder, { layers, batch, ...options });
  const each = async (values, options) => {
    const points = [];
    for (const x of values) points.push({ x, one: await generated(options(x)) });
    return points;
  };
  // "output.dense" ends the names of two layers. The first is always query: so deep goes every backward.
  const TARGET_SETS = [
    ['query'],
    ['query', 'key', 'value'],
    ['query', 'key', 'value', 'intermediate.dense'],
    ['query', 'key', 'value', 'intermediate.dense', 'output.dense'],
  ];
  const adapters = [];
  for (const targets of TARGET_SETS) {
    const one = await generated({ targets });
    adapters.push({ x: one.parameters, one });
  }
  return {
    batch: await scaleOver('batch', await each([2, 4, 8, 16], (x) => ({ batch: x }))),
    layers: await scaleOver('layers', await each([2, 4, 6, 8], (x) => ({ layers: x }))),
    // A multiply-add a row for each parameter: parameters stand for the adapters' FLOPs.
    adapters: await scaleOver('adapter parameters', adapters),
  };
}

const options = { keep: args.keep, bytes: 2e9, ...(args.folder ? { folder: args.folder } : {}) };
await inTemporaryFolder(options, async (folder) => {
  const { keep, folder: _, python: __, scaling: scaled, ...settings } = args;
  if (scaled) saveResults('train-scaling', { settings, results: await scaling(folder) });
  else saveResults('train', { settings, results: await compare(folder) });
});
