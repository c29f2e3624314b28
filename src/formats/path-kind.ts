import { statSync } from 'node:fs';
import { fileError } from '../onnx/source.js';

export type PathKind = 'none' | 'file' | 'folder' | 'other';

/**
 * The kind of thing at a path; links are followed.
 * @throws OnnxLoraError `io` where that may not be known
 */
export function kindOf(path: string): PathKind {
  try {
    const stat = statSync(path);
    if (stat.isDirectory()) return 'folder';
    return stat.isFile() ? 'file' : 'other';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return 'none';
    throw fileError(path, error);
  }
}
