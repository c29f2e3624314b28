import { Matrix, SingularValueDecomposition } from 'ml-matrix';
import { describe, expect, it } from 'vitest';
import { openAdapterFile } from '../../src/adapters/files/adapter-file.js';
import { apply } from '../../src/commands/apply.js';
import { type FitOptions, type FitResult, fit } from '../../src/commands/fit.js';
import { merge } from '../../src/commands/merge.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import {
  constant,
  type ModelParts,
  model,
  node,
  type TensorProto,
  tensor,
  value,
} from '../support/models.js';
import { expectClose, feed, run } from '../support/run.js';
import { zooFeeds, zooModel } from '../support/zoo.js';

const folder = temporaryFolder();

/** x [n, 12] -> up [12, 18] + bias, Relu, down (stored [out, in]) [18, 6]. */
interface Numbers {
  readonly up: Float64Array;
  readonly bias: Float64Array;
  readonly down: Float64Array;
}

const start: Numbers = {
  up: randomNumbers(1, 12 * 18),
  bias: randomNumbers(2, 18),
  down: randomNumbers(3, 6 * 18),
};

function perceptron({ up, bias, down }: Numbers): ModelParts {
  return {
    nodes: [
      node('MatMul', ['x', 'up.weight'], 'h'),
      node('Add', ['h', 'up.bias'], 'hb'),
      node('Relu', ['hb'], 'a'),
      node('Gemm', ['a', 'down.weight'], 'y', { transB: 1, alpha: { float: 0.5 } }),
    ],
    initializers: [
      tensor('up.weight', [12, 18], up),
      tensor('up.bias', [18], bias),
      tensor('down.weight', [6, 18], down),
    ],
    inputs: [value('x', ['n', 12])],
    outputs: ['y'],
  };
}

const x = feed([5, 12], randomNumbers(9, 60));

const plus = (a: Float64Array, b: Float64Array, factor = 1) =>
  a.map((number, i) => number + factor * b[i]!);

/** Everything has changed. */
const tuned: Numbers = {
  up: plus(start.up, randomNumbers(4, 12 * 18), 0.1),
  bias: plus(start.bias, randomNumbers(5, 18), 0.1),
  down: plus(start.down, randomNumbers(6, 6 * 18), 0.1),
};

function files(after: Numbers | ModelParts, before: Numbers | ModelParts = start) {
  const [base, other] = [before, after].map((one) =>
    folder.write(model('up' in one ? perceptron(one) : one)),
  );
  return { base: base!, tuned: other!, output: folder.fresh('adapter.safetensors') };
}

function fitted(
  paths: ReturnType<typeof files>,
  options: Partial<FitOptions> = {},
): Promise<FitResult> {
  return fit(paths.base, paths.tuned, { output: paths.output, ...options });
}

/** Singular values of row-major numbers, by ml-matrix. */
function singularValues(values: Float64Array, rows: number, columns: number): number[] {
  const dense = Matrix.from1DArray(rows, columns, values);
  return new SingularValueDecomposition(dense, { autoTranspose: true }).diagonal;
}

const tailOf = (values: readonly number[], rank: number) =>
  values.slice(rank).reduce((sum, s) => sum + s * s, 0);

