/**
 * Training on a GPU: does the whole step run on it, does it compute what the CPU does, does memory stay flat,
 * and how long does a step take beside PEFT on the same card?
 *
 *   node bench/gpu.mjs [--provider cuda|webgpu] [--python PATH] [--steps 30] [--long 1000] [--layers 6] …
 *
 * Without --provider, the first of CUDA and WebGPU that works here. PATH is a Python with torch for CUDA,
 * transformers, peft, onnx and onnxscript; without it our side runs alone, on the encoder of models.mjs. A machine
 * without a GPU can run WebGPU in software: env $(node scripts/software-vulkan.mjs) node bench/gpu.mjs --long 100
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { patch } from '../dist/src/commands/patch.js';
import { providerInfo } from '../dist/src/runtime/providers.js';
import {
  inTemporaryFolder,
  median,
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
    provider: { type: 'string' },
    python: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '30' },
    long: { type: 'string', default: '1000' },
    rank: { type: 'string', default: '16' },
    blocks: { type: 'string', default: '4' },
    batch: { type: 'string', default: '8' },
    length: { type: 'string', default: '128' },
    layers: { type: 'string', default: '6' },
    hidden: { type: 'string', default: '384' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});
const [rounds, steps, long, rank, blocks] = ['rounds', 'steps', 'long', 'rank', 'blocks'].map(
  (name) => Number(args[name]),
);
const sizes = ['batch', 'length', 'layers', 'hidden'];
const PEER = fileURLToPath(new URL('./peer/', import.meta.url));
const GIGABYTES = 4;

/** At most: relative to the CPU's loss, and to the memory at the start of a long run. */
const [LOSS_TARGET, MEMORY_TARGET] = [1e-4, 1.02];

/** The provider to try, and why others do not work. */
async function chosen() {
  const wanted = args.provider ? [args.provider] : ['cuda', 'webgpu'];
  const reasons = [];
  for (const name of wanted) {
    const { usable, reason } = await providerInfo(name);
    if (usable) return name;
    reasons.push(`${name}: ${reason}`);
  }
  throw new Error(`no GPU provider works here: ${reasons.join('; ')}`);
}

/** Its name, or that it is not one. */
function card() {
  const fromDriver = query('name');
  if (fromDriver) return fromDriver[0];
  return process.env.VK_DRIVER_FILES?.includes('lvp') ? 'software Vulkan (no GPU)' : 'unknown';
}

/** A column of nvidia-smi; undefined where there is none. */
function query(what, kind = 'gpu') {
  try {
    const options = [`--query-${kind}=${what}`, '--format=csv,noheader,nounits'];
    const text = execFileSync('nvidia-smi', options, { stdio: ['ignore', 'pipe', 'ignore'] });
    return text.toString().trim().split('\n');
  } catch {
    return undefined;
  }
}

/** Bytes that a process holds: on the card where the driver tells, else in memory. */
function held(pid) {
  const line = query('pid,used_memory', 'compute-apps')?.find((one) => one.startsWith(`${pid},`));
  if (line) return Number(line.split(',')[1]) * 1e6;
  try {
    return 1024 * Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  } catch {
    return undefined;
  }
}

/** Means of the memory in the second tenth of a run and in its last one. */
async function memoryOver(one, provider) {
  const samples = [];
  const watch = (pid) => {
    const bytes = held(pid);
    if (bytes) samples.push(bytes);
  };
  await trainOurs(one, long, [], provider, watch);
  const tenth = Math.max(1, Math.floor(samples.length / 10));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return { early: mean(samples.slice(tenth, 2 * tenth)), late: mean(samples.slice(-tenth)) };
}

