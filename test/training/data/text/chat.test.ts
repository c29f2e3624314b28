import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ChatTemplate } from '../../../../src/training/data/text/chat.js';
import { chatEncoder } from '../../../../src/training/data/text/encoder.js';
import { TextTokenizer } from '../../../../src/training/data/text/tokenizer.js';
import { failure, temporaryFolder } from '../../../support/files.js';
import { chats, chatTokenizer, template } from './tokenizers.js';

const folder = temporaryFolder();

/** With tags in their places that do nothing. */
const unmarked = template.replace(/\b(end)?generation\b/g, 'set unused = 1');

const tokenizerWith = (chat: unknown) => TextTokenizer.open(chatTokenizer(folder, chat));

const fields = { texts: ['messages'], label: undefined, isChat: true };

describe('a conversation', () => {
  it.each(chats)('that the template marks is as transformers has it: $text', (recorded) => {
    const encoder = chatEncoder(tokenizerWith(template), fields);
    const [encoded] = encoder.encode({ messages: recorded.messages }, undefined);
    expect(encoded!.ids).toEqual(recorded.ids);
    const answers = encoded!.labels!.map((label) => (label === undefined ? 0 : 1));
    expect(answers).toEqual(recorded.answers);
  });

  it.each(chats)('without marks has the answers behind what is before them: $text', (recorded) => {
    const { text, answers } = ChatTemplate.of(tokenizerWith(unmarked)).render(
      recorded as never,
      'messages',
    );
    expect(text).toBe(recorded.text);
    // The prompt ends in <|model|>, the next turn begins with <|user|>.
    const expected = text
      .split('<|model|>')
      .slice(1)
      .map((part) => part.split('<|user|>')[0]);
    expect(answers.map(([start, end]) => text.slice(start, end))).toEqual(expected);
  });

  it('counts a token that reaches over the start of an answer to the answer', () => {
    const glued = '{% for m in messages %}{{ m.content }}{% endfor %}';
    const tokenizer = tokenizerWith(glued);
    const words = ['the lic', 'ense of the work'];
    const messages = words.map((content, i) => ({ role: i ? 'assistant' : 'user', content }));
    const [encoded] = chatEncoder(tokenizer, fields).encode({ messages }, undefined);
    const whole = tokenizer.encode([words.join('')], { special: false }).ids;
    const before = tokenizer.encode([words[0]!], { special: false }).ids;
    const first = encoded!.labels!.findIndex((label) => label !== undefined);
    expect(encoded!.ids).toEqual(whole);
    expect(whole.slice(0, first)).toEqual(before.slice(0, first));
    expect(encoded!.labels!.slice(first)).toEqual(whole.slice(first));
    expect(first).toBeLessThan(before.length);
  });

  it('is cut like any text', () => {
    const encoder = chatEncoder(tokenizerWith(template), fields);
    const [encoded] = encoder.encode({ messages: chats[0]!.messages }, 22);
    expect(encoded!.ids).toEqual(chats[0]!.ids.slice(0, 22));
    expect(encoded!.labels).toHaveLength(22);
  });
});

describe('bad conversations', () => {
  const user = { role: 'user', content: 'hi' };
  const model = { role: 'assistant', content: 'hello' };
  const render = (chat: string, messages: unknown) =>
    ChatTemplate.of(tokenizerWith(chat)).render({ messages }, 'messages');

  it.each([
    ['no list', 'hi', /holds "hi", expected a list of messages/],
    ['messages without a role', [{ content: 'hi' }], /expected a list of messages/],
    ['no answer', [user], /have no answer of the role assistant/],
  ])('as %s are bad rows', (_, messages, problem) => {
    expect(() => render(unmarked, messages)).toThrow(problem);
  });

  it('that the template refuses are bad rows', () => {
    const strict = "{{ raise_exception('roles must alternate') }}";
    expect(() => render(strict, [user, model])).toThrow(
      /takes no such messages: .*roles must alternate/,
    );
  });

  it('whose beginning changes with what follows are told, not guessed', () => {
    const last = '{% for m in messages %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}';
    expect(() => render(last, [user, model])).toThrow(
      /writes what comes before message 2 differently/,
    );
  });
});

describe('a chat template', () => {
  it('may be one of several', () => {
    const several = [
      { name: 'tool_use', template: 'x' },
      { name: 'default', template: unmarked },
    ];
    const { text } = ChatTemplate.of(tokenizerWith(several)).render(chats[0] as never, 'messages');
    expect(text).toBe(chats[0]!.text);
  });

  it('may stand in a file of its own', () => {
    const path = chatTokenizer(folder, undefined);
    writeFileSync(join(path, '../chat_template.jinja'), unmarked);
    const { text } = ChatTemplate.of(TextTokenizer.open(path)).render(
      chats[0] as never,
      'messages',
    );
    expect(text).toBe(chats[0]!.text);
  });

  it('knows no day, so that a run is the same tomorrow', () => {
    const dated =
      "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% endif %}{% for m in messages %}{{ m.role }}{% endfor %}";
    const messages = chats[0]!.messages;
    expect(ChatTemplate.of(tokenizerWith(dated)).render({ messages }, 'messages').text).toBe(
      'userassistant',
    );
  });

  it('that is missing or damaged is told', async () => {
    const none = await failure(() => ChatTemplate.of(tokenizerWith(null)), 'invalid-argument');
    expect(none.message).toMatch(/has no chat template for messages/);
    await failure(() => ChatTemplate.of(tokenizerWith('{% for %}')), 'unsupported');
  });
});
