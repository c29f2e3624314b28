/**
 * Adapters of Hugging Face PEFT in ONNX models: what it saves for small models of many kinds is applied and
 * merged by us, in graphs of both PyTorch exporters, and gives the outputs of PyTorch.
 *
 *   node bench/peft-in.mjs --python PATH [--folder DIR] [--keep]
 *
 * PATH is a Python with torch, transformers, peft, onnx and onnxscript. Exit status 1 where a difference
 * is more than rounding.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import ort from 'onnxruntime-node';
import { apply } from '../dist/src/commands/apply.js';
import { merge } from '../dist/src/commands/merge.js';
import { openSafetensors } from '../dist/src/formats/safetensors.js';
import { toIntegers } from '../dist/src/onnx/dtype.js';
import { inTemporaryFolder, largestDifference, saveResults, session, table } from './common.mjs';

const { values: args } = parseArgs({
  options: {
    python: { type: 'string', default: 'python3' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});

/** Of the largest output. */
const ROUNDING = 1e-5;

/** @param {string} folder the case's */
function feedsOf(folder) {
  const file = openSafetensors(join(folder, 'inputs.safetensors'));
  const feeds = Object.fromEntries(
    [...file.tensors].map(([name, { dtype, shape }]) => {
      const count = shape.reduce((x, y) => x * y, 1);
      const isReal = dtype === 'float32';
      const values = isReal ? file.readFloat32(name) : toIntegers(dtype, file.read(name), count);
      return [name, new ort.Tensor(dtype, values.slice(), shape)];
    }),
  );
  file.close();
  return feeds;
}

async function outputsOf(model, feeds) {
  const run = await session(model, 'basic');
  const read = Object.entries(feeds).filter(([name]) => run.inputNames.includes(name));
  const { out } = await run.run(Object.fromEntries(read));
  await run.release();
  return out.data;
}

function expectedOf(folder) {
  const file = openSafetensors(join(folder, 'expected.safetensors'));
  const values = file.readFloat32('out').slice();
  file.close();
  return values;
}

async function check(folder, graph) {
  const base = join(folder, `${graph}.onnx`);
  const adapter = join(folder, 'adapter');
  const [applied, merged] = [join(folder, 'applied.onnx'), join(folder, 'merged.onnx')];
  await apply(base, adapter, { output: applied, force: true });
  await merge(base, { adapter, output: merged, force: true });
  const [expected, feeds] = [expectedOf(folder), feedsOf(folder)];
  const largest = Math.max(...expected.map(Math.abs));
  const off = async (model) => largestDifference(expected, await outputsOf(model, feeds)) / largest;
  return { effect: await off(base), applied: await off(applied), merged: await off(merged) };
}

await inTemporaryFolder({ keep: args.keep, folder: args.folder, bytes: 1e8 }, async (folder) => {
  const script = fileURLToPath(new URL('peft-in/make.py', import.meta.url));
  // Nothing is fetched: the models are made.
  const env = { ...process.env, HF_HUB_OFFLINE: '1' };
  execFileSync(args.python, [script, folder], { env, stdio: 'ignore' });
  const results = [];
  for (const name of readdirSync(folder).sort()) {
    for (const graph of ['torchscript', 'dynamo']) {
      const at = join(folder, name);
      if (!existsSync(join(at, `${graph}.onnx`))) continue;
      results.push({ name, graph, ...(await check(at, graph)) });
    }
  }
  const number = (value) => value.toExponential(1);
  table(
    ['adapter', 'graph', 'effect', 'applied', 'merged'],
    results.map((r) => [r.name, r.graph, number(r.effect), number(r.applied), number(r.merged)]),
  );
  saveResults('peft-in', { results });
  const wrong = results.filter(({ applied, merged }) => !(Math.max(applied, merged) < ROUNDING));
  process.exitCode = wrong.length > 0 ? 1 : 0;
});