/** The BERT of peer/shapes.py with adapters, which PEFT can train too. */
async function exported(folder) {
  const to = join(folder, 'bert');
  mkdirSync(to);
  const own = [
    '--shape',
    'bert',
    ...['layers', 'hidden', 'length'].flatMap((name) => [`--${name}`, args[name]]),
  ];
  const written = ['--exporter', 'ts', '--rows', String(Number(args.batch) * BATCHES), ...own];
  execFileSync(args.python, [join(PEER, 'export.py'), to, ...written], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [base, data] = [join(to, 'model.onnx'), join(to, 'rows.safetensors')];
  const patched = join(to, 'gralora.onnx');
  const exclude = ['pooler.dense', 'classifier'];
  const { parameters } = await patch(base, { output: patched, rank, blocks, exclude });
  const peer = ['--model', join(to, 'peer'), '--data', data, ...own, '--batch', args.batch];
  const one = { base, patched, data, batch: Number(args.batch), loss: 'cross-entropy' };
  return { ...one, parameters: parameters.trainable, peer };
}

function trainPeft(one, how) {
  const log = `${one.patched}.peer.jsonl`;
  const numbers = Object.entries({ steps, rank, blocks }).flatMap(([name, value]) => [
    `--${name}`,
    String(value),
  ]);
  const script = join(PEER, 'peft_step.py');
  return runLogged(
    args.python,
    [script, '--log', log, ...one.peer, ...numbers, '--device', 'cuda', ...how],
    log,
  );
}

async function measure(folder, provider) {
  const options = Object.fromEntries(
    [...sizes, 'rank', 'blocks'].map((name) => [name, Number(args[name])]),
  );
  const one = args.python ? await exported(folder) : await generatedEncoder(folder, options);
  const cpu = await trainOurs(one, steps);
  const peers = args.python && provider === 'cuda' ? { eager: [], compile: ['--compile'] } : {};
  const runs = { ours: [], ...Object.fromEntries(Object.keys(peers).map((how) => [how, []])) };
  for (let round = 0; round < rounds; round++) {
    runs.ours.push(await trainOurs(one, steps, [], provider));
    for (const [how, extra] of Object.entries(peers)) runs[how].push(await trainPeft(one, extra));
  }
  const [first] = runs.ours;
  const losses = first.steps.map(
    ({ loss }, i) => Math.abs(loss - cpu.steps[i].loss) / cpu.steps[i].loss,
  );
  return {
    nodes: first.result.provider.nodes,
    onCpu: first.result.provider.fallbacks,
    lossDifference: Math.max(...losses),
    memory: await memoryOver(one, provider),
    step: Object.fromEntries(
      Object.entries(runs).map(([name, list]) => [name, spread(list.map(stepMs))]),
    ),
    cpuStep: stepMs(cpu),
    ratio: Object.fromEntries(
      Object.keys(peers).map((how) => [
        how,
        pairedRatio(runs.ours.map(stepMs), runs[how].map(stepMs)),
      ]),
    ),
  };
}

function print({ nodes, onCpu, lossDifference, memory, step, cpuStep, ratio }, provider) {
  const growth = memory.late / memory.early;
  const verdict = (isMet) => (isMet ? 'yes' : 'NO');
  table(
    ['', 'found', 'expected', 'met'],
    [
      [
        'nodes of the step',
        JSON.stringify(nodes),
        `all on ${provider}`,
        verdict(onCpu.length === 0),
      ],
      [
        'losses beside the CPU',
        lossDifference.toExponential(1),
        `${LOSS_TARGET}`,
        verdict(lossDifference <= LOSS_TARGET),
      ],
      [
        `memory over ${long} steps`,
        growth.toFixed(3),
        `${MEMORY_TARGET}`,
        verdict(growth <= MEMORY_TARGET),
      ],
      ['step, ms', withSpread(step.ours, 1), '', ''],
      ['to the CPU of this machine', (median([step.ours.median]) / cpuStep).toFixed(2), '', ''],
      ...Object.entries(ratio).map(([how, found]) => [`to PEFT ${how}`, withSpread(found), '', '']),
    ],
  );
  for (const { node, op } of onCpu.slice(0, 10)) console.log(`on the CPU: ${op} ${node}`);
}

const provider = await chosen();
const name = card();
console.log(`${provider} on ${name}`);
const options = {
  keep: args.keep,
  bytes: GIGABYTES * 1e9,
  ...(args.folder ? { folder: args.folder } : {}),
};
await inTemporaryFolder(options, async (folder) => {
  const results = await measure(folder, provider);
  print(results, provider);
  const { keep: _, folder: __, python, ...settings } = args;
  const file = `gpu-${name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replace(/-$/, '')}`;
  saveResults(file, {
    provider,
    card: name,
    settings: { ...settings, peer: Boolean(python) },
    ...results,
  });
});
