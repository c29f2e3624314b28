/**
 * Hot-swap on a BERT-size encoder with a slot beside every linear layer: what a switch of adapters
 * costs, what a slotted model costs beside patched and merged ones, and what an adapter takes in memory.
 *
 *   node --expose-gc bench/slots.mjs [--rounds 21] [--rank 16] [--blocks 4] [--batch 8] [--length 128]
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { AdapterSession } from '../dist/src/adapters/slots/adapter-session.js';
import { extract } from '../dist/src/commands/extract.js';
import { merge } from '../dist/src/commands/merge.js';
import { patch } from '../dist/src/commands/patch.js';
import { openSession } from '../dist/src/runtime/session.js';
import { tensorFromNumbers } from '../dist/src/runtime/tensor-value.js';
import {
  against,
  inTemporaryFolder,
  largestDifference,
  saveResults,
  spread,
  table,
  timeInTurn,
  withSpread,
} from './common.mjs';
import { encoder, randomValues, uniform } from './models.mjs';
import { randomiseAdapters } from './randomise.mjs';

const { values: args } = parseArgs({
  options: {
    rounds: { type: 'string', default: '21' },
    rank: { type: 'string', default: '16' },
    blocks: { type: 'string', default: '4' },
    batch: { type: 'string', default: '8' },
    length: { type: 'string', default: '128' },
    threads: { type: 'string', default: '2' },
    adapters: { type: 'string', default: '40' },
    keep: { type: 'boolean' },
  },
});
const [rounds, rank, blocks, batch, length, threads, count] = [
  ...[args.rounds, args.rank, args.blocks, args.batch, args.length, args.threads, args.adapters],
].map(Number);

// Sessions used in turn disturb each other where their threads spin.
const options = { threads, spinning: false };

const kinds = {
  global: { structure: 'global', rank },
  localized: { structure: 'localized', rank, blocks },
};

/** Adapters of both kinds, in files and in models of their own. */
async function build(folder) {
  const base = join(folder, 'base.onnx');
  const { hidden } = await encoder(base);
  const paths = { base, slotted: join(folder, 'slotted.onnx') };
  await patch(base, { output: paths.slotted, slots: 'required' });
  for (const [kind, shape] of Object.entries(kinds)) {
    for (const i of [0, 1]) {
      const name = `${kind} ${i}`;
      paths[name] = join(folder, `${kind}-${i}.onnx`);
      await patch(base, { ...shape, output: paths[name] });
      randomiseAdapters(paths[name], i);
      await extract(paths[name], { output: adapterFile(paths[name]) });
    }
  }
  paths.merged = join(folder, 'merged.onnx');
  await merge(paths['localized 0'], { output: paths.merged, verify: false });
  return { paths, hidden };
}

const adapterFile = (path) => path.replace(/\.onnx$/, '.safetensors');

/** A session with all adapters of `paths` loaded. */
async function slottedSession(paths) {
  const session = await AdapterSession.open(paths.slotted, options);
  for (const kind of Object.keys(kinds)) {
    for (const i of [0, 1]) session.load(`${kind} ${i}`, adapterFile(paths[`${kind} ${i}`]));
  }
  return session;
}

/**
 * Runs that come after one with another adapter, beside runs that come after one with the same. The
 * first use of an adapter makes its tensors; what that takes is told apart.
 */
async function switching(session, feeds) {
  const names = Object.keys(kinds).flatMap((kind) => [`${kind} 0`, `${kind} 1`]);
  const timed = async (adapters, times) => {
    const cpu = process.cpuUsage();
    const start = performance.now();
    await session.run(feeds, { adapters });
    const wall = performance.now() - start;
    const { user, system } = process.cpuUsage(cpu);
    times.wall.push(wall);
    times.cpu.push((user + system) / 1000);
  };
  const [first, switched, stayed] = [0, 1, 2].map(() => ({ wall: [], cpu: [] }));
  await session.run(feeds);
  for (const name of names) await timed(name, first);
  for (let round = 0; round < rounds; round++) {
    for (const name of names) {
      await timed(name, switched);
      await timed(name, stayed);
    }
  }
  const usual = spread(stayed.cpu).median;
  return {
    ...against(switched, stayed),
    firstUseExtraCpuMs: Object.fromEntries(names.map((name, i) => [name, first.cpu[i] - usual])),
  };
}

