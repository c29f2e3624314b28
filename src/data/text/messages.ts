/** The messages of a conversation, as a chat template takes them. */
import { BadRow } from '../rows/bad-row.js';
import { brief } from '../rows/brief.js';
import { fieldOf } from '../rows/fields.js';
import type { Row } from '../rows/row.js';

/** A message of a conversation. */
export interface Message {
  /** `system`, `user` or `assistant`, or what else the chat template knows. */
  readonly role: string;
  readonly [field: string]: unknown;
}

export const ASSISTANT = 'assistant';

/**
 * The messages in a field of a row.
 * @throws BadRow for what is not a list of messages, and for a message whose content is not a text, a
 * list of parts, or nothing beside the calls of tools
 */
export function messagesIn(row: Row, field: string): readonly Message[] {
  const value = fieldOf(row, field);
  const isMessage = (one: unknown) => typeof (one as Message | null)?.role === 'string';
  if (!Array.isArray(value) || value.length === 0 || !value.every(isMessage)) {
    throw new BadRow(
      `the field ${field} holds ${brief(value, 60)}, expected a list of messages`,
      'As in [{"role": "user", "content": ".."}, {"role": "assistant", "content": ".."}].',
    );
  }
  value.forEach(checkContent);
  return value;
}

function checkContent(message: Message, i: number): void {
  const { content } = message;
  const calls = callsOf(message, i);
  if (typeof content === 'string' || Array.isArray(content)) return;
  const isNothing = content === null || content === undefined;
  if (isNothing && calls) return;
  const found = isNothing ? 'nothing' : brief(content, 60);
  throw new BadRow(
    `the content of message ${i + 1} (${message.role}) is ${found}, expected a text or a list of parts`,
  );
}

/** Whether an answer calls tools. */
function callsOf({ tool_calls: calls, function_call: call }: Message, i: number): boolean {
  if (calls !== undefined && calls !== null && !Array.isArray(calls)) {
    const found = brief(calls, 60);
    throw new BadRow(`the tool_calls of message ${i + 1} are ${found}, expected a list`);
  }
  return (Array.isArray(calls) && calls.length > 0) || (call !== undefined && call !== null);
}

/**
 * Content that is a list of parts as one text, for templates that know texts only.
 * @throws BadRow for a part that is not a text
 */
export function withPlainContent(messages: readonly Message[]): readonly Message[] {
  return messages.map((message, i) => {
    const { content } = message;
    if (!Array.isArray(content)) return message;
    return { ...message, content: content.map((part) => textOf(part, i)).join('') };
  });
}

const TEXT_TYPES = new Set([undefined, 'text', 'input_text', 'output_text']);

function textOf(part: unknown, message: number): string {
  if (typeof part === 'string') return part;
  const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
  if (typeof text === 'string' && TEXT_TYPES.has(type as string)) return text;
  const found = typeof type === 'string' ? `a part of type ${type}` : brief(part, 60);
  throw new BadRow(
    `the content of message ${message + 1} has ${found.slice(0, 60)}, expected texts: the chat template takes nothing else`,
    'Leave such rows out, or use the chat template of a model that takes them.',
  );
}

/** Marks of rows that say whether an answer is learned; OpenAI's `weight` is another one. */
const MARKS = ['train', 'training', 'loss'];

/**
 * Whether a model is to learn a message: not with `weight` 0, nor where `train`, `training` or `loss` is
 * false.
 * @throws BadRow for marks with another meaning
 */
export function isLearned(message: Message, i: number): boolean {
  const { weight } = message;
  if (weight !== undefined && weight !== null && weight !== 0 && weight !== 1) {
    throw new BadRow(
      `the weight of message ${i + 1} is ${brief(weight, 60)}, expected 0 or 1: answers are learned or not`,
    );
  }
  const marks = MARKS.map((name) => [name, message[name]] as const);
  const odd = marks.find(([, mark]) => typeof (mark ?? true) !== 'boolean');
  if (odd) {
    const found = brief(odd[1], 60);
    throw new BadRow(`${odd[0]} of message ${i + 1} is ${found}, expected true or false`);
  }
  return weight !== 0 && marks.every(([, mark]) => mark !== false);
}

/** Fields with a meaning of their own, which templates do not write. */
export const OWN_FIELDS: ReadonlySet<string> = new Set(['role', 'content', 'weight', ...MARKS]);
