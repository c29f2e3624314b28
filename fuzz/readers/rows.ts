import { join } from 'node:path';
import { RowFile } from '../../src/data/rows/row-file.js';
import { damageBytes } from '../mutate/bytes.js';
import { damageJsonText } from '../mutate/json.js';
import type { Random } from '../random.js';
import { type Files, filesOf, type Reader, withFile } from '../reader.js';

const CSV = 'text,label\n"a, ""b""\nc",x\n"",y\nplain,"z"\n';
const JSONL = [
  { text: 'a', label: 1 },
  { text: 'b', messages: [{ role: 'user', content: 'c' }] },
];

/** Separated values and JSON lines. */
export const rowsReader: Reader = {
  seeds: () => [
    filesOf({ 'a.csv': CSV }),
    filesOf({ 'a.tsv': CSV.replaceAll(',', '\t') }),
    filesOf({ 'a.jsonl': JSONL.map((row) => JSON.stringify(row)).join('\n') }),
  ],
  mutate: (files, random) => withFile(files, nameOf(files), (bytes) => damaged(bytes, random)),
  async run(folder) {
    const { readdirSync } = await import('node:fs');
    const [name] = readdirSync(folder);
    const file = await RowFile.open(join(folder, name!), () => {}, { skipBadRows: true });
    for (let i = 0; i < file.size; i++) file.at(i, (row) => row);
    file.close();
  },
};

function nameOf(files: Files): string {
  return [...files.keys()][0]!;
}

function damaged(bytes: Uint8Array, random: Random): Uint8Array {
  const text = Buffer.from(bytes).toString();
  if (text.startsWith('{') && random.chance(0.6)) {
    const lines = text.split('\n').map((line) => damageJsonText(line, random));
    return Buffer.from(lines.join('\n'));
  }
  const pieces = ['"', '""', '\n', '\r\n', ',', '"\n', '\uFEFF', '\0', '","'];
  if (random.chance(0.5)) return damageBytes(bytes, random);
  const at = random.below(text.length);
  const piece = random.pick(pieces).repeat(random.pick([1, 2, 3, 5000]));
  return Buffer.from(text.slice(0, at) + piece + text.slice(at));
}
