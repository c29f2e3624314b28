/** Tokens as text while they come: whole characters, and in sum what all tokens together are. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TextStream } from '../../../src/commands/generate/text-stream.js';
import { TextTokenizer } from '../../../src/data/text/tokenizer.js';
import { recorded, tokenizerPath } from '../../data/text/tokenizers.js';

const kinds = ['byte-level', 'byte-fallback', 'unigram', 'wordpiece'] as const;
const bytes = TextTokenizer.open(tokenizerPath('byte-level'));

function piecesOf(
  tokenizer: TextTokenizer,
  ids: readonly number[],
  before: readonly number[] = [],
) {
  const stream = new TextStream(tokenizer, before);
  const pieces = ids.map((id) => stream.push(id));
  return { pieces, rest: stream.end() };
}

describe('pieces of a text', () => {
  it('are whole characters, although each byte is a token', () => {
    const text = 'né 日本 🙂!';
    const ids = bytes.encode([text], { special: false }).ids;
    const { pieces, rest } = piecesOf(bytes, ids);
    expect(pieces.join('')).toBe(text);
    expect(pieces).toContain('');
    expect(rest).toBe('');
    expect(pieces.every((piece) => !piece.includes('\uFFFD'))).toBe(true);
  });

  it('end with a character that is not whole', () => {
    const ids = bytes.encode(['a🙂'], { special: false }).ids;
    const { pieces, rest } = piecesOf(bytes, ids.slice(0, -1));
    expect([pieces.join(''), rest]).toEqual(['a', '\uFFFD']);
  });

  it('do not wait for bytes that never become a character', () => {
    const half = bytes.encode(['🙂'], { special: false }).ids[0]!;
    const { pieces } = piecesOf(bytes, Array<number>(10).fill(half));
    expect(pieces.join('')).toBe('\uFFFD'.repeat(7));
  });

  it('begin with the space behind what they continue', () => {
    const unigram = TextTokenizer.open(tokenizerPath('unigram'));
    const ids = unigram.encode(['the model reads'], { special: false }).ids;
    const first = unigram.encode(['the'], { special: false }).ids.length;
    const { pieces } = piecesOf(unigram, ids.slice(first), ids.slice(0, first));
    expect(pieces.join('')).toBe(' model reads');
  });

  it.each(kinds)('are together what the tokenizer decodes: %s', (kind) => {
    const tokenizer = TextTokenizer.open(tokenizerPath(kind));
    const texts = recorded(kind).map(({ texts: [text] }) => text);
    for (const text of [...texts, texts.join(' '), 'the model reads its input '.repeat(40)]) {
      const { ids } = tokenizer.encode([text]);
      const { pieces, rest } = piecesOf(tokenizer, ids);
      expect(pieces.join('') + rest).toBe(tokenizer.decode(ids));
    }
  });

  it('are so for any bytes', () => {
    const token = fc.integer({ min: 0, max: 399 });
    fc.assert(
      fc.property(fc.array(token, { maxLength: 150 }), (ids) => {
        const { pieces, rest } = piecesOf(bytes, ids);
        expect(pieces.join('') + rest).toBe(bytes.decode(ids));
      }),
      { numRuns: 50 },
    );
  });
});
