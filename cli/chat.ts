/** A conversation on a terminal, or by the lines of standard input. */
import { createInterface, type Interface } from 'node:readline';
import type { Answer } from '../src/commands/generate/generate.js';
import type { Message } from '../src/data/text/messages.js';
import { OnnxLoraError } from '../src/errors.js';
import { failureText } from './failure.js';
import type { Spelling } from './spelling.js';

/** One question and its answer. */
export interface Turn {
  readonly user: string;
  readonly answer: Answer;
  /** The answer of the model to compare with. */
  readonly comparison?: Answer;
}

export interface ChatPartner {
  readonly adapters: readonly string[];
  readonly adapter: string | undefined;
  /** @throws OnnxLoraError `no-adapter` */
  use(adapter: string | undefined): void;
  /** Answers a conversation that ends with the user's message, and shows the answer. */
  answer(messages: readonly Message[], signal: AbortSignal): Promise<Omit<Turn, 'user'>>;
}

interface ChatStreams {
  readonly input: NodeJS.ReadStream;
  readonly output: NodeJS.WriteStream;
  readonly note: (text: string) => void;
  /** Of options in failures. */
  readonly spelling: Spelling;
}

const HELP =
  '/reset begins anew, /adapter NAME changes the adapter (none: the base model), /quit ends';

/**
 * Answers line after line until the input ends or says /quit. On a terminal Ctrl-C stops an answer, or
 * ends the conversation where there is none, and failures are told and the conversation goes on.
 * @param system the first message, if there is one
 * @throws OnnxLoraError where the input is not a terminal
 */
export async function chat(
  partner: ChatPartner,
  system: string | undefined,
  signal: AbortSignal,
  streams: ChatStreams,
): Promise<Turn[]> {
  const { input, output, note } = streams;
  const isTerminal = Boolean(input.isTTY && output.isTTY);
  const lines = createInterface({
    input,
    terminal: isTerminal,
    prompt: '> ',
    ...(isTerminal ? { output } : {}),
  });
  const conversation = new Conversation(partner, system, new Interruptions(lines, signal), {
    note,
    // On a terminal a mistyped line can be typed again.
    tell: (error) => {
      if (!isTerminal || !(error instanceof OnnxLoraError) || signal.aborted) throw error;
      process.stderr.write(error.code === 'aborted' ? '\n' : failureText(error, streams.spelling));
    },
  });
  if (isTerminal) note(HELP);
  if (isTerminal) lines.prompt();
  for await (const line of lines) {
    if (!(await conversation.take(line))) break;
    if (isTerminal) lines.prompt();
  }
  lines.close();
  return conversation.turns;
}

interface Listeners {
  note(text: string): void;
  /** Throws the error where it ends the conversation. */
  tell(error: unknown): void;
}

/** The messages so far, and what a line does to them. */
class Conversation {
  readonly turns: Turn[] = [];
  private readonly opening: readonly Message[];
  private messages: readonly Message[];

  constructor(
    private readonly partner: ChatPartner,
    system: string | undefined,
    private readonly stop: Interruptions,
    private readonly to: Listeners,
  ) {
    this.opening = system === undefined ? [] : [{ role: 'system', content: system }];
    this.messages = this.opening;
  }

  /** @returns whether the conversation goes on */
  async take(line: string): Promise<boolean> {
    const [command, ...words] = line.trim().split(/\s+/);
    if (command === '/quit') return false;
    try {
      if (command === '/reset') this.messages = this.opening;
      else if (command === '/adapter') chooseAdapter(this.partner, words, this.to.note);
      else if (command?.startsWith('/')) this.to.note(`${command} is not a command here: ${HELP}`);
      else if (command) await this.ask(line);
    } catch (error) {
      this.to.tell(error);
    }
    return true;
  }

  private async ask(line: string): Promise<void> {
    const asked = [...this.messages, { role: 'user', content: line }];
    try {
      const turn = { user: line, ...(await this.partner.answer(asked, this.stop.next())) };
      this.turns.push(turn);
      this.messages = [...asked, { role: 'assistant', content: turn.answer.text }];
    } finally {
      this.stop.done();
    }
  }
}

function chooseAdapter(
  partner: ChatPartner,
  [name]: readonly string[],
  note: (text: string) => void,
): void {
  if (name !== undefined) partner.use(name === 'none' ? undefined : name);
  const choices = ['none', ...partner.adapters];
  const used = partner.adapter ?? 'none';
  note(`adapter ${used}, of ${choices.join(', ')}`);
}

/** Ctrl-C on a terminal that lines are read from. */
class Interruptions {
  private current: AbortController | undefined;

  constructor(
    lines: Interface,
    private readonly outer: AbortSignal,
  ) {
    lines.on('SIGINT', () => {
      if (this.current) this.current.abort();
      else lines.close();
    });
    outer.addEventListener('abort', () => lines.close(), { once: true });
  }

  /** For one answer. */
  next(): AbortSignal {
    this.current = new AbortController();
    return AbortSignal.any([this.outer, this.current.signal]);
  }

  done(): void {
    this.current = undefined;
  }
}