describe('fit', () => {
  it('of full rank and with the rest is the tuned model, to rounding', async () => {
    const paths = files(tuned);
    const result = await fitted(paths, { error: 0, includeRest: true });
    expect(result.error).toBeLessThan(1e-6);
    const output = folder.fresh();
    await apply(paths.base, paths.output, { output });
    expectClose(await run(output, { x }), await run(paths.tuned, { x }), 1e-5);
    const back = folder.fresh();
    await unpatch(output, { output: back });
    expect(sameFiles(back, paths.base)).toBe(true);
    const merged = folder.fresh();
    await merge(paths.base, { adapter: paths.output, output: merged, verify: false });
    expectClose(await run(merged, { x }), await run(paths.tuned, { x }), 1e-5);
  });

  it('of a rank leaves what the singular values beyond it say', async () => {
    const paths = files(tuned);
    const result = await fitted(paths, { structure: 'global', rank: 2 });
    const up = singularValues(plus(tuned.up, start.up, -1), 12, 18);
    expect(result.layers[0]).toMatchObject({ module: 'up', in: 12, out: 18 });
    expect(result.layers[0]!.error).toBeCloseTo(Math.sqrt(tailOf(up, 2) / tailOf(up, 0)), 6);
    // Gemm's alpha is part of the layer.
    const down = singularValues(plus(tuned.down, start.down, -1), 6, 18);
    expect(result.layers[1]!.deltaNorm).toBeCloseTo(0.5 * Math.sqrt(tailOf(down, 0)), 6);
    expect(result.layers[1]!.error).toBeCloseTo(Math.sqrt(tailOf(down, 2) / tailOf(down, 0)), 6);
    const left = result.layers.reduce((sum, one) => sum + (one.error * one.deltaNorm) ** 2, 0);
    const all = result.layers.reduce((sum, one) => sum + one.deltaNorm ** 2, 0);
    expect(result.error).toBeCloseTo(Math.sqrt(left / all), 10);
  });

  it('takes the structure that the change has, layer by layer', async () => {
    const blocks = new Float64Array(12 * 18);
    for (let row = 0; row < 12; row++) {
      for (let column = 0; column < 18; column++) {
        // Two blocks on the diagonal, each of rank 1.
        if (row < 6 !== column < 9) continue;
        blocks[row * 18 + column] = 0.1 * (1 + (row % 6)) * (1 + (column % 9));
      }
    }
    const outer = Float64Array.from(
      { length: 6 * 18 },
      (_, i) => 0.1 * (1 + Math.floor(i / 18)) * (((i % 18) % 5) - 2),
    );
    const paths = files({ ...start, up: plus(start.up, blocks), down: plus(start.down, outer) });
    const { layers } = await fitted(paths, { rank: 1 });
    expect(layers.map(({ adapter }) => [adapter?.structure, adapter?.grid.join()])).toEqual([
      ['diagonal', '2,2'],
      ['global', '1,1'],
    ]);
    for (const { error } of layers) expect(error).toBeLessThan(1e-5);
  });

  it('within a budget is never worse than a global rank for all layers', async () => {
    const sizes = [12 + 18, 18 + 6];
    const deltas = [
      singularValues(plus(tuned.up, start.up, -1), 12, 18),
      singularValues(plus(tuned.down, start.down, -1), 6, 18).map((s) => 0.5 * s),
    ];
    const all = deltas.reduce((sum, values) => sum + tailOf(values, 0), 0);
    for (const rank of [1, 2, 3]) {
      const budget = rank * (sizes[0]! + sizes[1]!);
      const result = await fitted(files(tuned), { budget });
      expect(result.parameters).toBeLessThanOrEqual(budget);
      const left = deltas.reduce((sum, values) => sum + tailOf(values, rank), 0);
      expect(result.error).toBeLessThanOrEqual(Math.sqrt(left / all) * (1 + 1e-9));
    }
  });

  it('within an error takes no more parameters than a global rank that reaches it', async () => {
    const paths = files(tuned);
    for (const rank of [1, 3]) {
      const global = await fitted(paths, { structure: 'global', rank, force: true });
      const result = await fitted(paths, { error: global.error + 1e-9, force: true });
      expect(result.error).toBeLessThanOrEqual(global.error + 1e-9);
      expect(result.parameters).toBeLessThanOrEqual(global.parameters);
    }
  });

  it('spends no budget on the rounding of weights', async () => {
    const rankOne = Float64Array.from(
      { length: 12 * 18 },
      (_, i) => 0.01 * (1 + Math.floor(i / 18)) * (1 + (i % 18)),
    );
    const paths = files({ ...start, up: plus(start.up, rankOne) });
    const { layers } = await fitted(paths, { budget: 5000 });
    expect(layers[0]!.adapter).toMatchObject({ structure: 'global', rank: 1 });
  });

  it('tells what changed beside the layers, and keeps it when asked', async () => {
    const paths = files(tuned);
    const without = await fitted(paths, { rank: 2 });
    expect(without.rest).toMatchObject([
      { tensor: 'up.bias', shape: [18], dtype: 'float32', included: false },
    ]);
    const change = plus(tuned.bias, start.bias, -1);
    expect(without.rest[0]!.deltaNorm).toBeCloseTo(Math.hypot(...change), 5);
    expect(without.rest[0]!.reason).toContain('(Add)');
    const kept = await fitted(paths, { rank: 2, includeRest: true, force: true });
    expect(kept.rest[0]!.included).toBe(true);
    const file = openAdapterFile(paths.output);
    expect(file.extras.tensors?.map(({ name }) => name)).toEqual(['up.bias']);
    file.close();
  });

  it('leaves layers out that are no targets, and has them in the rest', async () => {
    const result = await fitted(files(tuned), { rank: 2, targets: ['down'] });
    expect(result.layers.map(({ module }) => module)).toEqual(['down']);
    expect(result.rest.map(({ tensor: name }) => name)).toEqual(['up.weight', 'up.bias']);
  });

  it('gives a tensor that an embedding reads too to the rest', async () => {
    const tied = (values: Float64Array): ModelParts => ({
      nodes: [
        node('Gather', ['words', 'ids'], 'e'),
        node('Transpose', ['words'], 'head'),
        node('MatMul', ['e', 'head'], 'y'),
      ],
      initializers: [tensor('words', [7, 4], values)],
      inputs: [value('ids', ['n'], 'int64')],
      outputs: ['y'],
    });
    const before = tied(randomNumbers(1, 28));
    const paths = files(tied(randomNumbers(2, 28)), before);
    const result = await fitted(paths, { includeRest: true });
    expect(result.layers).toEqual([]);
    expect(result.rest).toMatchObject([{ tensor: 'words', included: true }]);
    const output = folder.fresh();
    await apply(paths.base, paths.output, { output });
    const ids = feed([3], [4, 0, 6], 'int64');
    expectClose(await run(output, { ids }), await run(paths.tuned, { ids }), 1e-6);
  });

  /** Two layers with a normalization between them; each of the pairs may be one tensor. */
  function twins(first: number, second: number, isShared = false): ModelParts {
    const [w2, g2] = isShared ? ['w1', 'g1'] : ['w2', 'g2'];
    return {
      nodes: [
        node('MatMul', ['x', 'w1'], 'h', {}, '/a/MatMul'),
        node('Mul', ['h', 'g1'], 'm'),
        node('MatMul', ['m', w2!], 'k', {}, '/b/MatMul'),
        node('Mul', ['k', g2!], 'y'),
      ],
      initializers: [
        tensor('w1', [3, 3], randomNumbers(first, 9)),
        tensor('g1', [3], [1, 1, first]),
        ...(isShared ? [] : [tensor('w2', [3, 3], randomNumbers(second, 9))]),
        ...(isShared ? [] : [tensor('g2', [3], [1, 1, second])]),
      ],
      inputs: [value('x', ['n', 3])],
      outputs: ['y'],
    };
  }

  it('tells layers apart that the base stores as one tensor, as exporters do with equal ones', async () => {
    const paths = files(twins(2, 3), twins(1, 1, true));
    const result = await fitted(paths, { error: 0 });
    expect(result.layers.map(({ module }) => module)).toEqual(['a', 'b']);
    expect(result.rest.map(({ tensor: name }) => name)).toEqual(['g1', 'g1']);
    const output = folder.fresh();
    await apply(paths.base, paths.output, { output });
    const expected = folder.write(
      model({
        ...twins(2, 3),
        initializers: [...twins(2, 3).initializers!].map((t) =>
          t.dims!.length === 1 ? tensor(t.name!, [3], [1, 1, 1]) : t,
        ),
      }),
    );
    const given = { x: feed([2, 3], randomNumbers(8, 6)) };
    expectClose(await run(output, given), await run(expected, given), 1e-6);
    const options = { includeRest: true, force: true };
    const error = await failure(() => fitted(paths, options), 'unsupported');
    expect(error.message).toContain('g1 differs and is stored once in the base model');
  });

  it('gives the same file for the same seed', async () => {
    const paths = files(tuned);
    await fitted(paths, { rank: 3 });
    const again = { ...paths, output: folder.fresh('again.safetensors') };
    await fitted(again, { rank: 3 });
    expect(sameFiles(paths.output, again.output)).toBe(true);
  });

  it('reads weights of Constant nodes and other names', async () => {
    const { nodes, ...rest } = perceptron(tuned);
    const [matmul, ...others] = nodes;
    const renamed: ModelParts = {
      ...rest,
      nodes: [
        constant('val_0', tensor('', [12, 18], tuned.up)),
        node('MatMul', ['x', 'val_0'], matmul!.output!),
        ...others,
      ],
      initializers: rest.initializers!.filter(({ name }) => name !== 'up.weight'),
    };
    const result = await fitted(files(renamed), { rank: 2 });
    expect(result.layers.map(({ module }) => module)).toEqual(['up', 'down']);
  });
});

