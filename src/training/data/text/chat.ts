/** Conversations as one text each, and which parts of it the model is to write. */

import { Template } from '@huggingface/jinja';
import { OnnxLoraError } from '../../../errors.js';
import { BadRow } from '../rows/bad-row.js';
import { brief } from '../rows/brief.js';
import { fieldOf } from '../rows/fields.js';
import type { Row } from '../rows/row.js';
import type { TextTokenizer } from './tokenizer.js';

/** A conversation as the template writes it. */
export interface RenderedChat {
  readonly text: string;
  /** What the assistant says: ranges of characters, in their order. */
  readonly answers: readonly (readonly [start: number, end: number])[];
}

interface Message {
  readonly role: string;
  readonly [field: string]: unknown;
}

const ASSISTANT = 'assistant';

// Characters that no text has: Unicode keeps them for programs' own use.
const [OPEN, CLOSE] = ['\uFDD0', '\uFDD1'];

export class ChatTemplate {
  private readonly template: Template;
  /** Whether the template says itself what the assistant generates. */
  private readonly isMarked: boolean;

  /**
   * @param names the special tokens, as templates call them
   * @throws OnnxLoraError `unsupported` for a template that cannot be read
   */
  constructor(
    source: string,
    private readonly names: Readonly<Record<string, unknown>>,
    label: string,
  ) {
    const marked = source.replace(GENERATION, mark);
    this.isMarked = marked !== source;
    // The day of the run must not change what it learns: templates ask whether there is a clock.
    const timeless = marked.replaceAll('strftime_now', 'no_clock');
    try {
      this.template = new Template(timeless);
    } catch (error) {
      throw new OnnxLoraError(
        'unsupported',
        `${label}: its chat template: ${(error as Error).message}`,
      );
    }
  }

  /**
   * The chat template of a tokenizer.
   * @throws OnnxLoraError `invalid-argument` where it has none
   */
  static of({ config, label }: TextTokenizer): ChatTemplate {
    const { chat_template: found } = config;
    const named = Array.isArray(found) ? found.find(({ name }) => name === 'default') : undefined;
    const source = typeof found === 'string' ? found : named?.template;
    if (source !== undefined) return new ChatTemplate(source, specialTokens(config), label);
    throw new OnnxLoraError('invalid-argument', `${label} has no chat template for messages`, {
      hint: 'Put the tokenizer_config.json or chat_template.jinja of a chat model beside it, or give texts with --text-field.',
    });
  }

  /**
   * The whole conversation, with the ranges that are answers of the assistant: what the template marks
   * with `{% generation %}`, else what each answer adds to the conversation before it.
   * @throws BadRow for messages that the template does not take, or without an answer, or where the
   * template changes what comes before an answer
   */
  render(row: Row, field: string): RenderedChat {
    const messages = messagesIn(row, field);
    const rendered = this.isMarked
      ? unmarked(this.write(row, messages, false))
      : this.byPrefixes(row, messages);
    if (rendered.answers.length > 0) return rendered;
    throw new BadRow(`the messages in ${field} have no answer of the role ${ASSISTANT}`);
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
      return this.template.render(context);
    } catch (error) {
      throw new BadRow(`the chat template takes no such messages: ${(error as Error).message}`);
    }
  }
}

/** A tag with the white space that `lstrip_blocks` and `trim_blocks` of Jinja take from around it. */
const GENERATION = /(?:^[ \t]*)?\{%(-?)\s*(end)?generation\s*(-?)%\}\n?/gm;

function mark(_tag: string, left: string, end: string | undefined, right: string): string {
  return `{{${left} "${end ? CLOSE : OPEN}" ${right}}}`;
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

function messagesIn(row: Row, field: string): readonly Message[] {
  const value = fieldOf(row, field);
  const isMessage = (one: unknown) => typeof (one as Message | null)?.role === 'string';
  if (Array.isArray(value) && value.length > 0 && value.every(isMessage)) return value;
  throw new BadRow(
    `the field ${field} holds ${brief(value, 60)}, expected a list of messages`,
    'As in [{"role": "user", "content": ".."}, {"role": "assistant", "content": ".."}].',
  );
}

function changing(message: number): BadRow {
  return new BadRow(
    `the chat template writes what comes before message ${message + 1} differently once it is there, so it cannot be told what is its answer`,
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
