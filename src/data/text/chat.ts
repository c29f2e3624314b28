/** Conversations as one text each, and which parts of it the model is to write. */

import { OnnxLoraError } from '../../errors.js';
import { TimeLimit } from '../../time-limit.js';
import { BadRow } from '../rows/bad-row.js';
import type { Row } from '../rows/row.js';
import { parseTemplate, render, TemplateLimit } from './bounded-template.js';
import {
  ASSISTANT,
  isLearned,
  type Message,
  messagesIn,
  OWN_FIELDS,
  withPlainContent,
} from './messages.js';
import type { Template } from './strict-jinja.js';
import type { TextTokenizer } from './tokenizer.js';

/** A conversation as the template writes it. */
export interface RenderedChat {
  readonly text: string;
  /** The assistant's answers that the model learns: ranges of characters, in their order. */
  readonly answers: readonly (readonly [start: number, end: number])[];
}

// Characters that no text has: Unicode keeps them for programs' own use.
const [OPEN, CLOSE] = ['\uFDD0', '\uFDD1'];

export class ChatTemplate {
  private readonly template: Template;
  /** Whether the template says itself what the assistant generates. */
  private readonly isMarked: boolean;
  /** Whether the template takes content that is a list of parts. */
  private readonly takesParts: boolean;
  /** Notes about the rows so far. */
  private readonly noted = new Set<string>();

  /**
   * @param names the special tokens, as templates call them
   * @throws OnnxLoraError `unsupported` for a template that cannot be read
   */
  constructor(
    private readonly source: string,
    private readonly names: Readonly<Record<string, unknown>>,
    private readonly label: string,
    private readonly onNote: (text: string) => void = () => {},
  ) {
    this.takesParts = PARTS.test(source);
    const marked = source.replace(GENERATION, mark);
    this.isMarked = marked !== source;
    // The day of the run must not change what it learns: templates ask whether there is a clock.
    const timeless = marked.replaceAll('strftime_now', 'no_clock');
    try {
      this.template = parseTemplate(timeless);
    } catch (error) {
      throw new OnnxLoraError(
        'unsupported',
        `${label}: its chat template: ${(error as Error).message}`,
      );
    }
  }

  /**
   * The chat template of a tokenizer.
   * @param onNote called for fields of the rows that have no effect
   * @throws OnnxLoraError `invalid-argument` where it has none
   */
  static of({ config, label }: TextTokenizer, onNote?: (text: string) => void): ChatTemplate {
    const { chat_template: found } = config;
    const named = Array.isArray(found) ? found.find(({ name }) => name === 'default') : undefined;
    const source = typeof found === 'string' ? found : named?.template;
    if (source !== undefined) {
      return new ChatTemplate(source, specialTokens(config), label, onNote);
    }
    throw new OnnxLoraError('invalid-argument', `${label} has no chat template for messages`, {
      hint: 'Put the tokenizer_config.json or chat_template.jinja of a chat model beside it, or give texts with `textField`.',
    });
  }

  /**
   * The whole conversation, with the ranges that are answers of the assistant: what the template marks
   * with `{% generation %}`, else what each answer adds to the conversation before it.
   * @throws BadRow for messages that the template does not take, or without an answer, or where the
   * template changes what comes before an answer
   */
  render(row: Row, field: string): RenderedChat {
    const messages = this.taken(row, messagesIn(row, field));
    const isAnswer = messages.map(({ role }) => role === ASSISTANT);
    const learned = messages.flatMap((message, i) => (isAnswer[i] ? [isLearned(message, i)] : []));
    const rendered = this.isMarked
      ? unmarked(this.write(row, messages, false))
      : this.byPrefixes(row, messages);
    this.noteUnread(row, messages, rendered.text);
    const answers = learnedOf(rendered.answers, learned);
    if (answers.some(([start, end]) => end > start)) return { ...rendered, answers };
    const problem = learned.includes(true)
      ? 'in which the chat template writes anything'
      : learned.length > 0
        ? 'that is to be learned: all have weight 0'
        : `of the role ${ASSISTANT}`;
    throw new BadRow(`the messages in ${field} have no answer ${problem}`);
  }

  /**
   * A conversation up to where the assistant is to answer.
   * @throws BadRow for messages that the template does not take
   */
  prompt(messages: readonly Message[]): string {
    const row = { messages };
    return this.write(row, this.taken(row, messagesIn(row, 'messages')), true);
  }

  /** The text that the template writes after an answer; empty where that cannot be told. */
  afterAnswer(messages: readonly Message[]): string {
    const row = { messages };
    const content = 'answer';
    const answered = [...messages, { role: ASSISTANT, content }];
    const [text] = [this.write(row, this.taken(row, answered), false)];
    const { text: plain } = this.isMarked ? unmarked(text) : { text };
    return plain.slice(plain.lastIndexOf(content) + content.length);
  }

