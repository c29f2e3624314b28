/** Commands in the documents exist, with the options that they are given there. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { commands } from '../cli/commands/index.js';
import { commonOptions } from '../cli/common-options.js';
import { camelCase, type OptionSpecs } from '../cli/specs.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const guides = ['docs', 'examples'].flatMap((folder) =>
  readdirSync(`${root}/${folder}`, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `${folder}/${name}`),
);
const documents = ['README.md', ...guides.sort()];

/** Command lines of onnx-lora in a document, those that go on in the next line joined. */
function commandLines(text: string): string[] {
  const lines = text.replace(/\\\n\s*/g, ' ').split('\n');
  return lines.flatMap((line) => /^\s*(?:\$|npx) onnx-lora ([a-z].*)$/.exec(line)?.[1] ?? []);
}

/** The flags of a command line, without its comment and quoted values. */
function flagsOf(line: string): string[] {
  const bare = line.replace(/\s#.*$/, '').replace(/'[^']*'|"[^"]*"/g, 'VALUE');
  return [...bare.matchAll(/\s--?([a-z][a-z-]*)/g)].map(([, name]) => name!);
}

function isKnown(flag: string, command: string): boolean {
  const own = commands.find(({ name }) => name === command)?.options;
  const options: OptionSpecs = { ...commonOptions, ...own };
  const key = camelCase(flag.replace(/^no-/, ''));
  return key in options || Object.values(options).some(({ short }) => short === flag);
}

const lines = documents.flatMap((document) =>
  commandLines(readFileSync(`${root}/${document}`, 'utf8')).map(
    (line) => [document, line] as const,
  ),
);

it('there are commands to look at', () => {
  expect(lines.length).toBeGreaterThan(50);
});

it.each(lines)('%s: onnx-lora %s', (_, line) => {
  const [command = ''] = line.split(/\s/);
  expect(commands.map(({ name }) => name)).toContain(command);
  expect(flagsOf(line).filter((flag) => !isKnown(flag, command))).toEqual([]);
});

it('the README links to the limits of the exact start, which name every known one', () => {
  expect(readFileSync(`${root}/README.md`, 'utf8')).toContain('](docs/limits.md#exact-start)');
  const [, section = ''] = readFileSync(`${root}/docs/limits.md`, 'utf8').split('## Exact start');
  const text = section.split('\n## ')[0]!.replace(/\s+/g, ' ');
  for (const one of [
    'a residual added directly after a MatMul',
    'a LayerNormalization directly after a layer',
    'a BatchNormalization after a MatMul',
    'statically quantized models (QuantizeLinear around layers), with open sizes',
  ]) {
    expect(text).toContain(one);
  }
});
