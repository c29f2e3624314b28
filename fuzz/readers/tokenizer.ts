import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BadRow } from '../../src/data/rows/bad-row.js';
import { ChatTemplate } from '../../src/data/text/chat.js';
import { TextTokenizer } from '../../src/data/text/tokenizer.js';
import { damageBytes } from '../mutate/bytes.js';
import { damageJsonText } from '../mutate/json.js';
import type { Random } from '../random.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const FIXTURES = join(import.meta.dirname, '../../test/fixtures/tokenizers');
const [TOKENIZER, CONFIG, CHAT] = [
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.jinja',
];

/** Tokenizers of all kinds with their configs and chat templates, and what they make of texts. */
export const tokenizerReader: Reader = {
  seeds() {
    const { template } = JSON.parse(readFileSync(join(FIXTURES, 'chat.json'), 'utf8'));
    return ['wordpiece', 'byte-level', 'unigram', 'byte-fallback'].map((kind) =>
      filesOf({
        [TOKENIZER]: readFileSync(join(FIXTURES, kind, TOKENIZER)),
        [CONFIG]: readFileSync(join(FIXTURES, kind, CONFIG)),
        [CHAT]: template,
      }),
    );
  },
  mutate(files, random) {
    const name = random.pick([TOKENIZER, TOKENIZER, CONFIG, CHAT]);
    return withFile(files, name, (bytes) => damaged(name, bytes, random));
  },
  run(folder) {
    const tokenizer = TextTokenizer.open(folder);
    tokenizer.encode(['A text, ä 名 🜁.', 'and another'], { maxLength: 8 });
    try {
      const messages = [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b' },
      ];
      ChatTemplate.of(tokenizer).render({ messages }, 'messages');
    } catch (error) {
      if (!(error instanceof BadRow)) throw error;
    }
  },
};

const PIECES = [
  '{% for a in range(99999) %}',
  '{% endfor %}',
  '{{ messages * 9 }}',
  '{% macro f() %}',
];

function damaged(name: string, bytes: Uint8Array, random: Random): Uint8Array {
  const text = Buffer.from(bytes).toString();
  if (name !== CHAT) return Buffer.from(damageJsonText(text, random));
  if (random.chance(0.5)) return damageBytes(bytes, random);
  const at = random.below(text.length);
  return Buffer.from(text.slice(0, at) + random.pick(PIECES) + text.slice(at));
}
