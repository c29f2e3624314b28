import type { OpenedModel } from '../../adapters/model/opened.js';
import { OnnxLoraError } from '../../errors.js';

/**
 * Checks that a model's changes are in its weights, where they can be fitted.
 * @throws OnnxLoraError `unsupported` for a model with adapters
 */
export function checkWithoutAdapters({ patched, label }: OpenedModel): void {
  if (patched.sets.length === 0) return;
  throw new OnnxLoraError(
    'unsupported',
    `${label} carries adapters, expected a model whose changes are in its weights`,
    { hint: 'Fold them first: `merge(model)`' },
  );
}
