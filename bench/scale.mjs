/**
 * How the time of every command grows with the number of layers: it should double where they do.
 *
 *   node bench/scale.mjs [--layers 2304,4608,9216,18432] [--only COMMAND]...
 *
 * The model is a mixture of experts, 3 matrices an expert, of layers as small as they can be: what is
 * measured is the work for a layer, not for its numbers. A second one has a single weight that all nodes
 * share. Seconds are of the processor.
 */
import { statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { apply, extract, inspect, merge, patch, unpatch } from '../dist/src/index.js';
import { inTemporaryFolder, saveResults, table } from './common.mjs';
import { expertsModel } from './experts.mjs';

const { values: args } = parseArgs({
  options: {
    layers: { type: 'string', default: '2304,4608,9216,18432' },
    only: { type: 'string', multiple: true },
  },
});
const counts = args.layers.split(',').map(Number);

const small = { rank: 2, blocks: 2, force: true };

/** What is measured, in the order in which one needs what another has written. */
const commands = {
  inspect: (at) => inspect(at('base')),
  patch: (at) => patch(at('base'), { ...small, output: at('patched') }),
  'inspect, patched': (at) => inspect(at('patched')),
  unpatch: (at) => unpatch(at('patched'), { output: at('unpatched'), force: true }),
  merge: (at) => merge(at('patched'), { verify: false, output: at('merged'), force: true }),
  extract: (at) => extract(at('patched'), { output: at('own.safetensors'), force: true }),
  apply: (at) => apply(at('base'), at('own.safetensors'), { output: at('applied'), force: true }),
  'extract, .onnx_adapter': (at) =>
    extract(at('patched'), { output: at('a.onnx_adapter'), force: true }),
  'extract, PEFT': (at) => extract(at('patched'), { output: at('peft'), force: true }),
  'apply, PEFT': (at) => apply(at('base'), at('peft'), { output: at('applied'), force: true }),
  'patch with slots': (at) =>
    patch(at('base'), { slots: 'required', output: at('slots'), force: true }),
  'inspect, slots': (at) => inspect(at('slots')),
  'unpatch slots': (at) => unpatch(at('slots'), { output: at('unpatched'), force: true }),
  'patch, one weight': (at) => patch(at('shared'), { ...small, output: at('patched-shared') }),
  'patch, one weight, per node': (at) =>
    patch(at('shared'), { ...small, perNode: true, output: at('patched-shared') }),
  'inspect, one weight': (at) => inspect(at('patched-shared')),
};

async function secondsOf(work) {
  const start = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1e6;
}

const results = {};
const files = {};
await inTemporaryFolder({ bytes: 2e9 }, async (folder) => {
  for (const layers of counts) {
    const at = (name) => join(folder, `${layers}-${name}`);
    await writeFile(at('base'), expertsModel(layers));
    await writeFile(at('shared'), expertsModel(layers, true));
    for (const [name, command] of Object.entries(commands)) {
      if (args.only && !args.only.includes(name)) continue;
      let seconds;
      try {
        seconds = await secondsOf(() => command(at));
      } catch (error) {
        seconds = error.code ?? error.message;
      }
      results[name] ??= {};
      results[name][layers] = seconds;
      console.error(layers, name, seconds);
    }
    const size = (name) => statSync(at(name), { throwIfNoEntry: false })?.size ?? 0;
    files[layers] = { base: size('base'), patched: size('patched'), slots: size('slots') };
  }
});

const growth = (row) => {
  const [before, last] = counts.slice(-2).map((layers) => row[layers]);
  return typeof last === 'number' ? (last / before).toFixed(2) : '';
};
const cell = (value) => (typeof value === 'number' ? `${value.toFixed(2)} s` : value);
table(
  ['command', ...counts.map((layers) => `${layers} layers`), 'last / before'],
  Object.entries(results).map(([name, row]) => [
    name,
    ...counts.map((layers) => cell(row[layers])),
    growth(row),
  ]),
);
saveResults('scale', { counts, results, files });
