import { describe, expect, expectTypeOf, test } from 'vitest';
import { OnnxLoraError } from '../../src/errors.js';
import { optionsByChoice } from '../../src/options/by-choice.js';
import {
  handler,
  type OptionsOf,
  option,
  optional,
  type ResolvedOf,
} from '../../src/options/option.js';
import { resolveOptions } from '../../src/options/resolve.js';
import { callback, choice, list, path, toggle, whole } from '../../src/options/schemas.js';

const texts = { group: 'General', summary: 'a thing', example: '--thing 1' } as const;

const losses = {
  mse: { options: {} },
  ctc: { options: { blank: option(whole(0), { ...texts, default: 0 }) } },
};

const table = {
  data: option(path, { ...texts, summary: 'samples', required: true }),
  evalData: option(path, texts),
  evalEvery: option(whole(1), { ...texts, needs: ['evalData'] }),
  batchSize: option(whole(1), { ...texts, default: 8 }),
  epochs: option(whole(1), { ...texts, notWith: ['steps'] }),
  steps: option(whole(1), texts),
  shuffle: option(toggle, { ...texts, default: true }),
  seed: option(whole(0), { ...texts, needs: ['shuffle'] }),
  loss: option(choice(['mse', 'ctc']), { ...texts, default: 'mse' }),
  targets: option(list(path), texts),
  ...optionsByChoice('loss', losses),
  onNote: handler(callback<(text: string) => void>()),
};

type Options = OptionsOf<typeof table>;
const resolve = (options: Options) => resolveOptions(table, options, 'train');

function failureOf(options: object): OnnxLoraError {
  try {
    resolve(options as Options);
  } catch (error) {
    expect(error).toBeInstanceOf(OnnxLoraError);
    return error as OnnxLoraError;
  }
  throw new Error('it was taken');
}

describe('options of a table', () => {
  test('are filled in by their defaults', () => {
    expect(resolve({ data: 'a.npz' })).toEqual({
      ...{ data: 'a.npz', batchSize: 8, shuffle: true, loss: 'mse' },
    });
    expect(resolve({ data: 'a.npz', loss: 'ctc' })).toMatchObject({ loss: 'ctc', blank: 0 });
  });

  test('are as they were given', () => {
    const onNote = () => {};
    const options = { data: 'a', evalData: 'b', evalEvery: 2, steps: 3, shuffle: false, onNote };
    expect(resolve(options)).toMatchObject(options);
  });

  test.each<[object, string]>([
    [{ batchSize: 0 }, '`batchSize` is 0, expected a whole number from 1 on'],
    [{ batchSize: 1.5 }, '`batchSize` is 1.5, expected a whole number from 1 on'],
    [{ batchSize: '8' }, '`batchSize` is "8", expected a whole number from 1 on'],
    [{ batchSize: Number.NaN }, '`batchSize` is NaN, expected a whole number from 1 on'],
    [{ loss: 'ctx' }, '`loss` is "ctx", expected mse or ctc'],
    [{ shuffle: 'no' }, '`shuffle` is "no", expected true or false'],
    [{ evalData: '' }, '`evalData` is empty, expected a path'],
    [{ targets: ['a', 3] }, '`targets`[1] is 3, expected a path'],
    [{ targets: [] }, '`targets` is [], expected one or more'],
    [{ onNote: 'text' }, '`onNote` is "text", expected a function'],
    [{ batchsize: 8 }, 'unknown option `batchsize` of train'],
    [{ toString: 8 }, 'unknown option `toString` of train'],
    [{ data: undefined }, 'train needs `data`: samples'],
    [{ evalEvery: 3 }, '`evalEvery` has no effect without `evalData`'],
    [{ seed: 3, shuffle: false }, '`seed` has no effect without `shuffle`'],
    [{ epochs: 3, steps: 10 }, '`epochs` has no effect with `steps`'],
    [{ blank: 3 }, '`blank` has no effect without `loss` ctc'],
  ])('%j are refused', (options, message) => {
    const { code, message: found } = failureOf({ data: 'a.npz', ...options });
    expect([code, found]).toEqual(['invalid-argument', message]);
  });

  test('that are misspelt bring the right name', () => {
    expect(failureOf({ batchsize: 8 }).hint).toBe('Did you mean `batchSize`?');
    expect(failureOf({ data: 'a', loss: 'ctx' }).hint).toBe('Did you mean ctc?');
    expect(failureOf({ zzz: 8 }).hint).toMatch(/^It has: `data`, `evalData`/);
  });

  test('that say their default have no effect to be refused', () => {
    const off = option(toggle, { ...texts, default: false, needs: ['evalData'] });
    expect(resolveOptions({ keepBest: off }, { keepBest: false }, 'train')).toEqual({
      keepBest: false,
    });
  });

  test('have their types from their schemas', () => {
    expectTypeOf<Options>().toExtend<{
      readonly data: string;
      readonly evalData?: string | undefined;
      readonly batchSize?: number | undefined;
      readonly loss?: 'mse' | 'ctc' | undefined;
      readonly targets?: readonly string[] | undefined;
      readonly blank?: number | undefined;
      readonly onNote?: ((text: string) => void) | undefined;
    }>();
    expectTypeOf<{ data: string; targets: readonly string[] }>().toExtend<Options>();
    expectTypeOf<object>().not.toExtend<Options>();
    expectTypeOf<ResolvedOf<typeof table>>().toExtend<{
      readonly data: string;
      readonly evalData: string | undefined;
      readonly batchSize: number;
      readonly shuffle: boolean;
      readonly blank: number | undefined;
    }>();
    expectTypeOf<ResolvedOf<typeof table>['evalEvery']>().toEqualTypeOf<number | undefined>();
    const unneeded = { data: optional(table.data) };
    expectTypeOf<object>().toExtend<OptionsOf<typeof unneeded>>();
  });
});

describe('options that come with a choice', () => {
  test('may be shared', () => {
    const smoothing = option(whole(0), texts);
    const shared = optionsByChoice('loss', {
      a: { options: { smoothing } },
      b: { options: { smoothing } },
      c: { options: {} },
    });
    expect(shared.smoothing.only).toEqual({ loss: ['a', 'b'] });
  });

  test('belong to every choice where all bring them', () => {
    const smoothing = option(whole(0), texts);
    expect(optionsByChoice('loss', { a: { options: { smoothing } } }).smoothing.only).toBe(
      undefined,
    );
  });

  test('are described once', () => {
    const smoothing = () => option(whole(0), texts);
    const differing = {
      a: { options: { smoothing: smoothing() } },
      b: { options: { smoothing: smoothing() } },
    };
    expect(() => optionsByChoice('loss', differing)).toThrow(
      'a and b describe smoothing differently',
    );
  });
});