describe('fit of real models', () => {
  it.each([
    ['bert-cls-dynamo', 1e-5],
    ['bert-external-data', 1e-5],
    ['bert-fp16', 5e-3],
    ['albert-shared', 1e-5],
    ['vit-cls', 1e-5],
  ])('%s: finds the adapters that were folded into it', async (name, tolerance) => {
    const base = zooModel(name);
    const [patched, merged, back] = [folder.fresh(), folder.fresh(), folder.fresh()];
    const options = {
      rank: 4,
      blocks: 2,
      factors: (a: Parameters<typeof trained>[0]) => trained(a, 3, 0.1),
    };
    await patchFile(base, patched, options);
    await merge(patched, { output: merged, verify: false });
    const output = folder.fresh('adapter.safetensors');
    const result = await fit(base, merged, { output, rank: 4, blocks: 2 });
    expect(result.rest).toEqual([]);
    expect(result.error).toBeLessThan(tolerance);
    await apply(base, output, { output: back });
    const feeds = zooFeeds(name);
    expectClose(
      await run(back, feeds),
      await run(merged, feeds),
      name === 'bert-fp16' ? 2e-2 : 1e-4,
    );
  });
});

function changed(parts: ModelParts, name: string, change: (t: TensorProto) => TensorProto) {
  return {
    ...parts,
    initializers: parts.initializers!.map((t) => (t.name === name ? change(t) : t)),
  };
}

