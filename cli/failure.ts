/** Texts of failures, and the exit status of each kind. */
import { OnnxLoraError } from '../src/errors.js';
import { fileError } from '../src/onnx/source.js';
import { version } from '../src/version.js';
import type { Spelling } from './spelling.js';
import { printable } from './text.js';
import { colorsOf } from './ui.js';

export const exitCodes = { done: 0, input: 1, verification: 2, bug: 70, interrupted: 130 } as const;

const asItIs: Spelling = (text) => text;

/** An error of the system is not a bug of ours, wherever it came from. */
function known(error: unknown): unknown {
  const { syscall, path, code } = (error ?? {}) as NodeJS.ErrnoException;
  if (typeof syscall !== 'string' || typeof code !== 'string') return error;
  return error instanceof Error ? fileError(path ?? `system call ${syscall}`, error) : error;
}

/** The names of options in the texts of a failure, as the command line spells them. */
function spelledError(failure: unknown, spelling: Spelling): unknown {
  const error = known(failure);
  if (!(error instanceof OnnxLoraError)) return error;
  const { code, message, node, hint, cause } = error;
  const details = { node, hint: hint === undefined ? hint : spelling(hint), cause };
  return new OnnxLoraError(code, spelling(message), details);
}

/**
 * A failure as `--json` has it.
 * @param spelling of the options in its texts
 */
export function failureResult(failure: unknown, spelling: Spelling = asItIs): object {
  const error = spelledError(failure, spelling);
  if (!(error instanceof OnnxLoraError)) {
    return { error: { code: 'internal', message: messageOf(error) } };
  }
  const { code, message, node, hint } = error;
  return { error: { code, message, node, hint } };
}

/**
 * A failure as people read it, with its newline.
 * @param spelling of the options in its texts
 */
export function failureText(failure: unknown, spelling: Spelling = asItIs): string {
  const error = spelledError(failure, spelling);
  const { red, bold } = colorsOf(process.stderr);
  const label = red(bold('error:'));
  if (error instanceof OnnxLoraError) return `${label} ${userText(error)}`;
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return `${label} a bug in onnx-lora ${version}, node ${process.version}, ${process.platform}-${process.arch}
${stack}
Please report it, with these lines and the command, to whoever maintains your copy of onnx-lora.
`;
}

function userText({ message, node, hint }: OnnxLoraError): string {
  const where = node !== undefined && !message.includes(node) ? ` (node ${node})` : '';
  const lines = [oneLine(message + where), ...(hint?.split('\n') ?? []).map(indented)];
  return `${lines.join('\n')}\n`;
}

// Messages of ONNX Runtime come in several lines.
function oneLine(text: string): string {
  return printable(text.trim().replace(/\s*\n\s*/g, ' '));
}

function indented(line: string): string {
  return `  ${printable(line)}`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The exit status for a failure. */
export function exitCodeOf(failure: unknown): number {
  const error = known(failure);
  if (!(error instanceof OnnxLoraError)) return exitCodes.bug;
  if (error.code === 'aborted') return exitCodes.interrupted;
  return error.code === 'verification' ? exitCodes.verification : exitCodes.input;
}
