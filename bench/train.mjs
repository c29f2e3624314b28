/**
 * What a training step costs, beside Hugging Face PEFT on PyTorch: localized adapters (GraLoRA) or plain LoRA
 * on all linear layers of a BERT, a Llama and a ViT. PyTorch runs with eager attention, with its fused one
 * (sdpa), and compiled.
 *
 *   node bench/train.mjs --python PATH [--shapes bert,llama,vit] [--kinds gralora,lora]
 *                        [--against eager,sdpa,compile] [--rounds 5] [--steps 30] [--exporter ts|dynamo] …
 *
 * PATH is a Python with torch, transformers, peft, onnx, onnxscript and, to compile, a C++ compiler. Without it
 * only our side runs, on the encoder of models.mjs. Both sides take one thread a core. Linux only:
 * logged-process.mjs reads memory from /proc.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { patch } from '../dist/src/commands/patch.js';
import {
  inTemporaryFolder,
  pairedRatio,
  saveResults,
  spread,
  table,
  withSpread,
} from './common.mjs';
import { runLogged } from './logged-process.mjs';
import { BATCHES, generatedEncoder, stepMs, trainOurs } from './train-runs.mjs';

const { values: args } = parseArgs({
  options: {
    python: { type: 'string' },
    exporter: { type: 'string', default: 'ts' },
    shapes: { type: 'string', default: 'bert,llama,vit' },
    kinds: { type: 'string', default: 'gralora,lora' },
    against: { type: 'string', default: 'eager,sdpa,compile' },
    rounds: { type: 'string', default: '5' },
    steps: { type: 'string', default: '30' },
    rank: { type: 'string', default: '16' },
    blocks: { type: 'string', default: '4' },
    // By the shape where they are left out.
    batch: { type: 'string' },
    length: { type: 'string' },
    layers: { type: 'string' },
    hidden: { type: 'string' },
    answers: { type: 'string' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});

const [rounds, steps, rank, blocks] = [args.rounds, args.steps, args.rank, args.blocks].map(Number);
const threads = availableParallelism();
const PEER = fileURLToPath(new URL('./peer/', import.meta.url));

// Torch's threads wait for each other in loops: with other work on the machine they lose far more than
// ONNX Runtime's, so that no ratio of times means anything.
const BUSY_LOAD = 0.5;
const MB = 1e6;
/** At most, as ratios to PEFT GraLoRA. */
const TARGETS = {
  eager: { step: 0.75, firstStep: 0.5, peakMemory: 0.6 },
  sdpa: {},
  compile: { step: 0.9 },
};
// Of what the run takes without it.
const GUARD_TARGET = 0.05;

/** Samples a step, the loss, and the layers that have no adapters with PEFT either. */
const SHAPES = {
  bert: { batch: 8, loss: 'cross-entropy', exclude: ['pooler.dense', 'classifier'] },
  llama: { batch: 4, loss: 'causal-lm', exclude: ['lm_head'] },
  vit: { batch: 8, loss: 'cross-entropy', exclude: ['classifier'] },
};

/** How PEFT runs. */
const PEERS = {
  eager: ['--attention', 'eager'],
  sdpa: ['--attention', 'sdpa'],
  compile: ['--attention', 'sdpa', '--compile'],
};

/**
 * A subject that PEFT can train too.
 * @typedef {import('./train-runs.mjs').Subject & { kind: string, peer: string[] }} Pair
 */

/**
 * A model of peer/shapes.py, once for each kind of adapter.
 * @param {string} folder @param {string} shape @returns {Promise<Pair[]>}
 */
async function exported(folder, shape) {
  const { batch: usual, loss, exclude } = SHAPES[shape];
  const batch = Number(args.batch ?? usual);
  const to = join(folder, shape);
  mkdirSync(to);
  const changed = ['layers', 'hidden', 'length', 'answers'].filter((name) => args[name]);
  const sizes = ['--shape', shape, ...changed.flatMap((name) => [`--${name}`, args[name]])];
  const written = ['--exporter', args.exporter, '--rows', String(batch * BATCHES), ...sizes];
  const stdio = ['ignore', 'ignore', 'ignore'];
  execFileSync(args.python, [join(PEER, 'export.py'), to, ...written], { stdio });
  const [base, data] = [join(to, 'model.onnx'), join(to, 'rows.safetensors')];
  const pairs = [];
  for (const kind of args.kinds.split(',')) {
    const patched = join(to, `${kind}.onnx`);
    const structure = kind === 'lora' ? { structure: 'global' } : { blocks };
    const { parameters } = await patch(base, { output: patched, rank, exclude, ...structure });
    const peer = ['--model', join(to, 'peer'), '--data', data, ...sizes, '--batch', String(batch)];
    if (kind === 'lora') peer.push('--lora');
    pairs.push({ base, patched, data, parameters: parameters.trainable, batch, loss, kind, peer });
  }
  return pairs;
}

/** @param {Pair} one @param {string} how a key of PEERS */
function trainPeft(one, how) {
  const log = `${one.patched}.${how}.jsonl`;
  const numbers = Object.entries({ steps, rank, blocks, threads });
  const options = numbers.flatMap(([name, value]) => [`--${name}`, String(value)]);
  const script = join(PEER, 'peft_step.py');
  return runLogged(
    args.python,
    [script, '--log', log, ...one.peer, ...options, ...PEERS[how]],
    log,
  );
}