  /** Lists of parts as the template takes them: as they are, or as one text. */
  private taken(row: Row, messages: readonly Message[]): readonly Message[] {
    if (!this.takesParts || !messages.some(({ content }) => Array.isArray(content))) {
      return withPlainContent(messages);
    }
    try {
      this.write(row, messages, false);
      return messages;
    } catch (error) {
      // It may take them from some roles only.
      if (!(error instanceof BadRow)) throw error;
      return withPlainContent(messages);
    }
  }

  /** Notes once which fields of the rows do not appear in the text. */
  private noteUnread(row: Row, messages: readonly Message[], text: string): void {
    messages.forEach((message, i) => {
      if (message.tool_calls && !this.reads('tool_calls')) {
        throw new BadRow(
          `message ${i + 1} has tool_calls, which the chat template does not write`,
          'Use the chat template of a model that calls tools.',
        );
      }
      for (const [field, value] of Object.entries(message)) {
        if (value === null || OWN_FIELDS.has(field) || this.reads(field)) continue;
        this.note(`the chat template does not read ${field} of messages`);
      }
      const { role, content } = message;
      if (typeof content !== 'string' || text.includes(content.trim())) return;
      this.note(`the chat template changes messages of the role ${role}, or leaves them out`);
    });
    for (const field of ['tools', 'documents']) {
      if (row[field] && !this.reads(field)) this.note(`the chat template does not read ${field}`);
    }
  }

  private reads(field: string): boolean {
    return this.source.includes(field);
  }

  private note(text: string): void {
    if (this.noted.has(text)) return;
    this.noted.add(text);
    this.onNote(`${this.label}: ${text}`);
  }

  /** Not for one row alone. */
  private endless(error: Error): OnnxLoraError {
    return new OnnxLoraError('invalid-data', `${this.label}: its chat template: ${error.message}`, {
      hint: 'Conversations take some milliseconds: take the template from where the model comes from.',
      cause: error,
    });
  }

  private byPrefixes(row: Row, messages: readonly Message[]): RenderedChat {
    const text = this.write(row, messages, false);
    const answers = messages.flatMap(({ role }, i) => {
      if (role !== ASSISTANT) return [];
      const before = this.write(row, messages.slice(0, i), true);
      const through = this.write(row, messages.slice(0, i + 1), false);
      if (!through.startsWith(before) || !text.startsWith(through)) throw changing(i);
      return [[before.length, through.length] as const];
    });
    return { text, answers };
  }

  private write(row: Row, messages: readonly Message[], prompt: boolean): string {
    const { tools, documents } = row;
    const given = { ...(tools ? { tools } : {}), ...(documents ? { documents } : {}) };
    try {
      const context = { ...this.names, ...given, messages, add_generation_prompt: prompt };
      return render(this.template, context);
    } catch (error) {
      if (error instanceof TemplateLimit || error instanceof TimeLimit) throw this.endless(error);
      throw new BadRow(`the chat template takes no such messages: ${(error as Error).message}`);
    }
  }
}

/** A tag with the white space that `lstrip_blocks` and `trim_blocks` of Jinja take from around it. */
const GENERATION = /(?:^[ \t]*)?\{%(-?)\s*(end)?generation\s*(-?)%\}\n?/gm;

function mark(_tag: string, left: string, end: string | undefined, right: string): string {
  return `{{${left} "${end ? CLOSE : OPEN}" ${right}}}`;
}

/** A template that goes through content, or asks what it is. */
const PARTS =
  /\bfor\s+[\w\s,]+\bin\s+[\w.[\]'"]*content\b|\bcontent['"\]]*\s+is\s+(?:not\s+)?(?:string|iterable|sequence|mapping)\b/;

/** The answers that are learned; by their order, for a template does not say whose answer is which. */
function learnedOf(answers: RenderedChat['answers'], learned: readonly boolean[]) {
  if (learned.every((one) => one)) return answers;
  if (answers.length === learned.length) return answers.filter((_, i) => learned[i]);
  throw new BadRow(
    `the chat template marks ${answers.length} answers of ${learned.length}, so it is not known which one has weight 0`,
  );
}

function unmarked(marked: string): RenderedChat {
  let text = '';
  const answers: [number, number][] = [];
  for (const part of marked.split(OPEN)) {
    const end = part.indexOf(CLOSE);
    if (end >= 0) answers.push([text.length, text.length + end]);
    text += part.replace(CLOSE, '');
  }
  return { text, answers };
}

function changing(message: number): BadRow {
  return new BadRow(
    `the chat template writes what comes before message ${message + 1} differently once it is there, so its answer cannot be found`,
    'Mark the answer in the template with {% generation %} and {% endgeneration %}, or split the conversation: one answer a row, as its last message.',
  );
}

function specialTokens(config: TextTokenizer['config']): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).filter(([name]) => name.endsWith('_token')));
}

/**
 * The number of tokens that lie before a place in a text, as far as they are the same when the text
 * ends there: a token that reaches over the place is not counted.
 */
export function tokensBefore(
  ids: readonly number[],
  tokenizer: TextTokenizer,
  text: string,
): number {
  const before = tokenizer.encode([text], { special: false }).ids;
  const end = before.findIndex((id, i) => id !== ids[i]);
  return end < 0 ? Math.min(before.length, ids.length) : end;
}
