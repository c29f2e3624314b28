import { OnnxLoraError } from '../../errors.js';

export interface BindOptions {
  /** Leave out what has no home in the model instead of refusing all of it. */
  readonly allowUnmatched?: boolean | undefined;
  /** `OLD=NEW`: module paths that begin with OLD begin with NEW in the model. Default: as they fit. */
  readonly peftPrefix?: string | undefined;
}

/** @throws OnnxLoraError `invalid-argument` where no adapters come from a file, and options say how */
export function checkNoBindOptions({ allowUnmatched, peftPrefix }: BindOptions): void {
  if (!allowUnmatched && peftPrefix === undefined) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `${allowUnmatched ? 'allowUnmatched' : 'peftPrefix'} has no effect without the adapters of a file (--adapter)`,
  );
}
