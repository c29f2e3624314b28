/** Messages between the caller's thread and the training thread. */
import type { ErrorCode } from '../../errors.js';
import type { Progress } from '../../onnx/write.js';
import type { ResolvedTrainOptions } from '../options/train.js';
import type { TrainResult } from './result.js';

/** Functions and signals do not travel between threads. */
export interface WorkerTask {
  readonly path: string;
  readonly options: Omit<ResolvedTrainOptions, 'signal' | 'onProgress' | 'onNote'>;
}

export type ToWorker = 'stop';

export type FromWorker =
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'done'; readonly result: TrainResult }
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode;
      readonly message: string;
      readonly node: string | undefined;
      readonly hint: string | undefined;
    };
