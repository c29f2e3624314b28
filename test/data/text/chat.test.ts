import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ChatTemplate } from '../../../src/data/text/chat.js';
import { chatEncoder, languageEncoder } from '../../../src/data/text/encoder.js';
import { TextTokenizer } from '../../../src/data/text/tokenizer.js';
import { failure, temporaryFolder } from '../../support/files.js';
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

  const endless = {
    'loops in loops':
      '{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}',
    'a long range': '{{ range(1000000000) | length }}',
    'a text that doubles':
      '{% set ns = namespace(t="ab") %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}',
    'a list that grows':
      '{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}',
    'a macro that calls itself twice':
      '{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}',
  };

  it.each(Object.entries(endless))('ends with an error for a template of %s', async (_, source) => {
    const encoder = chatEncoder(tokenizerWith(source), fields);
    const messages = [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'b' },
    ];
    const start = performance.now();
    const { message } = await failure(() => encoder.encode({ messages }, 9), 'invalid-data');
    expect(message).toMatch(/tokenizer\.json: its chat template: it (takes|counts)/);
    expect(performance.now() - start).toBeLessThan(8000);
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

/** A template that adds texts, as most do. */
const adding =
  "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}";
const text = (words: string) => [{ type: 'text', text: words }];
const turn = (role: string, content: unknown, more = {}) => ({ role, content, ...more });

describe('content that is a list of parts', () => {
  const render = (chat: string, ...messages: object[]) =>
    ChatTemplate.of(tokenizerWith(chat)).render({ messages }, 'messages');
  const parts = [turn('user', [...text('hi '), ...text('you')]), turn('assistant', text('yo'))];

  it('is one text where the template knows texts only', () => {
    const plain = [turn('user', 'hi you'), turn('assistant', 'yo')];
    expect(render(adding, ...parts)).toEqual(render(adding, ...plain));
    expect(render(adding, ...parts).text).toBe('[user]hi you[assistant]yo');
  });

  it('is what a template makes of it that goes through it', () => {
    const going =
      '{% for m in messages %}[{{ m.role }}]{% for part in m.content %}<{{ part.text }}>{% endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';
    expect(render(going, ...parts).text).toBe('[user]<hi ><you>[assistant]<yo>');
  });

  it('that has an image, or no text, is a bad row', () => {
    const image = turn('user', [{ type: 'image_url', image_url: { url: 'a.png' } }]);
    expect(() => render(adding, image, turn('assistant', 'yo'))).toThrow(
      /message 1 has a part of type image_url, expected texts/,
    );
  });

  it.each([
    [42, /content of message 1 \(user\) is 42, expected a text/],
    [null, /is nothing, expected a text/],
    [{ text: 'hi' }, /is {"text":"hi"}/],
  ])('%j is none: a bad row', (content, problem) => {
    expect(() => render(adding, turn('user', content), turn('assistant', 'yo'))).toThrow(problem);
  });
});

describe('what Python refuses or writes otherwise is a bad row', () => {
  const messages = [turn('user', 'hi', { n: 3, o: { a: 1 } }), turn('assistant', 'yo')];
  it.each([
    ["{{ 'a' + messages[0].n }}", /joins a text with the number 3/],
    ["{{ 'a' + messages }}", /joins a text with a list/],
    ["{{ 'a' ~ messages[0].o }}", /joins a text with an object/],
    ['{{ messages[0].o }}', /writes an object as text/],
    ['{{ none }}', /writes none as text/],
    ['{{ messages[0].n == 3 }}', /writes true or false as text/],
  ])('%s', (chat, problem) => {
    const render = () => ChatTemplate.of(tokenizerWith(chat)).render({ messages }, 'messages');
    expect(render).toThrow(problem);
  });

  it('but long sums of texts are written in time', () => {
    const sum = `{{ ${Array(40).fill("'a'").join(' + ')} }}{% for m in messages %}{{ m.content }}{% endfor %}`;
    const { text } = ChatTemplate.of(tokenizerWith(sum)).render({ messages }, 'messages');
    expect(text).toBe(`${'a'.repeat(40)}hiyo`);
  });
});

describe('texts in which nothing is left to learn are bad rows', () => {
  const row = { messages: [turn('user', 'the licence '.repeat(30)), turn('assistant', 'yes')] };

  it('an answer that is cut away, but not one that is cut', () => {
    const encoder = chatEncoder(tokenizerWith(adding), fields);
    const { labels = [] } = encoder.encode(row, undefined)[0]!;
    const first = labels.findIndex((label) => label !== undefined);
    expect(() => encoder.check(row, first)).toThrow(
      `nothing that it is to learn is left in ${first} tokens`,
    );
    encoder.check(row, first + 1);
  });

  it('also where texts are cut at their beginning', () => {
    const tokenizer = tokenizerWith('{% for m in messages %}{{ m.content }}{% endfor %}');
    Object.assign(tokenizer.config, { truncation_side: 'left' });
    const messages = [...row.messages, turn('user', 'more of it '.repeat(30))];
    const encoder = chatEncoder(tokenizer, fields);
    expect(() => encoder.check({ messages }, 20)).toThrow(/nothing that it is to learn is left/);
    encoder.check({ messages }, 2000);
  });

  it('a text of one token, which nothing stands before', () => {
    const tokenizer = TextTokenizer.open(chatTokenizer(folder, undefined));
    const encoder = languageEncoder(tokenizer, {
      texts: ['text'],
      label: undefined,
      isChat: false,
    });
    const { ids = [] } = encoder.encode({ text: 'the' }, 1)[0]!;
    expect(ids).toHaveLength(1);
    expect(() => encoder.check({ text: 'the licence' }, 1)).toThrow(/left in 1 tokens/);
    encoder.check({ text: 'the licence' }, 2);
  });

  it('a conversation that was written as JSON into a text', () => {
    const tokenizer = TextTokenizer.open(chatTokenizer(folder, undefined));
    const encoder = languageEncoder(tokenizer, {
      texts: ['text'],
      label: undefined,
      isChat: false,
    });
    const json = JSON.stringify(row.messages);
    expect(() => encoder.check({ text: json }, 9)).toThrow(/holds a conversation as JSON/);
  });
});

describe('answers that are not to be learned', () => {
  const chat = (bad: object, good: object) => [
    ...[turn('user', 'hi'), turn('assistant', 'bad', bad)],
    ...[turn('user', 'hi'), turn('assistant', 'good', good)],
  ];
  const answersIn = (template: string, messages: object[]) => {
    const { text, answers } = ChatTemplate.of(tokenizerWith(template)).render(
      { messages },
      'messages',
    );
    return answers.map(([start, end]) => text.slice(start, end));
  };
  const marked =
    '{% for m in messages %}[{{ m.role }}]{% if m.role == "assistant" %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}';

  it.each([
    ['weight 0', { weight: 0 }, { weight: 1 }],
    ['train: false', { train: false }, { train: true }],
    ['training: false', { training: false }, {}],
  ])('have %s', (_, bad, good) => {
    for (const template of [adding, marked]) {
      expect(answersIn(template, chat(bad, good))).toEqual(['good']);
    }
  });

  it('leave nothing where all are such: a bad row', () => {
    expect(() => answersIn(adding, chat({ weight: 0 }, { weight: 0 }))).toThrow(
      /all have weight 0/,
    );
  });

  it.each([
    [{ weight: 0.5 }, /weight of message 2 is 0.5, expected 0 or 1/],
    [{ weight: '0' }, /weight of message 2 is "0"/],
    [{ train: 'no' }, /train of message 2 is "no", expected true or false/],
  ])('%j says neither: a bad row', (mark, problem) => {
    expect(() => answersIn(adding, chat(mark, {}))).toThrow(problem);
  });
});

describe('what a template does not write', () => {
  const render = (template: string, row: object) => {
    const notes: string[] = [];
    const tokenizer = tokenizerWith(template);
    const made = ChatTemplate.of(tokenizer, (note) => notes.push(note.split(': ')[1]!));
    return { text: made.render(row as never, 'messages').text, notes };
  };

  it('is told: fields of messages, tools of rows, whole messages', () => {
    const some =
      '{% for m in messages %}{% if m.role != "critic" %}{{ m.content }}{% endif %}{% endfor %}';
    const messages = [
      ...[turn('user', 'hi', { name: 'Ann' }), turn('critic', 'hm'), turn('assistant', 'yo')],
    ];
    expect(render(some, { messages, tools: [{ name: 'clock' }] })).toEqual({
      text: 'hiyo',
      notes: [
        'the chat template does not read name of messages',
        'the chat template changes messages of the role critic, or leaves them out',
        'the chat template does not read tools',
      ],
    });
  });

  it('and was to be learned, calls of tools, is a bad row', () => {
    const messages = [turn('user', 'hi'), turn('assistant', '', { tool_calls: [{ id: 'a' }] })];
    expect(() => render(adding, { messages })).toThrow(/has tool_calls, which the chat template/);
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
