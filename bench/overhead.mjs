/**
 * What adapters cost at inference: a BERT-size encoder patched on all linear layers, beside the
 * base and the merged model.
 *
 *   node bench/overhead.mjs [--rounds 21] [--blocks 2,4,8] [--rank 16] [--levels all,basic] [--keep]
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import ort from 'onnxruntime-node';
import { patch } from '../dist/src/commands/patch.js';
import {
  against,
  inTemporaryFolder,
  largestDifference,
  saveResults,
  session,
  table,
  timeInTurn,
  withSpread,
} from './common.mjs';
import { encoder, uniform } from './models.mjs';
import { randomiseAdapters } from './randomise.mjs';

const { values: args } = parseArgs({
  options: {
    rounds: { type: 'string', default: '21' },
    blocks: { type: 'string', default: '2,4,8' },
    rank: { type: 'string', default: '16' },
    levels: { type: 'string', default: 'all,basic' },
    threads: { type: 'string', default: '2' },
    batch: { type: 'string', default: '8' },
    length: { type: 'string', default: '128' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});

const blocks = args.blocks.split(',').map(Number);
const [batch, length, rank] = [args.batch, args.length, args.rank].map(Number);

/** Paths of the models by name; the merged one of K=4 stands for all: their graphs are the same. */
async function build(folder) {
  const base = join(folder, 'base.onnx');
  const { hidden } = await encoder(base);
  const paths = { base };
  const add = async (name, options) => {
    paths[name] = join(folder, `${name.replaceAll(/\W+/g, '-')}.onnx`);
    await patch(base, { output: paths[name], rank, ...options });
    randomiseAdapters(paths[name]);
  };
  await add('global', { structure: 'global' });
  for (const structure of ['diagonal', 'localized']) {
    for (const k of blocks) await add(`${structure} K=${k}`, { structure, blocks: k });
  }
  if (existsSync(new URL('../dist/src/commands/merge.js', import.meta.url))) {
    const { merge } = await import('../dist/src/commands/merge.js');
    paths.merged = join(folder, 'merged.onnx');
    await merge(paths[`localized K=${blocks[0]}`], { output: paths.merged, verify: false });
  }
  // The base once more: how far from 1 a ratio may be by chance.
  paths['base again'] = base;
  return { paths, hidden };
}

async function measure(paths, level, feeds) {
  const sessions = {};
  for (const [name, path] of Object.entries(paths))
    sessions[name] = await session(path, level, Number(args.threads));
  const output = async (name) => Object.values(await sessions[name].run(feeds))[0].data;
  if (sessions.merged) {
    const patched = await output(`localized K=${blocks[0]}`);
    const difference = largestDifference(await output('merged'), patched);
    if (!(difference < 1e-3)) throw new Error(`merged differs from patched by ${difference}`);
  }
  const times = await timeInTurn(sessions, feeds, Number(args.rounds));
  for (const one of Object.values(sessions)) await one.release();
  return Object.fromEntries(
    Object.entries(times).map(([name, one]) => [name, against(one, times.base)]),
  );
}

const options = { keep: args.keep, bytes: 1e9, ...(args.folder ? { folder: args.folder } : {}) };
await inTemporaryFolder(options, async (folder) => {
  const { paths, hidden } = await build(folder);
  const data = Float32Array.from({ length: batch * length * hidden }, uniform(5));
  const feeds = { x: new ort.Tensor('float32', data, [batch, length, hidden]) };
  const results = {};
  for (const level of args.levels.split(',')) {
    const measured = await measure(paths, level, feeds);
    results[level] = measured;
    console.log(
      `\nencoder ${hidden}, batch ${batch} x ${length}, R=${rank}, all linear layers, ` +
        `${args.threads} threads, optimization '${level}'; median (p25–p75) of ${args.rounds} rounds`,
    );
    table(
      ['', 'ms', 'ratio to base', 'processor time'],
      Object.entries(measured).map(([name, one]) => [
        name,
        withSpread(one.ms, 1),
        withSpread(one.ratio),
        withSpread(one.cpuRatio),
      ]),
    );
  }
  const { keep, folder: _, ...settings } = args;
  saveResults('overhead', { settings, results });
});
