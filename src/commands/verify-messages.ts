/** What a check in a process of its own is told, and what it tells. */
import type { ErrorCode } from '../errors.js';
import type { Progress } from '../onnx/write.js';
import type { Verification } from '../runtime/verification.js';
import type { MergeOptions } from './unmerged.js';

export interface ToCheck {
  readonly path: string;
  readonly output: string;
  readonly options: Omit<MergeOptions, 'signal' | 'onProgress'>;
}

export type FromCheck =
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'done'; readonly result: Verification }
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode;
      readonly message: string;
      readonly node: string | undefined;
      readonly hint: string | undefined;
    };
