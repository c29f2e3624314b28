/**
 * How many lines of text become other tokens here than with Hugging Face's tokenizers in Python.
 *
 *   node bench/tokenizers.mjs --python PATH [--lines 20000] [TOKENIZER.json ..]
 *
 * The lines are those of all README files in node_modules. Without tokenizers, those of the tests.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { TextTokenizer } from '../dist/src/data/text/tokenizer.js';
import { inTemporaryFolder, saveResults, table } from './common.mjs';

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    lines: { type: 'string', default: '20000' },
  },
});

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const kinds = ['wordpiece', 'byte-level', 'unigram', 'byte-fallback'];
const ours = kinds.map((kind) => at(`../test/fixtures/tokenizers/${kind}/tokenizer.json`));

function lines() {
  const modules = at('../node_modules');
  const files = readdirSync(modules, { recursive: true }).filter((path) =>
    /README\.md$/i.test(path),
  );
  const all = files.flatMap((path) => readFileSync(join(modules, path), 'utf8').split('\n'));
  return [...new Set(all.map((line) => line.trim()))].slice(0, Number(args.lines));
}

function recorded(tokenizer, file) {
  const argv = [at('./peer/tokenize_lines.py'), tokenizer, file];
  const options = { encoding: 'utf8', maxBuffer: 2 ** 30 };
  const { stdout, stderr, status } = spawnSync(args.python, argv, options);
  if (status !== 0) throw new Error(stderr);
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

await inTemporaryFolder({ bytes: 2 ** 26 }, async (folder) => {
  const texts = lines();
  const file = join(folder, 'lines.jsonl');
  writeFileSync(file, texts.map((text) => `${JSON.stringify(text)}\n`).join(''));
  const results = (positionals.length > 0 ? positionals : ours).map((path) => {
    const expected = recorded(path, file);
    const tokenizer = TextTokenizer.open(path);
    const other = texts.filter(
      (text, i) => tokenizer.encode([text]).ids.join() !== expected[i].join(),
    );
    const tokens = expected.reduce((sum, ids) => sum + ids.length, 0);
    const name = basename(join(path, '..'));
    return { name, lines: texts.length, tokens, other: other.length, first: other[0] ?? null };
  });
  const cells = results.map((r) => [r.name, r.lines, r.tokens, r.other].map(String));
  table(['tokenizer', 'lines', 'tokens', 'other lines'], cells);
  saveResults('tokenizers', { results });
});
