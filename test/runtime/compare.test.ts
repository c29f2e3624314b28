import { describe, expect, it } from 'vitest';
import { openModel } from '../../src/onnx/parse.js';
import { compareModels } from '../../src/runtime/compare.js';
import { tensorFromNumbers } from '../../src/runtime/tensor-value.js';
import { defaultTolerance } from '../../src/runtime/tolerance.js';
import { bytesOf, failure, floats, graph, node, scaling, zooModel } from './models.js';

function feeds(...values: number[]) {
  return new Map([['x', tensorFromNumbers('float32', [1, 4], Float64Array.from(values))]]);
}

const source = (bytes: Uint8Array) => ({ bytes });

describe('compareModels', () => {
  it('finds a model equal to itself', async () => {
    const model = source(scaling(3));
    const batches = [feeds(1, 2, 3, Number.NaN), feeds(Number.POSITIVE_INFINITY, 0, -1, 9)];
    expect(await compareModels(model, model, batches)).toEqual({
      samples: 2,
      maxAbsDiff: 0,
      maxRelDiff: 0,
      tolerance: 1e-4,
      passed: true,
      output: 'y',
    });
  });

  it('measures the difference, absolute and against the greatest output', async () => {
    const [two, three] = [source(scaling(2)), source(scaling(3))];
    const batches = [feeds(0, 0, 1, 0), feeds(0, 8, -10, 1)];
    const found = await compareModels(two, three, batches);
    expect(found).toMatchObject({ maxAbsDiff: 10, maxRelDiff: 0.5, passed: false });
    const wide = await compareModels(two, three, batches, { tolerance: 0.5 });
    expect(wide).toMatchObject({ tolerance: 0.5, passed: true });
    expect(await compareModels(two, three, batches, { tolerance: 0.49 })).toMatchObject({
      passed: false,
    });
  });

  it.each([1e-30, 1e-6, 1, 1e30])('takes outputs of %d against themselves', async (size) => {
    const batches = [feeds(size, 0, 0, 0)];
    const one = source(scaling(1));
    const far = await compareModels(one, source(scaling(1.05)), batches);
    expect(far.maxRelDiff).toBeCloseTo(0.05);
    expect(far.passed).toBe(false);
    expect(await compareModels(one, source(scaling(1 + 1e-5)), batches)).toMatchObject({
      passed: true,
    });
  });

  it('takes nothing but zeros for zeros', async () => {
    const batches = [feeds(1, 2, 3, 4)];
    const [zero, small] = [source(scaling(0)), source(scaling(1e-30))];
    expect(await compareModels(zero, zero, batches)).toMatchObject({ passed: true });
    expect(await compareModels(zero, small, batches)).toMatchObject({ passed: false });
  });

  it('fails a difference near what the adapters move, however small it is', async () => {
    const [base, reference] = [source(scaling(1)), source(scaling(1 + 3e-5))];
    const batches = [feeds(1, 2, -3, 0.5), feeds(0.1, 7, 1, -2)];
    const found = await compareModels(reference, base, batches, { base });
    expect(found).toMatchObject({ passed: false, proven: false, output: 'y' });
    expect(found.maxRelDiff).toBeLessThan(found.tolerance);
    expect(found.moved!.maxRelDiff).toBeCloseTo(3e-5, 6);
    expect(found.reason).toBe('y is off by 1.0 of what the adapters move');
    const right = await compareModels(reference, reference, batches, { base });
    expect(right).toMatchObject({ passed: true, proven: true });
    expect(right.reason).toBeUndefined();
  });

  it('proves nothing where the adapters move nothing, or no more than rounding', async () => {
    const batches = [feeds(1, 2, -3, 0.5)];
    const [base, rounded] = [source(scaling(1)), source(scaling(1 + 2 ** -23))];
    expect(await compareModels(base, base, batches, { base })).toMatchObject({
      passed: true,
      proven: false,
      moved: { maxAbsDiff: 0, maxRelDiff: 0 },
      reason: 'the adapters move nothing on these samples',
    });
    expect(await compareModels(rounded, base, batches, { base })).toMatchObject({
      passed: true,
      proven: false,
      reason: 'what the adapters move on these samples is not told from rounding',
    });
  });

  it('knows by a nudge how much of a difference is rounding', async () => {
    // What is left of 1 beside a large number, and then alone, is off by the rounding of the large one.
    const rest = (offset: number, factor: number) =>
      source(
        bytesOf(
          graph(
            { x: ['float32', [1, 4]] },
            { y: ['float32', [1, 4]] },
            [
              node('Mul', ['x', 'factor'], ['z']),
              node('Add', ['z', 'offset'], ['sum']),
              node('Sub', ['sum', 'offset'], ['y']),
            ],
            [floats('offset', [1], [offset]), floats('factor', [1], [factor])],
          ),
        ),
      );
    const batches = [feeds(0.11, 0.23, -0.31, 0.57), feeds(0.13, 0.71, 0.37, -0.21)];
    const [reference, candidate] = [rest(10_000, 1.5), rest(20_000, 1.5)];
    const base = rest(10_000, 1);
    const nudged = () => Promise.resolve(rest(10_000, 1.5 + 2 ** -10));
    const strict = await compareModels(reference, candidate, batches, { base });
    expect(strict.passed).toBe(false);
    const known = await compareModels(reference, candidate, batches, { base, nudged });
    expect(known).toMatchObject({ passed: true, proven: true });
    const half = await compareModels(reference, rest(20_000, 1.25), batches, { base, nudged });
    expect(half.passed).toBe(false);
  });

  it('says so where the second model does not run on what the first one runs on', async () => {
    const narrow = bytesOf(
      graph({ x: ['float32', [1, 3]] }, { y: ['float32', [1, 3]] }, [
        node('Identity', ['x'], ['y']),
      ]),
    );
    const error = await failure(() =>
      compareModels(source(scaling(1)), source(narrow), [feeds(1, 1, 1, 1)]),
    );
    expect(error).toMatchObject({
      code: 'verification',
      message: expect.stringMatching(/^the second model does not run on inputs that the first/),
    });
  });

  it('fails on NaN and infinity in one of them', async () => {
    const batches = [feeds(1, 2, 3, 4)];
    for (const factor of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const [one, bad] = [source(scaling(1)), source(scaling(factor))];
      for (const pair of [
        [one, bad],
        [bad, one],
      ] as const) {
        const found = await compareModels(...pair, batches);
        expect(found).toMatchObject({ maxAbsDiff: Number.POSITIVE_INFINITY, passed: false });
      }
      expect(await compareModels(bad, bad, batches)).toMatchObject({ maxAbsDiff: 0, passed: true });
    }
  });

  it('counts integers only where there are no floats', async () => {
    const ranked = (op: string, floating: boolean) =>
      source(
        bytesOf(
          graph(
            { x: ['float32', [1, 4]] },
            { i: ['int64', [1, 1]], ...(floating ? { y: ['float32', [1, 4]] as const } : {}) },
            [
              node(op, ['x'], ['i'], { axis: 1 }),
              ...(floating ? [node('Identity', ['x'], ['y'])] : []),
            ],
          ),
        ),
      );
    const batches = [feeds(1, 2, 3, 4)];
    const floats = await compareModels(ranked('ArgMax', true), ranked('ArgMin', true), batches);
    expect(floats).toMatchObject({ maxAbsDiff: 0, passed: true, output: 'y' });
    const integers = await compareModels(ranked('ArgMax', false), ranked('ArgMin', false), batches);
    expect(integers).toMatchObject({ maxAbsDiff: 3, passed: false, output: 'i' });
  });

  it('names the worst output', async () => {
    const two = (factor: number) =>
      source(
        bytesOf(
          graph({ x: ['float32', [1, 4]] }, { a: ['float32', [1, 4]], b: ['float32', [1, 4]] }, [
            node('Identity', ['x'], ['a']),
            node(factor > 0 ? 'Identity' : 'Neg', ['x'], ['b']),
          ]),
        ),
      );
    const found = await compareModels(two(1), two(-1), [feeds(1, 1, 1, 1)]);
    expect(found).toMatchObject({ output: 'b', passed: false });
  });

  it('refuses models with other outputs', async () => {
    const renamed = bytesOf(
      graph({ x: ['float32', [1, 4]] }, { z: ['float32', [1, 4]] }, [
        node('Identity', ['x'], ['z']),
      ]),
    );
    const longer = bytesOf(
      graph({ x: ['float32', [1, 4]] }, { y: ['float32', [2, 4]] }, [
        node('Concat', ['x', 'x'], ['y'], { axis: 0 }),
      ]),
    );
    for (const [other, problem] of [
      [renamed, 'no output y'],
      [longer, 'shape [1, 4]'],
    ] as const) {
      const error = await failure(() =>
        compareModels(source(scaling(1)), source(other), [feeds(1, 1, 1, 1)]),
      );
      expect(error).toMatchObject({
        code: 'verification',
        message: expect.stringContaining(problem),
      });
    }
  });

  it('reports progress and can be stopped', async () => {
    const model = source(scaling(1));
    const batches = [feeds(1, 1, 1, 1), feeds(2, 2, 2, 2)];
    const done: number[] = [];
    await compareModels(model, model, batches, { onProgress: (p) => done.push(p.done / p.total) });
    expect(done).toEqual([0.25, 0.5, 0.75, 1]);
    const stop = new AbortController();
    const error = await failure(() =>
      compareModels(model, model, batches, { signal: stop.signal, onProgress: () => stop.abort() }),
    );
    expect(error).toMatchObject({ code: 'aborted' });
    expect(done.length).toBe(4);
  });
});

describe('defaultTolerance', () => {
  it.each([
    ['bert-cls-torchscript', 1e-4],
    ['bert-external-data', 1e-4],
    ['bert-fp16', 8e-3],
    ['bert-int8-dynamic', 5e-2],
    ['bert-qdq', 5e-2],
    ['llama-q4-causal', 1e-4],
    ['llama-q4', 5e-2],
  ])('of %s is %d', (name, expected) => {
    const model = openModel(zooModel(name));
    expect(defaultTolerance([model], ['float32'])).toBe(expected);
    model.close();
  });

  it('goes by the least precise type', () => {
    expect(defaultTolerance([], ['float64'])).toBe(1e-12);
    expect(defaultTolerance([], ['float64', 'bfloat16', 'float32'])).toBe(6e-2);
    expect(defaultTolerance([], ['int64'])).toBe(1e-4);
  });
});
