import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TextTokenizer } from '../../../src/data/text/tokenizer.js';
import { longestFirst } from '../../../src/data/text/truncation.js';
import { OnnxLoraError } from '../../../src/errors.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { recorded, tokenizerPath } from './tokenizers.js';

const folder = temporaryFolder();

describe.each(['wordpiece', 'byte-level', 'unigram', 'byte-fallback'])('%s', (kind) => {
  const tokenizer = TextTokenizer.open(tokenizerPath(kind));

  it.each(recorded(kind))('encodes $texts in $maxLength tokens as transformers does', (one) => {
    const maxLength = one.maxLength ?? undefined;
    const { ids, types } = tokenizer.encode(one.texts, { maxLength });
    expect({ ids, types }).toEqual({ ids: one.ids, types: one.types });
  });
});

describe('a tokenizer', () => {
  it('pads with its own token, or with the one that ends texts', () => {
    expect(TextTokenizer.open(tokenizerPath('wordpiece')).padId).toBe(0);
    expect(TextTokenizer.open(tokenizerPath('byte-level')).padId).toBe(0);
    expect(TextTokenizer.open(tokenizerPath('byte-fallback')).padId).toBe(2);
  });

  it('knows how long texts may be, or does not', () => {
    expect(TextTokenizer.open(tokenizerPath('unigram')).maxLength).toBe(48);
    expect(TextTokenizer.open(tokenizerPath('byte-level')).maxLength).toBeUndefined();
  });

  it('is the same from its file and from its folder', () => {
    const file = TextTokenizer.open(join(tokenizerPath('unigram'), 'tokenizer.json'));
    const whole = TextTokenizer.open(tokenizerPath('unigram'));
    expect([file.digest, file.maxLength]).toEqual([whole.digest, whole.maxLength]);
  });

  it('that is none is told', async () => {
    const model = folder.write(Buffer.from('{"model": 3}'), 'tokenizer.json');
    const { message } = await failure(() => TextTokenizer.open(model), 'invalid-data');
    expect(message).toMatch(/tokenizer\.json is not a tokenizer's file: model: /);
    const other = folder.write(Buffer.from('{"model": {"type": "Words"}}'), 'tokenizer.json');
    await failure(() => TextTokenizer.open(other), 'unsupported');
    await failure(() => TextTokenizer.open(folder.path), 'file-not-found');
    await failure(() => TextTokenizer.open(join(folder.path, 'none.json')), 'file-not-found');
  });

  it.each([
    ['pre_tokenizer', { type: 'Split', pattern: { Regex: '(a+)+b' }, behavior: 'Isolated' }],
    ['normalizer', { type: 'Replace', pattern: { Regex: '(a+)+b' }, content: '' }],
  ])('whose %s never ends is stopped', async (part, value) => {
    const path = join(tokenizerPath('wordpiece'), 'tokenizer.json');
    const stored = { ...JSON.parse(readFileSync(path, 'utf8')), [part]: value };
    const file = folder.write(Buffer.from(JSON.stringify(stored)), 'tokenizer.json');
    const tokenizer = TextTokenizer.open(file);
    const { message } = await failure(() => tokenizer.encode(['a'.repeat(60)]), 'invalid-data');
    expect(message).toContain('a text of 60 characters cannot be tokenized: it takes longer than');
  });

  it('that fails at a long text says so', async () => {
    const tokenizer = TextTokenizer.open(tokenizerPath('unigram'));
    const text = 'a'.repeat(150_000);
    const { message } = await failure(() => tokenizer.encode([text]), 'invalid-data');
    expect(message).toContain('a text of 150000 characters cannot be tokenized');
  });

  it.each(['wordpiece', 'byte-level', 'unigram', 'byte-fallback'])(
    'reads no more of a text of a megabyte than it has tokens for: %s',
    (kind) => {
      const tokenizer = TextTokenizer.open(tokenizerPath(kind));
      const words = (count: number) => 'the model reads, '.repeat(count);
      const options = { maxLength: 128 };
      expect(tokenizer.encode([words(60_000)], options)).toEqual(
        tokenizer.encode([words(1000)], options),
      );
    },
  );

  it('reads the end of one that it cuts at the left', () => {
    const { tokenizer, config } = filesOf('wordpiece');
    const left = openFiles(tokenizer, { ...config, truncation_side: 'left' });
    const text = (count: number) => `${'its input '.repeat(count)}the model`;
    const options = { maxLength: 64 };
    expect(left.encode([text(90_000)], options)).toEqual(left.encode([text(1000)], options));
  });

  it.each([
    ['wordpiece', true],
    ['byte-level', true],
    ['unigram', true],
    ['byte-fallback', true],
  ])('knows whether it has tokens for every text: %s', (kind, covers) => {
    const { tokenizer, config } = filesOf(kind);
    expect(openFiles(tokenizer, config).coversAll).toBe(covers);
    const model = { ...(tokenizer.model as object), unk_token: null, unk_id: null };
    const isByBytes = kind.startsWith('byte');
    expect(openFiles({ ...tokenizer, model }, config).coversAll).toBe(isByBytes);
  });

  it.each([
    { normalizer: 3 },
    { pre_tokenizer: { type: 'Sequence', pretokenizers: 7 } },
    { post_processor: { type: 'TemplateProcessing', single: null } },
    { added_tokens: 'x' },
    { added_tokens: [null] },
    { decoder: [] },
  ])('with a part of another kind is told: %o', async (part) => {
    const path = join(tokenizerPath('wordpiece'), 'tokenizer.json');
    const stored = { ...JSON.parse(readFileSync(path, 'utf8')), ...part };
    const file = folder.write(Buffer.from(JSON.stringify(stored)), 'tokenizer.json');
    try {
      TextTokenizer.open(file).encode(['a b', 'c']);
    } catch (error) {
      expect(error).toBeInstanceOf(OnnxLoraError);
    }
  });

  it('whose post_processor is damaged for pairs only says so', async () => {
    const { tokenizer, config } = filesOf('wordpiece');
    const single = [{ Sequence: { id: 'A', type_id: 0 } }];
    const post_processor = { type: 'TemplateProcessing', single, pair: [null], special_tokens: {} };
    const damaged = openFiles({ ...tokenizer, post_processor }, config);
    expect(damaged.encode(['the model']).ids).toHaveLength(4);
    const { message } = await failure(() => damaged.encode(['the', 'model']), 'unsupported');
    expect(message).toContain('its post_processor fails on pairs of texts');
  });

  it('without a token for what is unknown says what it met', async () => {
    const path = join(tokenizerPath('unigram'), 'tokenizer.json');
    const stored = JSON.parse(readFileSync(path, 'utf8'));
    stored.model = {
      type: 'WordPiece',
      vocab: { ab: 0, '##ba': 1 },
      unk_token: '?',
      continuing_subword_prefix: '##',
    };
    stored.added_tokens = [];
    stored.normalizer = stored.pre_tokenizer = stored.post_processor = null;
    const file = folder.write(Buffer.from(JSON.stringify(stored)), 'tokenizer.json');
    const tokenizer = TextTokenizer.open(file);
    expect(tokenizer.encode(['abba']).ids).toEqual([0, 1]);
    const { message } = await failure(() => tokenizer.encode(['xy']), 'invalid-data');
    expect(message).toMatch(/"\?" is in none of its tokens/);
  });
});

/** The files of a recorded tokenizer, to be changed. */
function filesOf(kind: string): Record<'tokenizer' | 'config', Record<string, unknown>> {
  const read = (name: string) => JSON.parse(readFileSync(join(tokenizerPath(kind), name), 'utf8'));
  return { tokenizer: read('tokenizer.json'), config: read('tokenizer_config.json') };
}

function openFiles(tokenizer: object, config: object): TextTokenizer {
  const path = folder.write(Buffer.from(JSON.stringify(tokenizer)), 'tokenizer.json');
  writeFileSync(join(dirname(path), 'tokenizer_config.json'), JSON.stringify(config));
  return TextTokenizer.open(path);
}

describe('longestFirst', () => {
  it('keeps both texts where they fit, and takes from the longer one where not', () => {
    expect(longestFirst(3, 4, 7)).toEqual([3, 4]);
    expect(longestFirst(3, 9, 7)).toEqual([3, 4]);
    expect(longestFirst(9, 2, 7)).toEqual([5, 2]);
    expect(longestFirst(9, 9, 7)).toEqual([3, 4]);
    expect(longestFirst(9, 8, 7)).toEqual([4, 3]);
    expect(longestFirst(9, 0, 7)).toEqual([7, 0]);
  });
});
