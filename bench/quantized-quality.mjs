/**
 * Do adapters on quantized weights reach what they reach on the float model? Each base is trained in the same way,
 * from the same adapters, and evaluated on its samples: the last loss over that of the float base.
 *
 *   node bench/quantized-quality.mjs [--steps 20] [--seeds 3] [--lr 1e-3 --lr 1e-2]
 *
 * The models are those of the tests: two layers of BERT and Llama. `q4` and `q8` are the float model in blocks,
 * by `merge --to`; `int8` and `QDQ` come from ONNX Runtime's quantizers.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openSafetensors } from '../dist/src/formats/safetensors.js';
import { encodeSafetensors } from '../dist/src/formats/safetensors-output.js';
import { merge, patch, train } from '../dist/src/index.js';
import { inTemporaryFolder, median, saveResults, table } from './common.mjs';

const { values: args } = parseArgs({
  options: {
    steps: { type: 'string', default: '20' },
    seeds: { type: 'string', default: '3' },
    lr: { type: 'string', multiple: true, default: ['1e-3', '1e-2'] },
  },
});
const ZOO = fileURLToPath(new URL('../test/fixtures/zoo', import.meta.url));
const zoo = (name) => join(ZOO, name, 'model.onnx');

const families = [
  {
    name: 'BERT',
    base: 'bert-cls-torchscript',
    loss: 'cross-entropy',
    forms: {
      'int8 dynamic': 'bert-int8-dynamic',
      'int8 per column': 'bert-int8-channel',
      QDQ: 'bert-qdq',
    },
  },
  { name: 'Llama', base: 'llama-causal', loss: 'causal-lm', forms: { 'q4, level 4': 'llama-q4' } },
];

await inTemporaryFolder({ bytes: 1e8 }, async (folder) => {
  const rows = [];
  for (const { name, base, loss, forms } of families) {
    const data = join(folder, `${base}.safetensors`);
    writeFileSync(data, samplesOf(base));
    const models = { float: zoo(base), ...(await inBlocks(zoo(base), folder)) };
    for (const [form, model] of Object.entries(forms)) models[form] = zoo(model);
    for (const lr of args.lr.map(Number)) {
      const ends = {};
      for (const [form, model] of Object.entries(models)) {
        ends[form] = [];
        for (let seed = 0; seed < Number(args.seeds); seed++) {
          ends[form].push(await lastLoss(model, { data, loss, lr, seed }, folder));
        }
        const ratios = ends[form].map((value, seed) => value / ends.float[seed]);
        rows.push({ name, form, lr, loss: median(ends[form]), ratio: median(ratios), ratios });
      }
    }
  }
  table(
    ['model', 'lr', 'base', 'last loss', 'to float'],
    rows.map((row) => [
      ...[row.name, String(row.lr), row.form],
      ...[row.loss.toFixed(4), row.ratio.toFixed(3)],
    ]),
  );
  saveResults('quantized-quality', { ...args, rows });
});

/** The recorded batches of a case, one after the other. */
function samplesOf(name) {
  const file = openSafetensors(join(ZOO, name, 'lora/train.safetensors'));
  try {
    return encodeSafetensors(
      [...file.tensors].map(
        ([
          key,
          {
            dtype,
            shape: [steps, batch, ...rest],
          },
        ]) => ({
          ...{ name: key.replace(/^input\./, ''), dtype },
          ...{ shape: [steps * batch, ...rest], data: file.read(key).slice() },
        }),
      ),
    );
  } finally {
    file.close();
  }
}

/** The float model in blocks of 4 and 8 bits: a fresh adapter changes nothing. */
async function inBlocks(model, folder) {
  const adapted = join(folder, 'fresh.onnx');
  await patch(model, { rank: 1, blocks: 1, output: adapted, force: true });
  const made = {};
  for (const [name, to, symmetric] of [
    ['q4', 'q4', true],
    ['q4, zero points', 'q4', false],
    ['q8', 'q8', true],
  ]) {
    made[name] = join(folder, `${name.replace(/\W+/g, '-')}.${to}.${Date.now()}.onnx`);
    await merge(adapted, { to, symmetric, output: made[name], verify: false });
  }
  return made;
}

async function lastLoss(model, { data, loss, lr, seed }, folder) {
  const [adapted, trained] = ['adapted.onnx', 'trained.onnx'].map((name) => join(folder, name));
  await patch(model, { rank: 8, seed, output: adapted, force: true });
  const how = { loss, lr, steps: Number(args.steps), schedule: 'constant', provider: 'cpu' };
  const run = { data, evalData: data, shuffle: false, output: trained, force: true };
  const { eval: measures } = await train(adapted, { ...how, ...run });
  return measures.loss;
}
