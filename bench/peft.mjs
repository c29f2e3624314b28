/**
 * Our adapters in Hugging Face PEFT: every kind of folder that extract writes is loaded by
 * `PeftModel.from_pretrained`, on the PyTorch model that the ONNX one was exported from, and gives our
 * outputs; combine gives the changes of `add_weighted_adapter`.
 *
 *   node bench/peft.mjs --python PATH [--folder DIR] [--keep]
 *
 * PATH is a Python with torch, transformers, peft, onnx and onnxscript. Exit status 1 where a difference
 * is more than rounding.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import ort from 'onnxruntime-node';
import { apply } from '../dist/src/commands/apply.js';
import { combine } from '../dist/src/commands/combine.js';
import { extract } from '../dist/src/commands/extract.js';
import { patch } from '../dist/src/commands/patch.js';
import { openSafetensors } from '../dist/src/formats/safetensors.js';
import { encodeSafetensors } from '../dist/src/formats/safetensors-output.js';
import { toIntegers } from '../dist/src/onnx/dtype.js';
import { inTemporaryFolder, largestDifference, saveResults, session, table } from './common.mjs';
import { randomiseAdapters } from './randomise.mjs';

const { values: args } = parseArgs({
  options: {
    python: { type: 'string', default: 'python3' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});

/** Of the largest output. */
const ROUNDING = 2e-6;

const blocks = { structure: 'localized', rank: 16, blocks: 4 };

/** What extract is to write, by name: options of patch, and of extract. */
const kinds = {
  GRALORA: [blocks],
  'GRALORA, hybrid': [{ ...blocks, hybrid: 4 }],
  'GRALORA, two scales': [{ ...blocks, alphaPattern: ['re:.*1.*=7'] }],
  LORA: [{ structure: 'global', rank: 8 }],
  'LORA, rslora': [{ structure: 'global', rank: 8, scaling: 'rslora' }],
  'LORA, patterns': [
    { structure: 'global', rank: 8, rankPattern: ['re:.*0.*=5'], alphaPattern: ['re:.*1.*=3'] },
  ],
  'localized as LORA': [blocks, { peftType: 'lora' }],
  'two block ranks': [{ ...blocks, rankPattern: ['re:.*1.*=8'] }],
  'grids of 2 x 3': [{ structure: 'localized', rank: 12, blocks: 3 }],
  diagonal: [{ structure: 'diagonal', rank: 4, blocks: 4 }],
  mixed: [{ ...blocks, structurePattern: ['re:.*0.*=global'] }],
  'cut off at 8': [blocks, { peftRank: 8 }],
};

/** How module paths differ between the ONNX model and PyTorch. */
const prefixes = { bert: 'model=', gpt2: 'model=', llama: 'model=', 'bert-wrapped': 'inner=' };

/** The layers that are numbered: PEFT warns of output layers that share their weight with embeddings. */
const targets = ['re:.*\\d.*'];

/** @param {string} folder the model's */
function feedsOf(folder) {
  const file = openSafetensors(join(folder, 'inputs.safetensors'));
  const feeds = Object.fromEntries(
    [...file.tensors].map(([name, { dtype, shape }]) => {
      const count = shape.reduce((x, y) => x * y, 1);
      return [name, new ort.Tensor('int64', toIntegers(dtype, file.read(name), count), shape)];
    }),
  );
  file.close();
  return feeds;
}

/** @param {string} path @param {string} folder the model's */
async function logitsOf(path, folder) {
  const run = await session(path, 'basic');
  const { logits } = await run.run(feedsOf(folder));
  await run.release();
  return logits;
}

/** Patches, extracts, applies what was extracted, and leaves a task for the other side. */
async function loadTask(model, folder, name, [patchOptions, extractOptions = {}], at) {
  const base = join(folder, 'model.onnx');
  const [patched, back] = [`${at}.onnx`, `${at}.back.onnx`];
  await patch(base, { ...patchOptions, targets, output: patched });
  randomiseAdapters(patched);
  return task(model, folder, name, patched, back, extractOptions, at);
}

async function task(model, folder, name, patched, back, extractOptions, at) {
  const peftPrefix = prefixes[model];
  const { peft } = await extract(patched, { output: at, peftPrefix, ...extractOptions });
  await apply(join(folder, 'model.onnx'), at, { output: back });
  const [ours, again] = [await logitsOf(patched, folder), await logitsOf(back, folder)];
  // What was cut off is compared to what the folder itself says.
  const isExact = peft.modules.every(({ form }) => form !== 'truncated');
  const reference = isExact ? ours : again;
  const outputs = `${at}.safetensors`;
  const data = new Uint8Array(
    reference.data.buffer,
    reference.data.byteOffset,
    reference.data.byteLength,
  );
  const { dims: shape } = reference;
  writeFileSync(outputs, encodeSafetensors([{ name: 'logits', dtype: 'float32', shape, data }]));
  return {
    ...{ kind: 'load', name: `${model}: ${name}`, model: folder, folder: at, outputs },
    type: peft.type.toUpperCase(),
    forms: [...new Set(peft.modules.map(({ form }) => form))].join(', '),
    error: Math.max(...peft.modules.map(({ error }) => error)),
    roundTrip: largestDifference(ours.data, again.data),
  };
}

