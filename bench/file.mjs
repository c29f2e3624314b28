/**
 * What the file commands cost on big models, beside `cp` and `sync` of the same files.
 *
 *   node bench/file.mjs [--repeat 5] [--only inline,external,large] [--folder DIR] [--keep]
 */
import { spawn } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
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
import { linearStack } from './models.mjs';
import { randomiseAdapters } from './randomise.mjs';

const { values: args } = parseArgs({
  options: {
    repeat: { type: 'string', default: '5' },
    only: { type: 'string', default: 'inline,external,large' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});

// Layers of 2048x2048 float32 have 16.8 MB: 64 of them are 1.07 GB. The large model has 4.8 GB in
// layers of 67 MB, so that its last ones start beyond 2^32.
const models = {
  inline: { layers: 64, in: 2048, external: false },
  external: { layers: 64, in: 2048, external: true },
  large: { layers: 72, in: 4096, external: true },
};

const MB = 1e6;
const script = fileURLToPath(new URL('./child.mjs', import.meta.url));

/** Runs a program and gives its time, start and end included, and what it printed. */
function timed(program, argv) {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(program, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (chunk) => {
      text += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      const wall = performance.now() - start;
      if (code === 0) resolve({ wall, text });
      else reject(new Error(`${program} ${argv.join(' ')}: exit ${code}`));
    });
  });
}

async function operation(name, input, options) {
  const { wall, text } = await timed(process.execPath, [
    script,
    JSON.stringify({ operation: name, input, options: { force: true, ...options } }),
  ]);
  return { wall, ...JSON.parse(text) };
}

/** What a user would do by hand: every file copied, and on the disk. */
async function copy(files, to) {
  // `sync -f` flushes one file system; where there is no such option, `sync` flushes all.
  const sync = process.platform === 'linux' ? `sync -f "$to"` : 'sync';
  const lines = ['set -e', 'to=$1', 'shift', 'cp "$@" "$to"', sync];
  const { wall } = await timed('sh', ['-c', lines.join('\n'), 'sh', to, ...files]);
  return { wall, ms: wall };
}

/** Reads the files, so that every run finds them in memory, whatever was written in between. */
async function warm(files) {
  await timed('sh', ['-c', 'cat "$@" > /dev/null', 'sh', ...files]);
}

const settle = () => timed('sync', []);

async function sameBytes(a, b) {
  await timed('cmp', [a, b]);
}

async function measure(folder, name) {
  const sizes = models[name];
  const model = join(folder, `${name}.onnx`);
  const { bytes, largestWeight } = await linearStack(model, sizes);
  const files = readdirSync(folder)
    .filter((file) => file.startsWith(`${name}.onnx`))
    .map((file) => join(folder, file));
  const patched = join(folder, `${name}.lora.onnx`);
  // The defaults: localized, R=16, K=4, on every layer.
  await operation('patch', model, { output: patched });
  randomiseAdapters(patched);
  const outputs = join(folder, 'out');
  await timed('mkdir', ['-p', outputs]);
  const at = (leaf) => join(folder, `${name}.${leaf}`);
  // External data stay where they are: the patched model has the base's.
  const adapted = (name, options) => ({
    reads: [patched, ...(sizes.external ? files.filter((file) => file !== model) : [])],
    run: () => operation(name, patched, options),
  });
  const steps = {
    'cp + sync': { reads: files, run: () => copy(files, outputs) },
    patch: { reads: files, run: () => operation('patch', model, { output: at('out.onnx') }) },
    unpatch: adapted('unpatch', { output: at('out.onnx') }),
    extract: adapted('extract', { output: at('out.safetensors') }),
    merge: adapted('merge', { output: at('out.onnx'), verify: false }),
  };
  const before = new Set(readdirSync(folder));
  const clear = () => {
    for (const file of readdirSync(outputs)) rmSync(join(outputs, file));
    for (const file of readdirSync(folder)) {
      if (!before.has(file)) rmSync(join(folder, file), { recursive: true });
    }
  };
  const runs = Object.fromEntries(Object.keys(steps).map((step) => [step, []]));
  const names = Object.keys(steps);
  for (let round = 0; round < Number(args.repeat); round++) {
    for (let i = 0; i < names.length; i++) {
      const step = names[(i + round) % names.length];
      await settle();
      await warm(steps[step].reads);
      runs[step].push(await steps[step].run());
      if (step === 'unpatch' && round === 0) await sameBytes(model, at('out.onnx'));
      clear();
    }
  }
  const reference = runs['cp + sync'].map(({ wall }) => wall);
  const rows = Object.entries(runs).map(([step, all]) => {
    const walls = all.map(({ wall }) => wall);
    const rss = all.flatMap(({ maxRss }) => maxRss ?? []);
    return {
      step,
      seconds: spread(walls.map((ms) => ms / 1000)),
      secondsInside: spread(all.map(({ ms }) => ms / 1000)),
      ratio: pairedRatio(walls, reference),
      medianRatio: spread(walls).median / spread(reference).median,
      ratioToBest: spread(walls).median / Math.min(...reference),
      maxRssMB: rss.length > 0 ? Math.max(...rss) / MB : undefined,
    };
  });
  for (const file of readdirSync(folder)) {
    if (!args.keep && file.startsWith(name)) rmSync(join(folder, file));
  }
  return { model: name, ...sizes, bytes, largestWeight, beyond32Bits: bytes > 2 ** 32, rows };
}

// The model, the patched one, and two outputs (the copy is made and removed at another time).
const largest = 4 * 72 * 4096 * 4096 * 4;
const chosen = args.only.split(',');
const bytes = chosen.includes('large') ? largest * 0.75 : 4.5e9;
const options = { keep: args.keep, bytes, ...(args.folder ? { folder: args.folder } : {}) };
await inTemporaryFolder(options, async (folder) => {
  const results = [];
  for (const name of chosen) {
    const result = await measure(folder, name);
    results.push(result);
    const gb = (result.bytes / 1e9).toFixed(2);
    const kind = result.external ? 'external data' : 'inline';
    console.log(`\n${gb} GB, ${kind}, ${result.layers} layers ${result.in}x${result.in}`);
    table(
      [
        '',
        'seconds',
        'without start',
        'ratio by round',
        'of medians',
        'to the best copy',
        'peak MB',
      ],
      result.rows.map(
        ({ step, seconds, secondsInside, medianRatio, ratio, ratioToBest, maxRssMB }) => [
          step,
          withSpread(seconds),
          secondsInside.median.toFixed(2),
          withSpread(ratio),
          medianRatio.toFixed(2),
          ratioToBest.toFixed(2),
          maxRssMB?.toFixed(0) ?? '-',
        ],
      ),
    );
    console.log('unpatch gave the original file, byte for byte');
  }
  saveResults('file', { repeat: Number(args.repeat), results });
});
