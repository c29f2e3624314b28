/** Most of a short command is loading: what every command loads is described here. */
import { readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The files of the sources and the packages that a file loads before it runs: not types, and no `import()`. */
function loadedBy(entry: string): string[] {
  const found = new Set([entry]);
  for (const file of found) {
    if (!file.startsWith(root)) continue;
    for (const name of staticImports(readFileSync(file, 'utf8'))) {
      const path = name.startsWith('.') ? join(dirname(file), name.replace(/\.js$/, '.ts')) : name;
      if (!path.startsWith('node:')) found.add(path);
    }
  }
  return [...found].map((path) => (path.startsWith(root) ? relative(root, path) : path));
}

function staticImports(text: string): string[] {
  const { statements } = ts.createSourceFile('', text, ts.ScriptTarget.Latest);
  return statements.flatMap((one) => {
    const isImport = ts.isImportDeclaration(one) && !one.importClause?.isTypeOnly;
    const isExport = ts.isExportDeclaration(one) && !one.isTypeOnly;
    if (!isImport && !isExport) return [];
    return one.moduleSpecifier ? [(one.moduleSpecifier as ts.StringLiteral).text] : [];
  });
}

const loaded = loadedBy(join(root, 'cli/main.ts'));

test('options are read without what computes', () => {
  const rooms = [
    'src/autodiff',
    'src/adapters/subgraph',
    'src/linalg',
    'src/fitting',
    'src/report',
  ];
  const files = ['src/runtime/session.ts', 'src/data/open-dataset.ts', 'src/onnx/parse.ts'];
  const heavy = loaded.filter((path) => [...rooms, ...files].some((one) => path.startsWith(one)));
  expect(heavy).toEqual([]);
});

test('packages that few commands use are loaded by those', () => {
  const packages = loaded.filter((path) => !path.endsWith('.ts')).sort();
  expect(packages).toEqual([
    '@petamoriken/float16',
    'cli-progress',
    'fastest-levenshtein',
    'picocolors',
    'string-width',
    'valibot',
    'yargs',
  ]);
});
