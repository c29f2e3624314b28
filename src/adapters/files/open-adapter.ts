import { closeSync, openSync, readSync } from 'node:fs';
import { kindOf } from '../../formats/path-kind.js';
import { isPeft } from '../../formats/peft/folder.js';
import { openSafetensors } from '../../formats/safetensors.js';
import { fileError } from '../../onnx/source.js';
import type { AdapterFormat } from '../structure/choices.js';
import { type AdapterFile, FORMAT, openAdapterFile } from './adapter-file.js';
import { openOnnxAdapter } from './onnx-adapter.js';
import { openPeftFile } from './peft-file.js';

/**
 * Opens adapters of any format; numbers are read when asked for.
 * @param path a file of onnx-lora, a folder of PEFT or a file in it, or an .onnx_adapter
 * @param format default: what the file or folder looks like
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `io`, `invalid-adapter`, `invalid-manifest`,
 * `unsupported`
 */
export function openAdapter(path: string, format = formatAt(path)): AdapterFile {
  switch (format) {
    case 'peft':
      return openPeftFile(path);
    case 'onnx_adapter':
      return openOnnxAdapter(path);
    case 'safetensors':
      return openAdapterFile(path);
  }
}

function formatAt(path: string): AdapterFormat {
  const isFile = kindOf(path) === 'file';
  if (path.endsWith('.onnx_adapter') || (isFile && isOnnxAdapter(path))) return 'onnx_adapter';
  const isOwn = isFile && path.endsWith('.safetensors') && isOwnFile(path);
  return !isOwn && isPeft(path) ? 'peft' : 'safetensors';
}

/** The file identifier of ONNX Runtime's adapters, after the offset that a FlatBuffer starts with. */
const IDENTIFIER = { offset: 4, text: 'TORT' };

function isOnnxAdapter(path: string): boolean {
  const file = opened(path);
  try {
    const bytes = Buffer.alloc(IDENTIFIER.text.length);
    readSync(file, bytes, 0, bytes.length, IDENTIFIER.offset);
    return bytes.toString('latin1') === IDENTIFIER.text;
  } finally {
    closeSync(file);
  }
}

function opened(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    throw fileError(path, error);
  }
}

function isOwnFile(path: string): boolean {
  const file = openSafetensors(path);
  try {
    return file.metadata.format === FORMAT;
  } finally {
    file.close();
  }
}
