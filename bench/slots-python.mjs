/**
 * What `patch --slots optional` and `extract -o x.onnx_adapter` write, in ONNX Runtime for Python: its
 * LoraAdapter and RunOptions.add_active_adapter on models of test/fixtures/zoo, and its AdapterFormat
 * reading and writing the same files.
 *
 *   node bench/slots-python.mjs --python PATH [--keep]     (a Python with onnxruntime >= 1.20)
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { extract } from '../dist/src/commands/extract.js';
import { patch } from '../dist/src/commands/patch.js';
import { openOnnxAdapterFile } from '../dist/src/formats/onnx-adapter-file.js';
import { loadSamples } from '../dist/src/runtime/load-samples.js';
import { openSession } from '../dist/src/runtime/session.js';
import { tensorToFloat64 } from '../dist/src/runtime/tensor-value.js';
import { inTemporaryFolder, saveResults, table } from './common.mjs';
import { randomiseAdapters } from './randomise.mjs';

const { values: args } = parseArgs({
  options: { python: { type: 'string', default: 'python3' }, keep: { type: 'boolean' } },
});

const here = (path) => new URL(path, import.meta.url).pathname;
const zoo = (name, file) => here(`../test/fixtures/zoo/${name}/${file}`);

/** Models of the zoo, and layers for an adapter that fills some of the slots only. */
const models = {
  'bert-cls-torchscript': ['query', 'value'],
  'bert-fp16': ['query', 'value'],
  'gpt2-causal': ['c_attn'],
  'albert-shared': ['query', 'value'],
};

const adapters = (targets) => ({
  'localized R=16 K=4': { rank: 16, blocks: 4 },
  'global R=8': { structure: 'global', rank: 8 },
  [`diagonal R=4 on ${targets.join(', ')}`]: { structure: 'diagonal', rank: 4, targets },
});

/** The inputs that were recorded with the model. */
async function recordedInputs(name) {
  const session = await openSession(zoo(name, 'model.onnx'));
  const feeds = loadSamples(zoo(name, 'io.safetensors'), session.inputs);
  await session.release();
  return Object.fromEntries(
    [...feeds].map(([key, value]) => [
      key,
      { dtype: value.dtype, dims: value.dims, values: [...tensorToFloat64(value)] },
    ]),
  );
}

async function build(folder, [name, targets]) {
  const base = zoo(name, 'model.onnx');
  const slotted = join(folder, `${name}.slots.onnx`);
  await patch(base, { slots: 'optional', output: slotted });
  const made = [];
  for (const [label, options] of Object.entries(adapters(targets))) {
    const stem = join(folder, `${name}-${made.length}`);
    const [patched, file] = [`${stem}.onnx`, `${stem}.onnx_adapter`];
    await patch(base, { ...options, output: patched });
    randomiseAdapters(patched, made.length);
    await extract(patched, { output: file });
    made.push({ name: label, patched, file });
  }
  return { name, base, slotted, adapters: made, inputs: await recordedInputs(name) };
}

/** What ONNX Runtime wrote holds the numbers that we wrote. */
function sameParameters(file, copy) {
  const [ours, theirs] = [openOnnxAdapterFile(file), openOnnxAdapterFile(copy)];
  const same = [...ours.parameters].every(([name, { dims, dtype }]) => {
    const found = theirs.parameters.get(name);
    const values = theirs.readFloat64(name);
    return (
      found.dtype === dtype &&
      found.dims.join() === dims.join() &&
      ours.readFloat64(name).every((value, i) => value === values[i])
    );
  });
  const complete = ours.parameters.size === theirs.parameters.size;
  ours.close();
  theirs.close();
  return same && complete;
}

/** Of the largest output; half precision has 11 bits. */
const limit = (name) => (name.includes('fp16') ? 1e-2 : 1e-5);

await inTemporaryFolder({ keep: args.keep, bytes: 1e8 }, async (folder) => {
  const cases = [];
  for (const model of Object.entries(models)) cases.push(await build(folder, model));
  const list = join(folder, 'cases.json');
  writeFileSync(list, JSON.stringify(cases));
  const printed = execFileSync(args.python, [here('slots/check.py'), list], { encoding: 'utf8' });
  const { onnxruntime, cases: found } = JSON.parse(printed);
  const rows = found.flatMap(({ name, empty, emptyAgain, adapters: all }, i) =>
    all.map((one, j) => ({
      ...{ model: name, adapter: one.name, empty: Math.max(empty, emptyAgain) },
      ...{ effect: one.effect, difference: one.difference },
      rewritten: sameParameters(cases[i].adapters[j].file, one.copy),
      passed:
        Math.max(empty, emptyAgain) === 0 && one.effect > 1e-3 && one.difference < limit(name),
    })),
  );
  console.log(`ONNX Runtime ${onnxruntime} for Python\n`);
  table(
    ['model, adapter', 'empty: max|Δ|', 'effect', 'against patched', 'rewritten'],
    rows.map((row) => [
      `${row.model}, ${row.adapter}`,
      String(row.empty),
      row.effect.toExponential(1),
      row.difference.toExponential(1),
      row.rewritten ? 'same' : 'DIFFERS',
    ]),
  );
  saveResults('slots-python', { onnxruntime, rows });
  if (!rows.every(({ passed, rewritten }) => passed && rewritten)) process.exitCode = 1;
});
