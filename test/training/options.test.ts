import { describe, expect, it } from 'vitest';
import { resolveTrainOptions } from '../../src/commands/options/train.js';

const given = { data: 'data.safetensors', loss: 'mse' } as const;

describe('the options of training', () => {
  it('have the defaults of their optimizer', () => {
    expect(resolveTrainOptions(given)).toMatchObject({
      ...{ optimizer: 'adamw', lr: 5e-4, betas: [0.9, 0.999], eps: 1e-8, lrRatio: 1 },
    });
    expect(resolveTrainOptions({ ...given, optimizer: 'lion' })).toMatchObject({
      ...{ lr: 1e-4, betas: [0.9, 0.99], weightDecay: 0.01 },
    });
    expect(resolveTrainOptions({ ...given, optimizer: 'sgd' })).toMatchObject({
      ...{ lr: 5e-4, momentum: 0.9 },
    });
  });

  it.each([
    [{ momentum: 0.9 }, '`momentum` has no effect without `optimizer` sgd'],
    [
      { optimizer: 'sgd', betas: [0, 0] },
      '`betas` has no effect without `optimizer` lion or adamw',
    ],
    [{ optimizer: 'lion', eps: 1 }, '`eps` has no effect without `optimizer` adamw'],
    [{ optimizer: 'adam' as 'adamw' }, '`optimizer` is "adam", expected sgd, lion or adamw'],
    [{ lrRatio: 0 }, '`lrRatio` is 0, expected a number above 0'],
    [{ lrRatio: Number.NaN }, '`lrRatio` is NaN, expected a number up to 3.4e38'],
  ] as const)('are refused: %o', (options, message) => {
    expect(() => resolveTrainOptions({ ...given, ...options })).toThrow(message);
  });
});
