/** The examples in doc comments and guides: each export of `onnx-lora` has one, and all of them work. */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import type * as library from '../src/index.js';
import { codeOf, type Example, failures, fillFolder, typeErrors } from './support/examples.js';
import { temporaryFolder } from './support/files.js';

// A name that is not written out, so that types are checked before anything is built.
const name: string = 'onnx-lora';
const stable: typeof library = await import(name);

const root = fileURLToPath(new URL('..', import.meta.url));
const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.startsWith('browser'))
  .map((file) => readFileSync(join(root, 'src', file), 'utf8'));

/** The doc comments of a function or class, wherever it is declared. */
function commentsOf(name: string): string[] {
  const declaration = new RegExp(
    String.raw`^/\*\*((?:(?!\*/).)*)\*/\nexport (?:async function|function|class) ${name}\b`,
    'gms',
  );
  return sources.flatMap((source) => [...source.matchAll(declaration)].map(([, text]) => text!));
}

/** The example in a doc comment, without the stars; undefined where it has none. */
function exampleIn(comment: string): string | undefined {
  const [, tag] = comment.split('@example\n');
  return tag && codeOf(tag.replace(/^ \* ?/gm, ''))[0];
}

const exported = Object.entries(stable)
  .filter(([, value]) => typeof value === 'function')
  .map(([name]) => name);
const own = exported.flatMap((name): Example[] => {
  const code = commentsOf(name).map(exampleIn).find(Boolean);
  return code === undefined ? [] : [{ name, code }];
});

const guides = ['README', 'docs/library'].flatMap((document): Example[] =>
  codeOf(readFileSync(join(root, `${document}.md`), 'utf8')).map((code, i) => {
    return { name: `${document.replace('/', '-')}-${i + 1}`, code };
  }),
);
const examples = [...own, ...guides];

describe('examples', () => {
  const files = temporaryFolder();
  let failed: Record<string, string> = {};

  beforeAll(async () => {
    const folder = join(files.path, 'files');
    mkdirSync(folder);
    await fillFolder(folder);
    failed = failures(files.path, examples);
  });

  it('are beside every function and class of the package', () => {
    expect(exported).toEqual(own.map(({ name }) => name));
  });

  it('compile', () => {
    expect(typeErrors(join(files.path, 'files'), examples)).toEqual([]);
  });

  it.each(examples.map(({ name }) => name))('run: %s', (name) => {
    expect(failed.all ?? failed[name] ?? '').toBe('');
  });
});
