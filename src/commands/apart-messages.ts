/** Messages to and from work in a process of its own. */
import type { ErrorCode } from '../errors.js';
import type { Progress } from '../onnx/write.js';

/** Work that runs models: each is a function that `apart-child.ts` finds. */
export type WorkName =
  | 'add-adapters'
  | 'add-slots'
  | 'advise'
  | 'evaluate'
  | 'train'
  | 'verify-merged';

export type ToApart =
  | {
      readonly kind: 'start';
      readonly work: WorkName;
      readonly paths: readonly string[];
      /** Without functions, which no other process can call. */
      readonly options: object;
    }
  | { readonly kind: 'stop' };

export type FromApart =
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'done'; readonly result: unknown }
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode;
      readonly message: string;
      readonly node: string | undefined;
      readonly hint: string | undefined;
    }
  /** A bug: an error that is not one of ours. */
  | { readonly kind: 'broken'; readonly error: unknown };
