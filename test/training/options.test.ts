import { describe, expect, it } from 'vitest';
import { resolveOptions } from '../../src/training/options.js';

const given = { data: 'data.safetensors', loss: 'mse' } as const;

describe('the options of training', () => {
  it('have the defaults of their optimizer', () => {
    expect(resolveOptions(given)).toMatchObject({
      ...{ optimizer: 'adamw', lr: 5e-4, betas: [0.9, 0.999], eps: 1e-8, lrRatio: 1 },
    });
    expect(resolveOptions({ ...given, optimizer: 'lion' })).toMatchObject({
      ...{ lr: 1e-4, betas: [0.9, 0.99], weightDecay: 0.01 },
    });
    expect(resolveOptions({ ...given, optimizer: 'sgd' })).toMatchObject({
      ...{ lr: 5e-4, momentum: 0.9 },
    });
  });

  it.each([
    [{ momentum: 0.9 }, 'momentum is an option of sgd, not of adamw'],
    [{ optimizer: 'sgd', betas: [0, 0] }, 'betas is an option of lion and adamw, not of sgd'],
    [{ optimizer: 'lion', eps: 1 }, 'eps is an option of adamw, not of lion'],
    [{ optimizer: 'adam' as 'adamw' }, 'optimizer is adam, expected one of sgd, lion, adamw'],
    [{ lrRatio: 0 }, 'lrRatio is 0, expected more than 0'],
    [{ lrRatio: Number.NaN }, 'lrRatio is NaN, expected a finite number'],
  ] as const)('are refused: %o', (options, message) => {
    expect(() => resolveOptions({ ...given, ...options })).toThrow(message);
  });
});
