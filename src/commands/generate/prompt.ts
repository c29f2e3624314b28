/** The question to a model, as the numbers of tokens, and the tokens that end its answer. */
import { BadRow } from '../../data/rows/bad-row.js';
import { ChatTemplate } from '../../data/text/chat.js';
import type { Message } from '../../data/text/messages.js';
import type { Encoding, TextTokenizer } from '../../data/text/tokenizer.js';
import { OnnxLoraError } from '../../errors.js';

/** A text to continue, or a conversation to answer. */
export type Prompt = string | readonly Message[];

export class Prompts {
  private template: ChatTemplate | undefined;

  constructor(
    private readonly tokenizer: TextTokenizer,
    private readonly onNote?: (text: string) => void,
  ) {}

  /**
   * Texts with the special tokens that the tokenizer puts before them, conversations by the chat template.
   * @throws OnnxLoraError `invalid-argument` for a conversation where there is no template, or that it
   * does not take, and for a prompt of no tokens; `invalid-data`
   */
  encode(prompt: Prompt): readonly number[] {
    const { tokenizer } = this;
    const ids =
      typeof prompt === 'string'
        ? this.opened(prompt)
        : tokenizer.encode([this.rendered(prompt)], { special: false }).ids;
    if (ids.length > 0) return ids;
    throw new OnnxLoraError('invalid-argument', 'the prompt has no tokens, expected one or more', {
      hint: 'Give the beginning of a text.',
    });
  }

  /** The special token that the template writes after an answer, if it does. */
  endOfAnswer(prompt: Prompt): readonly number[] {
    if (typeof prompt === 'string') return [];
    const { tokenizer } = this;
    const after = written(() => this.chat.afterAnswer(prompt)).trimStart();
    const [first] = after === '' ? [] : tokenizer.encode([after], { special: false }).ids;
    return this.isSpecial(first) ? [first] : [];
  }

  /** A text that goes on: without the special token that the tokenizer puts after it. */
  private opened(text: string): readonly number[] {
    const [{ ids }, plain] = [true, false].map((special) =>
      this.tokenizer.encode([text], { special }),
    ) as [Encoding, Encoding];
    const last = ids.at(-1);
    return last !== plain.ids.at(-1) && this.isSpecial(last) ? ids.slice(0, -1) : ids;
  }

  /** Special tokens are not part of a text. */
  private isSpecial(id: number | undefined): id is number {
    return id !== undefined && this.tokenizer.decode([id]) === '';
  }

  /** @throws OnnxLoraError `invalid-argument` where the tokenizer has no chat template */
  requireTemplate(): void {
    this.template = this.chat;
  }

  private rendered(messages: readonly Message[]): string {
    return written(() => this.chat.prompt(messages));
  }

  private get chat(): ChatTemplate {
    this.template ??= this.templateOf();
    return this.template;
  }

  private templateOf(): ChatTemplate {
    const { tokenizer } = this;
    if (tokenizer.config.chat_template) return ChatTemplate.of(tokenizer, this.onNote);
    throw new OnnxLoraError(
      'invalid-argument',
      `${tokenizer.label} has no chat template for a conversation`,
      {
        hint: 'Put the tokenizer_config.json or chat_template.jinja of a chat model beside it, or let a text be continued with `prompt` alone.',
      },
    );
  }
}

/** Problems of rows as problems of the messages that were given. */
function written(write: () => string): string {
  try {
    return write();
  } catch (error) {
    if (!(error instanceof BadRow)) throw error;
    throw new OnnxLoraError('invalid-argument', error.message, { hint: error.hint, cause: error });
  }
}