/** All in turn, in processes of their own. @param {Pair} one @param {string[]} peers */
async function measureInTurn(one, peers) {
  const ours = [];
  const peft = Object.fromEntries(peers.map((how) => [how, []]));
  for (let round = 0; round < rounds; round++) {
    ours.push(await trainOurs(one, steps));
    for (const how of peers) {
      peft[how].push(await trainPeft(one, how));
      checkSameWork(ours[round], peft[how][round], one);
    }
  }
  return { ours, peft };
}

/** B is zero at first, so the first loss is the base model's: it tells whether both sides have the same. */
function checkSameWork(ours, peft, { parameters }) {
  const [a, b] = [ours, peft].map(({ steps: [first] }) => first.loss);
  if (!(Math.abs(a - b) <= 1e-4 * b)) throw new Error(`first loss ${a} here, ${b} with PEFT`);
  const { trainable } = peft.result;
  if (trainable !== parameters)
    throw new Error(`${parameters} parameters train here, ${trainable} with PEFT`);
}

const READ = {
  step: { unit: 'ms', of: stepMs },
  firstStep: { unit: 'ms', of: ({ firstStepMs }) => firstStepMs },
  peakMemory: { unit: 'MB', of: ({ peakBytes }) => peakBytes / MB },
};

/** By name of the figure: ours, and of every peer its own and the ratio, round by round. */
function summaries({ ours, peft }) {
  const summary = ({ unit, of }) => {
    const here = ours.map(of);
    const peers = Object.entries(peft).map(([how, runs]) => {
      const there = runs.map(of);
      return [how, { ...spread(there), ratio: pairedRatio(here, there) }];
    });
    return { unit, ours: spread(here), peft: Object.fromEntries(peers) };
  };
  return Object.fromEntries(Object.entries(READ).map(([name, read]) => [name, summary(read)]));
}

/** What the comparison with the file costs, as a share of the run around it: both in the same run. */
function guardShare({ ours }) {
  const shares = ours.map(({ result: { guard, seconds } }) => {
    if (guard.passed !== true) throw new Error(`the guard says ${JSON.stringify(guard)}`);
    return guard.seconds / (seconds - guard.seconds);
  });
  return spread(shares);
}

function printSummaries(all, kind, busy) {
  const rows = Object.entries(all).flatMap(([name, { unit, ours, peft }]) => {
    const first = [`${name}, ${unit}`, 'onnx-lora', withSpread(ours, 0), '', '', ''];
    const others = Object.entries(peft).map(([how, { ratio, ...theirs }]) => {
      const target = kind === 'gralora' ? TARGETS[how][name] : undefined;
      const met = target ? verdict(ratio, target, busy && unit === 'ms') : '';
      return ['', `PEFT ${how}`, withSpread(theirs, 0), withSpread(ratio), `${target ?? ''}`, met];
    });
    return [first, ...others];
  });
  table(['', '', 'median (p25–p75)', 'ours to it', 'at most', 'met'], rows);
}

function verdict(ratio, target, unknown) {
  if (unknown) return 'busy';
  return ratio.median <= target ? 'yes' : 'no';
}

/** @param {Pair} one @param {string} shape @param {string[]} peers */
async function compare(one, shape, peers) {
  const load = loadavg()[0];
  const runs = await measureInTurn(one, peers);
  const all = summaries(runs);
  const grid = one.kind === 'lora' ? '' : `, K = ${blocks}`;
  console.log(
    `\n${shape}, ${one.kind}${grid}, R = ${rank}, ${one.parameters} parameters, batch ${one.batch}, ` +
      `${threads} threads, ${rounds} rounds`,
  );
  printSummaries(all, one.kind, load > BUSY_LOAD);
  const guard = guardShare(runs);
  console.log(
    `guard, share of a run of ${steps} steps: ${withSpread(guard, 3)}, at most ${GUARD_TARGET}: ` +
      `${guard.median <= GUARD_TARGET ? 'met' : 'missed'}`,
  );
  if (load > BUSY_LOAD) console.log(`load ${load.toFixed(1)} at the start: times say nothing`);
  const { batch, parameters, kind } = one;
  const torch = Object.values(runs.peft)[0]?.at(-1).result.torch;
  return { shape, kind, batch, parameters, load, torch, summaries: all, guard };
}

async function alone(folder) {
  const sizes = {
    layers: args.layers ?? 6,
    hidden: args.hidden ?? 384,
    length: args.length ?? 128,
  };
  const numbers = Object.entries({ ...sizes, batch: args.batch ?? 8, rank, blocks });
  const options = Object.fromEntries(numbers.map(([name, value]) => [name, Number(value)]));
  const one = { ...(await generatedEncoder(folder, options)), kind: 'gralora' };
  return [await compare(one, 'generated encoder', [])];
}

async function besidePeft(folder) {
  const results = [];
  for (const shape of args.shapes.split(','))
    for (const one of await exported(folder, shape))
      results.push(await compare(one, shape, args.against.split(',')));
  return results;
}

const options = { keep: args.keep, bytes: 4e9, ...(args.folder ? { folder: args.folder } : {}) };
await inTemporaryFolder(options, async (folder) => {
  const { keep: _, folder: __, python, ...settings } = args;
  const results = python ? await besidePeft(folder) : await alone(folder);
  saveResults('train', { settings, results });
});