describe('what cannot be fitted', () => {
  it('says that nothing changed, unless that is allowed', async () => {
    const paths = files(start);
    const error = await failure(() => fitted(paths), 'unchanged');
    expect(error.hint).toContain('`allowEmpty: true`');
    const result = await fitted(paths, { allowEmpty: true });
    expect(result).toMatchObject({ layers: [], rest: [], unchanged: 3, parameters: 0, error: 0 });
    const output = folder.fresh();
    await apply(paths.base, paths.output, { output });
    expectClose(await run(output, { x }), await run(paths.base, { x }), 0);
  });

  it('names what changed where no linear layer did', async () => {
    const paths = files({ ...start, bias: tuned.bias });
    const error = await failure(() => fitted(paths), 'unchanged');
    expect(error.message).toContain('up.bias');
    expect(error.hint).toContain('`includeRest: true`');
  });

  it('knows the same file by another name', async () => {
    const paths = files(tuned);
    const error = await failure(() => fitted({ ...paths, tuned: paths.base }), 'invalid-argument');
    expect(error.message).toContain('are the same file');
  });

  it('names the tensor and the place of a NaN', async () => {
    const up = Float64Array.from(tuned.up);
    up[2 * 18 + 5] = Number.NaN;
    const { message } = await failure(() => fitted(files({ ...tuned, up })), 'invalid-model');
    expect(message).toContain('up.weight holds NaN at [2, 5]');
    const bias = tuned.bias.map((number, i) => (i === 7 ? Number.POSITIVE_INFINITY : number));
    const rest = await failure(() => fitted(files({ ...tuned, bias })), 'invalid-model');
    expect(rest.message).toContain('up.bias holds Infinity at [7]');
  });

  it('names the node where graphs, shapes and types differ', async () => {
    const parts = perceptron(tuned);
    const half = changed(parts, 'down.weight', () =>
      tensor('down.weight', [6, 18], tuned.down, 'float16'),
    );
    const error = await failure(() => fitted(files(half)), 'model-mismatch');
    expect(error.message).toMatch(/down\.weight .* is float32, in the other float16/);
    expect(error.node).toBe('y');
  });

  it('refuses quantized weights that differ', async () => {
    const quantized = (shift: number): ModelParts => ({
      nodes: [
        node('DequantizeLinear', ['q', 'scale'], 'w', {}),
        node('MatMul', ['x', 'w'], 'y', {}, 'dense'),
      ],
      initializers: [
        tensor(
          'q',
          [3, 4],
          Float64Array.from({ length: 12 }, (_, i) => i + shift),
          'int8',
        ),
        tensor('scale', [], [0.1]),
      ],
      inputs: [value('x', ['n', 3])],
      outputs: ['y'],
    });
    const error = await failure(() => fitted(files(quantized(1), quantized(0))), 'unsupported');
    expect(error.message).toContain('q differs and is int8');
    expect(error.node).toBe('dense');
  });

  it('takes adapters only where they are folded', async () => {
    const paths = files(tuned);
    const patched = folder.fresh();
    await patchFile(paths.base, patched, { blocks: 2, rank: 2 });
    const error = await failure(() => fitted({ ...paths, tuned: patched }), 'unsupported');
    expect(error.hint).toContain('merge(model)');
  });

  it('wants one goal, in its range', async () => {
    const paths = files(tuned);
    for (const options of [
      { rank: 2, budget: 100 },
      { rank: 0 },
      { budget: 0.5 },
      { error: 1 },
      { budget: 3 },
    ]) {
      await failure(() => fitted(paths, options), 'invalid-argument');
    }
  });

  it('says what a structure leaves at any rank, where that is more than the error', async () => {
    const options = { structure: 'diagonal', blocks: 2, error: 0.01 } as const;
    const error = await failure(() => fitted(files(tuned), options), 'invalid-argument');
    expect(error.message).toMatch(/diagonal adapters leave an error of 0\.[67]\d+ at any rank/);
  });

  it.each([
    ['localized', { blocks: 5 }],
    ['global', {}],
  ] as const)('%s reaches any error', async (structure, own) => {
    const result = await fitted(files(tuned), { structure, ...own, error: 0.001 });
    expect(result.error).toBeLessThan(0.001);
  });

  it('stops when told to, and leaves no file', async () => {
    const paths = files(tuned);
    const controller = new AbortController();
    const phases = new Set<string>();
    const onProgress = ({ phase }: { phase: string }) => {
      phases.add(phase);
      if (phase === 'fit') controller.abort();
    };
    await failure(() => fitted(paths, { signal: controller.signal, onProgress }), 'aborted');
    expect([...phases]).toEqual(['compare', 'fit']);
    expect(() => openAdapterFile(paths.output)).toThrow('does not exist');
  });
});
