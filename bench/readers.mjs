/**
 * Where others read us: whether what we write passes `onnx.checker` (full check) and computes in Python's
 * onnxruntime what it computes in onnxruntime-node, for the models of the zoo: as they are, patched, with
 * slots, and merged.
 *
 *   node bench/readers.mjs --python PATH [--folder DIR] [--keep]
 *
 * PATH is a Python with onnx and onnxruntime. Exit status 1 where a model that we wrote fails and the one
 * that it was made from does not.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import ort from 'onnxruntime-node';
import { encodeSafetensors, openSafetensors } from '../dist/src/formats/safetensors.js';
import { foldAdapters } from '../dist/src/lora/merge.js';
import { patch } from '../dist/src/lora/patch.js';
import { inTemporaryFolder, saveResults, session, table } from './common.mjs';
import { randomiseAdapters } from './randomise.mjs';

const { values: args } = parseArgs({
  options: {
    python: { type: 'string', default: 'python3' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});

/** Of the largest output: the two may be different versions of ONNX Runtime. */
const ROUNDING = 1e-5;

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const zoo = path('../test/fixtures/zoo/');

/** No layer of theirs can take an adapter. */
const integerOnly = ['bert-int8-channel', 'bert-int8-dynamic'];
const cases = readdirSync(zoo).filter(
  (name) => existsSync(join(zoo, name, 'model.onnx')) && !integerOnly.includes(name),
);

/** A task for the other side: a model, its inputs, and what onnxruntime-node makes of them. */
async function task(name, kind, model, expected) {
  const { feeds, inputs } = feedsOf(name);
  const run = await session(model, 'disabled');
  const known = Object.entries(feeds).filter(([key]) => run.inputNames.includes(key));
  const empty = run.inputMetadata.filter(({ name }) => !(name in feeds)).map(emptyTensor);
  const outputs = await run.run(Object.fromEntries([...known, ...empty]));
  writeFileSync(expected, encodeSafetensors(Object.entries(outputs).map(asStored)));
  await run.release();
  return { name, kind, model, inputs, expected };
}

/** Nothing for a slot: its rank is the one dimension that is open. */
function emptyTensor({ name, type, shape }) {
  const dims = shape.map((dim) => (typeof dim === 'number' ? dim : 0));
  const data = type === 'float16' ? new Uint16Array() : new Float32Array();
  return [name, new ort.Tensor(type, data, dims)];
}

function asStored([name, { type: dtype, data, dims: shape }]) {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { name, dtype, shape, data: bytes };
}

/** The recorded inputs of a case, and the file that they stand in. */
function feedsOf(name) {
  const inputs = join(zoo, name, 'io.safetensors');
  const file = openSafetensors(inputs);
  const feeds = {};
  for (const [key, { dtype, shape }] of file.tensors) {
    if (!key.startsWith('input.')) continue;
    const bytes = file.read(key).slice().buffer;
    const data = dtype === 'int64' ? new BigInt64Array(bytes) : new Float32Array(bytes);
    feeds[key.slice('input.'.length)] = new ort.Tensor(dtype, data, shape);
  }
  file.close();
  return { feeds, inputs };
}

await inTemporaryFolder({ keep: args.keep, folder: args.folder, bytes: 1e8 }, async (folder) => {
  const tasks = [];
  for (const name of cases) {
    const base = join(zoo, name, 'model.onnx');
    // Each in a folder of its own: data files have the name of the base's.
    const at = (kind) => join(mkdtempSync(join(folder, `${name}-`)), `${kind}.onnx`);
    const [patched, merged, slots, optional] = ['patched', 'merged', 'slots', 'optional'].map(at);
    await patch(base, { output: patched });
    randomiseAdapters(patched);
    await foldAdapters(patched, { output: merged });
    await patch(base, { output: slots, slots: 'required' });
    await patch(base, { output: optional, slots: 'optional' });
    const models = { base, patched, merged, slots, 'optional slots': optional };
    for (const [kind, model] of Object.entries(models)) {
      tasks.push(await task(name, kind, model, at('expected')));
    }
  }
  const list = join(folder, 'tasks.json');
  writeFileSync(list, JSON.stringify(tasks));
  const stdio = ['ignore', 'pipe', 'inherit'];
  const printed = execFileSync(args.python, [path('peer/read_models.py'), list], { stdio });
  const lines = String(printed).trim().split('\n');
  report(tasks.map((one, i) => ({ ...one, ...JSON.parse(lines[i]) })));
});

function report(found) {
  const bases = new Map(found.filter(({ kind }) => kind === 'base').map((one) => [one.name, one]));
  const isFine = ({ name, checker, difference }) =>
    (checker === 'ok' || checker === bases.get(name).checker) && difference <= ROUNDING;
  table(
    ['model', 'kind', 'onnx.checker', 'difference', ''],
    found.map((one) => [
      ...[one.name, one.kind, one.checker, one.difference.toExponential(1)],
      isFine(one) ? '' : 'FAILS',
    ]),
  );
  const results = found.map(({ name, kind, checker, difference }) => ({
    ...{ name, kind, checker, difference },
  }));
  saveResults('readers', { results });
  if (!found.every(isFine)) process.exitCode = 1;
}