/** The slotted model with and without adapters beside models of their own. */
async function overhead(paths, slotted, feeds) {
  const runners = {};
  const add = async (name, path) => {
    const session = await openSession(path, options);
    runners[name] = { run: (given) => session.run(given), release: () => session.release() };
  };
  const withAdapter = (name, adapters) => {
    runners[name] = { run: (given) => slotted.run(given, { adapters }), release: async () => {} };
  };
  await add('base', paths.base);
  await add('merged', paths.merged);
  await add('patched, global', paths['global 0']);
  await add('patched, localized', paths['localized 0']);
  withAdapter('slots, empty', undefined);
  withAdapter('slots, global', 'global 0');
  withAdapter('slots, localized', 'localized 0');
  withAdapter('slots, two global', ['global 0', 'global 1']);
  await checkEqual(runners, feeds);
  const times = await timeInTurn(runners, feeds, rounds);
  for (const { release } of Object.values(runners)) await release();
  return Object.fromEntries(
    Object.entries(times).map(([name, one]) => [name, against(one, times.base)]),
  );
}

async function checkEqual(runners, feeds) {
  const output = async (name) => [...(await runners[name].run(feeds)).values()][0].data;
  const base = await output('base');
  const empty = largestDifference(await output('slots, empty'), base);
  const pairs = Object.keys(kinds).map((kind) => [`slots, ${kind}`, `patched, ${kind}`]);
  for (const [one, other] of pairs) {
    const difference = largestDifference(await output(one), await output(other));
    if (!(difference < 1e-3)) throw new Error(`${one} differs from ${other} by ${difference}`);
  }
  console.log(`empty slots against base: max|Δ| ${empty.toExponential(1)}\n`);
}

/** Bytes that each further adapter takes: as counted, in arrays, and of arrays while it is at work. */
async function memory(paths, kind, feeds) {
  const session = await AdapterSession.open(paths.slotted, options);
  const file = adapterFile(paths[`${kind} 0`]);
  // The first one brings what is made once, a run the memory of runs.
  session.load('first', file);
  await session.run(feeds, { adapters: 'first' });
  const before = measured();
  let bytes = 0;
  for (let i = 0; i < count; i++) ({ bytes } = session.load(String(i), file));
  const after = measured();
  for (let i = 0; i < 8; i++) await session.run(feeds, { adapters: String(i) });
  const active = measured();
  await session.release();
  return {
    fileBytes: statSync(file).size,
    bytes,
    arrayBytes: (after - before) / count,
    activeArrayBytes: (active - after) / 8,
  };
}

function measured() {
  if (!globalThis.gc) throw new Error('run with node --expose-gc');
  globalThis.gc();
  globalThis.gc();
  return process.memoryUsage().arrayBuffers;
}

const mb = (bytes) => `${(bytes / 2 ** 20).toFixed(2)} MiB`;

await inTemporaryFolder({ keep: args.keep, bytes: 1e9 }, async (folder) => {
  const { paths, hidden } = await build(folder);
  const values = randomValues(batch * length * hidden, uniform(3));
  const feeds = new Map([['x', tensorFromNumbers('float32', [batch, length, hidden], values)]]);

  const memories = {};
  for (const kind of Object.keys(kinds)) memories[kind] = await memory(paths, kind, feeds);
  table(
    ['memory of an adapter', 'file', 'counted', 'arrays', 'at work, on top'],
    Object.entries(memories).map(([kind, one]) => [
      kind,
      ...[one.fileBytes, one.bytes, one.arrayBytes, one.activeArrayBytes].map(mb),
    ]),
  );

  const slotted = await slottedSession(paths);
  const switches = await switching(slotted, feeds);
  console.log(`\na run after a switch beside one without: ${withSpread(switches.ratio)}`);
  console.log(`the same in processor time: ${withSpread(switches.cpuRatio)}`);
  for (const [name, ms] of Object.entries(switches.firstUseExtraCpuMs)) {
    console.log(`first use of ${name}: ${ms.toFixed(0)} ms of processor time more`);
  }

  const models = await overhead(paths, slotted, feeds);
  await slotted.release();
  table(
    ['model', 'ms', 'ratio to base', 'processor time'],
    Object.entries(models).map(([name, { ms, ratio, cpuRatio }]) => [
      name,
      withSpread(ms, 1),
      withSpread(ratio),
      withSpread(cpuRatio),
    ]),
  );
  const settings = { rank, blocks, batch, length, threads, rounds, hidden };
  saveResults('slots', { settings, memory: memories, switches, models });
});
