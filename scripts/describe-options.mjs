/**
 * Gives the options in the built declarations their doc comments. In a table that spreads another one, tsc writes the
 * keys without the comments that they have there; editors and the reference of the library show the comment of the
 * same option elsewhere then, or its summary from the help.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('../dist/src/', import.meta.url));
const TABLE = /^export declare const (\w+): \{(?:\}? & \{)*/;
const OPTION = /^ {4}(\w+): import\("[^"]*options\/option\.js"\)\.(?:Flag|Option)</;

/** The options that a line of a table declares, with what stands before it. */
function* optionsOf(lines, module) {
  let table;
  for (const [at, line] of lines.entries()) {
    table =
      TABLE.exec(line)?.[1] ?? (/^\S/.test(line) && !line.startsWith('}') ? undefined : table);
    const key = OPTION.exec(line)?.[1];
    const option = table && key && module[table]?.[key];
    if (!option) continue;
    const size = Object.keys(module[table]).length;
    yield { at, key, option, size, comment: commentBefore(lines, at) };
  }
}

function commentBefore(lines, at) {
  if (!lines[at - 1]?.trimEnd().endsWith('*/')) return undefined;
  let first = at - 1;
  while (!lines[first].trimStart().startsWith('/**')) first--;
  return lines.slice(first, at);
}

/** One sentence from the help; what switches something off says so. */
function sentence({ summary, default: usual }) {
  if (summary === undefined) return undefined;
  const text = usual === true ? `false: ${summary}` : summary[0].toUpperCase() + summary.slice(1);
  return [`    /** ${text.replaceAll('*/', '* /')}. */`];
}

const files = readdirSync(root, { recursive: true })
  .filter((file) => file.endsWith('.d.ts'))
  .map((file) => `${root}${file}`);
const tables = [];
for (const file of files) {
  const lines = readFileSync(file, 'utf8').split('\n');
  if (!lines.some((line) => OPTION.test(line))) continue;
  const module = await import(pathToFileURL(file.replace(/\.d\.ts$/, '.js')));
  tables.push({ file, lines, options: [...optionsOf(lines, module)] });
}
// Of two comments on one option, the one in the smaller table was written for it alone.
const described = tables
  .flatMap(({ options }) => options.filter(({ comment }) => comment))
  .sort((one, other) => other.size - one.size);
const ofOption = new Map(described.map(({ option, comment }) => [option, comment]));
// What is no flag is the same everywhere.
const ofHandler = new Map(
  described.filter(({ option }) => !option.summary).map(({ key, comment }) => [key, comment]),
);
for (const { file, lines, options } of tables) {
  for (const { at, key, option, comment } of options.reverse()) {
    if (comment) continue;
    const own = ofOption.get(option) ?? sentence(option) ?? ofHandler.get(key);
    if (own) lines.splice(at, 0, ...own);
  }
  writeFileSync(file, lines.join('\n'));
}
