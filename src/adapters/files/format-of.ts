/** The format of adapters that a path names. */
import { extname } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { kindOf } from '../../formats/path-kind.js';
import type { AdapterFormat } from '../structure/choices.js';

/**
 * The format that a path names: by its ending, or a PEFT folder where it has none, ends in a slash, or
 * is a folder already; undefined for another ending.
 */
export function formatByName(output: string): AdapterFormat | undefined {
  const ending = extname(output);
  if (ending === '.safetensors') return 'safetensors';
  if (ending === '.onnx_adapter') return 'onnx_adapter';
  const isFolder = ending === '' || /[/\\]$/.test(output) || kindOf(output) === 'folder';
  return isFolder ? 'peft' : undefined;
}

/**
 * The format that a path names, as {@link formatByName}.
 * @throws OnnxLoraError `invalid-argument` for an ending that names none
 */
export function formatOf(output: string): AdapterFormat {
  const format = formatByName(output);
  if (format !== undefined) return format;
  throw new OnnxLoraError(
    'invalid-argument',
    `${output}: its ending names no adapter format, expected .safetensors, .onnx_adapter, or none for a PEFT folder`,
    { hint: 'Give the output a known ending, or name the format with `format`.' },
  );
}
