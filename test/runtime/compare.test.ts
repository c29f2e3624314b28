import { describe, expect, it } from 'vitest';
import { openModel } from '../../src/onnx/parse.js';
import { compareModels } from '../../src/runtime/compare.js';
import { tensorFromNumbers } from '../../src/runtime/tensor-value.js';
import { defaultTolerance } from '../../src/runtime/tolerance.js';
import { bytesOf, failure, graph, node, scaling, zooModel } from './models.js';

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

  it('takes small outputs against 1', async () => {
    const batches = [feeds(1e-3, 0, 0, 0)];
    const found = await compareModels(source(scaling(1)), source(scaling(1.05)), batches);
    expect(found.maxRelDiff).toBeCloseTo(0.05);
    expect(found.passed).toBe(true);
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
