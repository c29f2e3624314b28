/**
 * Folders that the command line writes, in onnxruntime-genai for Python: it builds tiny models, ours patches and
 * merges them, and both generate the likeliest tokens. The slots take adapters by its `Adapters`.
 *
 *   node bench/genai-folder.mjs --python PATH [--keep]
 *   (a Python with onnxruntime-genai, torch, transformers and peft)
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { TextGenerator } from '../dist/src/commands/generate/generator.js';
import { inTemporaryFolder, saveResults, table } from './common.mjs';

const { values: args } = parseArgs({
  options: { python: { type: 'string', default: 'python3' }, keep: { type: 'boolean' } },
});

const PROMPT = 'where is my parcel';
const TOKENS = 24;

const here = (path) => new URL(path, import.meta.url).pathname;

function python(script, ...words) {
  const options = { encoding: 'utf8', maxBuffer: 2 ** 26, stdio: ['ignore', 'pipe', 'inherit'] };
  return JSON.parse(execFileSync(args.python, [here(`genai/${script}`), ...words], options));
}

function onnxLora(...words) {
  const options = { stdio: ['ignore', 'ignore', 'inherit'] };
  execFileSync(process.execPath, [here('../dist/cli/main.js'), ...words, '--quiet'], options);
}

/** The folders of one case, made by the command line. */
function written({ folder, adapter }) {
  const [patched, merged, slots, file] = ['lora', 'merged', 'slots', 'onnx_adapter'].map(
    (ending) => `${folder}.${ending}`,
  );
  onnxLora('apply', folder, adapter, '-o', patched);
  onnxLora('extract', patched, '-o', file);
  onnxLora('merge', folder, '--adapter', adapter, '-o', merged);
  onnxLora('patch', folder, '--slots', 'optional', '-o', slots);
  return {
    base: { folder },
    patched: { folder: patched },
    merged: { folder: merged },
    empty: { folder: slots },
    slots: { folder: slots, adapter: file },
  };
}

/** The tokens that our own `generate` finds. */
async function ownTokens(folder) {
  const generator = await TextGenerator.open(folder, { provider: 'cpu' });
  const prompt = generator.tokenizer.encode([PROMPT], { special: false }).ids;
  const { ids } = await generator.complete(PROMPT, { maxNewTokens: TOKENS });
  await generator.release();
  return [...prompt, ...ids];
}

const EOS = 2;
/** Whether a text ends by the token for that, or by its length, is told by the one and not by the other. */
const trimmed = (ids) => (ids.at(-1) === EOS ? ids.slice(0, -1) : ids);
const same = (...all) => new Set(all.map((ids) => trimmed(ids).join())).size === 1;

await inTemporaryFolder({ keep: args.keep, bytes: 1e8 }, async (root) => {
  const cases = python('make.py', root, PROMPT);
  const runs = cases.map(written);
  const task = join(root, 'runs.json');
  const all = runs.flatMap((one) => Object.values(one));
  writeFileSync(task, JSON.stringify({ prompt: PROMPT, tokens: TOKENS, runs: all }));
  const { version, tokens } = python('generate.py', task);
  const rows = [];
  for (const [i, { name, peft }] of cases.entries()) {
    const [base, patched, merged, empty, slots] = tokens.slice(5 * i, 5 * i + 5);
    const ownBase = await ownTokens(runs[i].base.folder);
    const ownMerged = await ownTokens(runs[i].merged.folder);
    rows.push({
      ...{ name, tokens: trimmed(merged).length, moved: !same(base, merged) },
      base: same(base, empty, ownBase),
      adapted: same(merged, patched, slots, ownMerged),
      ...(peft === undefined ? {} : { peft: same(merged, peft) }),
    });
  }
  console.log(`onnxruntime-genai ${version}, ${TOKENS} tokens\n`);
  const told = (is) => (is === undefined ? '' : is ? 'same' : 'DIFFERS');
  table(
    [
      'model',
      'base = empty slots = ours',
      'merged = patched = slots = ours',
      "merged = PEFT's",
      'moved',
    ],
    rows.map((row) => [
      row.name,
      told(row.base),
      told(row.adapted),
      told(row.peft),
      row.moved ? 'yes' : 'NO',
    ]),
  );
  saveResults('genai-folder', { version, rows });
  const passed = rows.every((row) => row.base && row.adapted && row.moved && row.peft !== false);
  if (!passed) process.exitCode = 1;
});
