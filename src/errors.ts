/**
 * A failure, in the terms of the user's own input. The CLI prints it as one line and exits
 * with 1; anything else that is thrown is a bug of ours.
 */
export type ErrorCode =
  | 'invalid-argument'
  | 'file-not-found'
  | 'not-a-file'
  | 'io'
  | 'output-exists'
  | 'invalid-model'
  | 'invalid-data'
  | 'external-data'
  | 'unsupported'
  | 'no-target'
  | 'no-match'
  | 'no-adapter'
  | 'invalid-adapter'
  | 'adapter-mismatch'
  | 'model-mismatch'
  | 'unchanged'
  | 'invalid-manifest'
  | 'provider'
  | 'runtime'
  | 'verification'
  | 'diverged'
  | 'checkpoint'
  | 'aborted';

/** Details of an error beside its message. */
export interface ErrorDetails {
  /** The node the error is about. */
  node?: string | undefined;
  /** Advice for the user. */
  hint?: string | undefined;
  /** The error that led to this one. */
  cause?: unknown;
}

/**
 * The one error type of the library: `code` for programs, `message` and `hint` for people.
 * @example
 * ```ts
 * import { OnnxLoraError, patch } from 'onnx-lora';
 *
 * try {
 *   await patch('model.onnx', { targets: ['q_proj'] });
 * } catch (error) {
 *   if (!(error instanceof OnnxLoraError)) throw error;
 *   console.error(error.code, error.message, error.hint); // no-match ..
 * }
 * ```
 */
export class OnnxLoraError extends Error {
  /** Of the class, for messages. */
  override readonly name = 'OnnxLoraError';
  /** The kind of failure, to branch on; `docs/troubleshooting.md` explains each. */
  readonly code: ErrorCode;
  /** The node of the model that it is about. */
  readonly node: string | undefined;
  /** Advice on what to do about it. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(oneLine(message), details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.node = details.node === undefined ? undefined : oneLine(details.node);
    this.hint = details.hint;
  }
}

// Names come from files that are not trusted: an error stays one line that fits a screen.
const MAX_MESSAGE = 2000;

function oneLine(text: string): string {
  const cut = text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE)}…` : text;
  return cut.replace(/\p{Cc}/gu, (char) => JSON.stringify(char).slice(1, -1));
}
