import { OnnxLoraError } from '../../errors.js';

/** @throws OnnxLoraError `invalid-argument` for a share that is not one */
export function checkSmoothing(share: number): void {
  if (share >= 0 && share < 1) return;
  const message = `label smoothing has to be at least 0 and below 1, found ${share}`;
  throw new OnnxLoraError('invalid-argument', message);
}
