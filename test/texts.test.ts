/** Holds the texts of the code, literals and comments, to plain English and the words that a library speaks. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Text {
  readonly file: string;
  readonly line: number;
  readonly kind: 'comment' | 'literal';
  readonly text: string;
}

const library = textsIn('src');
const texts = [...library, ...textsIn('cli')];

function textsIn(folder: string): Text[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) => textsOf(join(folder, file)));
}

function textsOf(file: string): Text[] {
  const code = readFileSync(join(root, file), 'utf8');
  const source = ts.createSourceFile(file, code, ts.ScriptTarget.Latest, true);
  const found = new Map<number, Text>();
  const add = (kind: Text['kind'], start: number, end: number) => {
    const line = source.getLineAndCharacterOfPosition(start).line + 1;
    found.set(start, { file, line, kind, text: code.slice(start, end) });
  };
  visit(source);
  return [...found.values()];

  function visit(node: ts.Node): void {
    for (const { pos, end } of ts.getLeadingCommentRanges(code, node.pos) ?? []) {
      add('comment', pos, end);
    }
    for (const { pos, end } of ts.getTrailingCommentRanges(code, node.end) ?? []) {
      add('comment', pos, end);
    }
    if (isText(node) && !isExample(node)) add('literal', node.getStart(source), node.end);
    for (const child of node.getChildren(source)) visit(child);
  }
}

function isText(node: ts.Node): boolean {
  return (
    ts.isStringLiteral(node) ||
    ts.isNoSubstitutionTemplateLiteral(node) ||
    ts.isTemplateHead(node) ||
    ts.isTemplateMiddleOrTemplateTail(node)
  );
}

/** The example of an option in its table shows what is typed on the command line. */
function isExample({ parent }: ts.Node): boolean {
  return ts.isPropertyAssignment(parent) && parent.name.getText() === 'example';
}

/** `errors.ts:12: the text` of those that have the pattern. */
function having(pattern: RegExp, among: readonly Text[]): string[] {
  return among
    .filter(({ text }) => pattern.test(text))
    .map(({ file, line, text }) => `${file}:${line}: ${text.slice(0, 120)}`);
}

describe('a text of the library', () => {
  // Not flags of ours: custom properties of CSS, and options of Node.
  const others = /^src\/(report\/(page-style|heatmap|confusion|html)|commands\/apart)\.ts$/;

  test('names an option by its key, not by the flag of the command line', () => {
    const ours = library.filter(({ file }) => !others.test(file));
    expect(ours.length).toBeGreaterThan(5000);
    expect(having(/(?<![\w-])--([a-z][a-z-]+|\$\{)/, ours)).toEqual([]);
  });
});

describe('a comment', () => {
  const comments = texts.filter(({ kind }) => kind === 'comment');

  test('opens with the thing that it is about', () => {
    expect(comments.length).toBeGreaterThan(2000);
    expect(having(/^(\/\*\*|\/\/)[\s*]*(What|Where|How|From)\b/, comments)).toEqual([]);
  });
});

describe('a text', () => {
  test('says that something is not a thing, rather than that it is no thing', () => {
    expect(
      having(/(?<!there )\b(is|are|was|were) (no|none)\b(?! (longer|more|matter))/i, texts),
    ).toEqual([]);
  });
});