/**
 * The ways in which both sides mean the same by a combination, and how far apart their ΔW may be, of the
 * largest number in any. Numbers left out here and there have singular values without a gap, and for
 * matrices of more than 64 x 64 our decomposition is a randomized one: as near to ΔW, not the same.
 */
const combinations = [
  { method: 'linear', type: 'cat', within: 1e-6 },
  { method: 'svd', type: 'svd', rank: 6, within: 2e-6 },
  { method: 'ties', type: 'ties_svd', rank: 6, density: 0.3, within: 5e-4 },
];

async function combineTasks(model, folder, at) {
  const folders = [`${at}-first`, `${at}-second`];
  for (const [i, output] of folders.entries()) {
    const patched = `${output}.onnx`;
    const options = { structure: 'global', rank: 4 + 2 * i, alpha: 5 + i, targets };
    await patch(join(folder, 'model.onnx'), { ...options, output: patched });
    randomiseAdapters(patched, i);
    await extract(patched, { output, peftPrefix: prefixes[model] });
  }
  const weights = [0.7, -0.4];
  const tasks = [];
  for (const { method, type, within, ...options } of combinations) {
    const combined = `${at}-${method}`;
    await combine(folders, { output: combined, method, weights, ...options });
    const name = `${model}: combine ${method}, PEFT ${type}`;
    tasks.push({
      kind: 'combine',
      name,
      model: folder,
      folders,
      combined,
      type,
      within,
      weights,
      ...options,
    });
  }
  return tasks;
}

const script = (name) => fileURLToPath(new URL(`./peft/${name}`, import.meta.url));

await inTemporaryFolder({ keep: args.keep, folder: args.folder, bytes: 1e9 }, async (folder) => {
  execFileSync(args.python, [script('models.py'), folder], {
    // Exporters talk a lot.
    stdio: 'ignore',
  });
  const tasks = [];
  for (const model of Object.keys(prefixes)) {
    const own = join(folder, model);
    // Of the wrapper one kind is enough: it changes names alone.
    const chosen = Object.entries(kinds).slice(0, model === 'bert-wrapped' ? 1 : undefined);
    for (const [i, [name, options]] of chosen.entries()) {
      tasks.push(await loadTask(model, own, name, options, join(own, `kind${i}`)));
    }
    if (model === 'bert') tasks.push(...(await combineTasks(model, own, join(own, 'combine'))));
  }
  const bert = join(folder, 'bert');
  const ofPeft = { saved: 'of PEFT, with a classifier and biases', dora: 'of PEFT, DoRA' };
  for (const [saved, name] of Object.entries(ofPeft)) {
    const at = join(bert, `${saved}-again`);
    await apply(join(bert, 'model.onnx'), join(bert, saved), { output: `${at}.onnx` });
    // Adapters that came from PEFT keep its names.
    const options = { peftPrefix: undefined };
    tasks.push(await task('bert', bert, name, `${at}.onnx`, `${at}.back.onnx`, options, at));
  }
  const list = join(folder, 'tasks.json');
  writeFileSync(list, JSON.stringify(tasks));
  const printed = execFileSync(args.python, [script('check.py'), list], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  report(
    tasks,
    printed
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
  );
});

function report(tasks, found) {
  const both = tasks.map((one, i) => ({ ...one, ...found[i] }));
  const exponential = (value) => (value === 0 ? '0' : value.toExponential(1));
  const loads = both.filter(({ kind }) => kind === 'load');
  const combines = both.filter(({ kind }) => kind === 'combine');
  table(
    ['folder', 'type', 'forms', 'error', 'PEFT', 'PEFT merged', 'apply', 'effect'],
    loads.map((one) => [
      ...[one.name, one.type, one.forms, exponential(one.error)],
      ...[one.maxAbsDiff, one.mergedMaxAbsDiff, one.roundTrip, one.effect].map(exponential),
    ]),
  );
  console.log();
  table(
    ['combination', 'largest difference of ΔW'],
    combines.map(({ name, maxDiff }) => [name, exponential(maxDiff)]),
  );
  const tooFar = both.filter((one) =>
    one.kind === 'combine'
      ? one.maxDiff > one.within
      : Math.max(one.maxAbsDiff, one.mergedMaxAbsDiff) >
          ROUNDING * Math.max(1, one.largestOutput) ||
        one.missing.length > 0 ||
        one.effect === 0,
  );
  for (const { name, missing } of tooFar) console.error(`differs: ${name} ${missing ?? ''}`);
  if (tooFar.length > 0) process.exitCode = 1;
  const kept = ({ name, type, forms, error, maxAbsDiff, mergedMaxAbsDiff, roundTrip, effect }) => ({
    ...{ name, type, forms, error, maxAbsDiff, mergedMaxAbsDiff, roundTrip, effect },
  });
  saveResults('peft', {
    folders: loads.map(kept),
    combinations: combines.map(({ name, weights, maxDiff }) => ({ name, weights, maxDiff })),
  });
}
