/** Messages of ONNX Runtime in one line, without the parts that only its own developers can use. */
import { stripVTControlCharacters } from 'node:util';
import { type ErrorCode, OnnxLoraError } from '../errors.js';

const MAX_CHARACTERS = 500;

// Its messages contain names of the model, of any length.
const MAX_READ = 8192;

// GCC and Clang name the whole signature, MSVC the qualified name only.
const LOCATION = String.raw`(?<!\S)\S+\.(?:cc|cpp|cxx|h|hpp|cu|cuh|mm):\d+ `;
const FAILED_CHECK = String.raw`[^\n]*? was false\. ?`;
const PARENTHESES = String.raw`\([^()]*(?:\([^()]*\)[^()]*)*\)`;
const SIGNATURE = String.raw`[^()\n]*::[^\s()]+${PARENTHESES}(?: const)?(?:::<\S*>\S*)?(?: \[with [^\]]*\])? `;
const SOURCE = new RegExp(`${LOCATION}(?:${FAILED_CHECK}|${SIGNATURE}|\\S+ )`, 'g');

const NODE_FAILED =
  /Non-zero status code returned while running (\S+) node\. Name:'([^']*)' Status Message: /;
const NOISE = /\[ONNXRuntimeError\] : \d+ : \w+ : |OrtSessionOptionsAppendExecutionProvider_\w+: /g;

/** One line of ONNX Runtime's text: no colours, no places in its own source files. */
export function plainMessage(text: string): string {
  const plain = stripVTControlCharacters(text.slice(0, MAX_READ))
    .replace(SOURCE, '')
    .replace(NOISE, '')
    .replace(NODE_FAILED, (_, op: string, name: string) => `${op} ${name || 'node'}: `)
    .replace(/\s+/g, ' ')
    .trim();
  return plain.length > MAX_CHARACTERS ? `${plain.slice(0, MAX_CHARACTERS)}…` : plain;
}

/** The node that a failed run stopped at. */
function failedNode(text: string): string | undefined {
  return NODE_FAILED.exec(text)?.[2] || undefined;
}

/** An error of ONNX Runtime as ours. `what` says what was tried, for example the model's name. */
export function runtimeError(
  what: string,
  error: unknown,
  hint: string,
  code: ErrorCode = 'runtime',
): OnnxLoraError {
  const text = error instanceof Error ? error.message : String(error);
  return new OnnxLoraError(code, `${what}: ${plainMessage(text)}`, {
    node: failedNode(text),
    hint,
    cause: error,
  });
}
