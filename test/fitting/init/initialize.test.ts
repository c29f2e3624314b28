/** Adapters that start in the weights (pissa), or in the gradient on data. */

import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Matrix, SingularValueDecomposition } from 'ml-matrix';
import { describe, expect, it } from 'vitest';
import type { InitName } from '../../../src/adapters/structure/choices.js';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { merge } from '../../../src/commands/merge.js';
import { resolveTrainOptions } from '../../../src/commands/options/train.js';
import type { PatchOptions } from '../../../src/commands/patch.js';
import { patch } from '../../../src/commands/patch.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { fromFloat64 } from '../../../src/onnx/dtype.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { openModel } from '../../../src/onnx/parse.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { safetensors } from '../../data/data.js';
import { patchFile, randomNumbers } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import {
  body,
  constant,
  model,
  node,
  type TensorProto,
  tensor,
  value,
} from '../../support/models.js';
import { feed, maxDifference, run } from '../../support/run.js';
import { zooFeeds, zooModel } from '../../support/zoo.js';

const folder = temporaryFolder();
const [IN, OUT] = [8, 12];
const W = [...Float32Array.from(randomNumbers(1, IN * OUT))];
const TURNED = W.map((_, i) => W[(i % IN) * OUT + Math.floor(i / IN)]!);

/** The numbers of initializers in a model file. */
function numbersOf(path: string, ...names: string[]): Float64Array[] {
  const opened = openModel(path);
  const files = new ExternalFiles(opened);
  const reader = new TensorReader(opened, files);
  const numbers = names.map((name) => reader.float64(opened.graph.initializers.get(name)!).slice());
  files.close();
  opened.close();
  return numbers;
}

const matrix = (values: ArrayLike<number>, rows: number, columns: number) =>
  Matrix.from1DArray(rows, columns, Array.from(values));

/** The best approximation of rank r, by ml-matrix. */
function bestFit(values: Matrix, r: number): Matrix {
  const {
    leftSingularVectors: u,
    rightSingularVectors: v,
    diagonal,
  } = new SingularValueDecomposition(values, { autoTranspose: true });
  const left = u.subMatrix(0, values.rows - 1, 0, r - 1);
  const right = v.subMatrix(0, values.columns - 1, 0, r - 1);
  return left.mmul(Matrix.diag(diagonal.slice(0, r))).mmul(right.transpose());
}

const matmul = (w: TensorProto = tensor('w', [IN, OUT], W)) =>
  model({
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'layer')],
    initializers: [w],
    inputs: [value('x', ['n', IN])],
    outputs: [value('y', ['n', OUT])],
  });

const started = (bytes: Uint8Array, init: InitName, options: PatchOptions = {}) =>
  patch(folder.write(bytes), {
    ...{ init, rank: 2, blocks: 1, output: folder.fresh('model.lora.onnx'), verify: true },
    ...options,
  });

describe('pissa', () => {
  it('gives the adapter the best fit of the weight, and the model the rest', async () => {
    const { output, deviation, adapters, verification } = await started(matmul(), 'pissa');
    expect(verification!.passed).toBe(true);
    const [rest, a, b] = numbersOf(output, 'w', 'lora/default/layer/A', 'lora/default/layer/B');
    const delta = matrix(a!, IN, 2)
      .mmul(matrix(b!, 2, OUT))
      .mul(2);
    expect(
      maxDifference(delta.to1DArray(), bestFit(matrix(W, IN, OUT), 2).to1DArray()),
    ).toBeLessThan(1e-6);
    const sum = Matrix.add(matrix(rest!, IN, OUT), delta).sub(matrix(W, IN, OUT));
    expect(deviation).toBeCloseTo(sum.norm() / matrix(W, IN, OUT).norm(), 12);
    expect(deviation).toBeLessThan(2 ** -24);
    expect(deviation).toBeGreaterThan(0);
    expect(adapters[0]!.norm).toBeCloseTo(delta.norm(), 5);
  });

  it.each<[string, PatchOptions]>([
    ['a grid', { rank: 4, blocks: 2 }],
    ['a diagonal', { rank: 2, blocks: 4, structure: 'diagonal' }],
    ['a hybrid', { rank: 4, blocks: 2, hybrid: 1 }],
    ['another scale', { alpha: -3 }],
    ['a rank above that of a block', { rank: 16, blocks: 4 }],
  ])('splits the weight for %s, which a merge puts together again', async (_, options) => {
    const { output, deviation, adapters } = await started(matmul(), 'pissa', options);
    expect(deviation).toBeLessThan(2 ** -24);
    expect(adapters[0]!.norm).toBeGreaterThan(0.1);
    const merged = await merge(output, { output: folder.fresh() });
    expect(merged.verification!.passed).toBe(true);
    expect(maxDifference(numbersOf(merged.output, 'w')[0]!, W)).toBeLessThan(2e-7);
  });

  it.each<[string, () => Uint8Array]>([
    [
      'Gemm, transposed and scaled',
      () =>
        model({
          nodes: [node('Gemm', ['x', 'w'], 'y', { transB: 1, alpha: { float: 0.5 } })],
          initializers: [tensor('w', [OUT, IN], TURNED)],
          inputs: [value('x', ['n', IN])],
          outputs: ['y'],
        }),
    ],
    [
      'Conv',
      () =>
        model({
          nodes: [node('Conv', ['x', 'w'], 'y')],
          initializers: [tensor('w', [OUT, IN, 1, 1], TURNED)],
          inputs: [value('x', [1, IN, 2, 2])],
          outputs: ['y'],
        }),
    ],
    [
      'a Constant',
      () =>
        model({
          nodes: [constant('w', tensor('', [IN, OUT], W)), node('MatMul', ['x', 'w'], 'y')],
          inputs: [value('x', ['n', IN])],
          outputs: ['y'],
        }),
    ],
    [
      'a weight in half precision behind a Cast',
      () =>
        model({
          nodes: [node('Cast', ['w'], 'w32', { to: 1 }), node('MatMul', ['x', 'w32'], 'y')],
          initializers: [tensor('w', [IN, OUT], W, 'float16')],
          inputs: [value('x', ['n', IN])],
          outputs: ['y'],
        }),
    ],
  ])('starts in %s, and comes off bit for bit', async (_, make) => {
    const { output, deviation, verification } = await started(make(), 'pissa', {
      targets: ['all'],
    });
    expect(verification!.passed).toBe(true);
    expect(deviation).toBeLessThan(2 ** -11);
    expect(numbersOf(output, 'w')[0]).not.toEqual(Float64Array.from(W));
    const back = await unpatch(output, { output: folder.fresh() });
    expect(sameFiles(back.output, folder.write(make()))).toBe(true);
  });

  it('puts the rest of an external weight into a data file of its own', async () => {
    const { rawData: _, ...shell } = tensor('w', [IN, OUT], W);
    const entries = { location: 'w.bin', offset: '0', length: String(4 * IN * OUT) };
    const externalData = Object.entries(entries).map(([key, text]) => ({ key, value: text }));
    const base = folder.write(matmul({ ...shell, dataLocation: 1, externalData }));
    writeFileSync(join(dirname(base), 'w.bin'), fromFloat64('float32', Float64Array.from(W)));
    const output = folder.fresh();
    const options = { init: 'pissa', rank: 2, blocks: 1, output, verify: true } as const;
    const { verification } = await patch(base, options);
    expect(verification!.passed).toBe(true);
    const opened = openModel(output);
    expect(opened.graph.initializers.get('w')!.data.kind).toBe('external');
    opened.close();
    const merged = await merge(output, { output: folder.fresh() });
    expect(merged.verification!.passed).toBe(true);
    const adapter = folder.fresh('adapter.safetensors');
    await extract(output, { output: adapter });
    const applied = await apply(base, adapter, { output: folder.fresh() });
    expect(sameFiles(`${applied.output}.data`, `${output}.data`)).toBe(true);
    const back = await unpatch(output, { output: folder.fresh() });
    expect(sameFiles(back.output, base)).toBe(true);
  });

  it('is the same for the same seed, on a real model, within the rounding of its outputs', async () => {
    const options = { init: 'pissa', rank: 4, blocks: 2, verify: true } as const;
    const name = 'bert-cls-torchscript';
    const paths = [folder.fresh(), folder.fresh()];
    for (const output of paths) {
      const { verification, deviation } = await patch(zooModel(name), { ...options, output });
      expect(verification!.passed).toBe(true);
      expect(deviation).toBeLessThan(2 ** -24);
    }
    expect(sameFiles(paths[0]!, paths[1]!)).toBe(true);
    const back = await unpatch(paths[0]!, { output: folder.fresh() });
    expect(sameFiles(back.output, zooModel(name))).toBe(true);
  });

  it('leaves the rest of the weight alone in training', async () => {
    const { output } = await started(matmul(), 'pissa');
    const data = folder.write(
      safetensors({
        x: ['float32', [4, IN], [...randomNumbers(5, 4 * IN)]],
        target: ['float32', [4, OUT], 1],
      }),
      'data.safetensors',
    );
    const trained = folder.fresh();
    const given = { data, loss: 'mse', provider: 'cpu', steps: 3, output: trained } as const;
    const { loss } = await runTraining(output, resolveTrainOptions(given));
    expect(loss!.last).toBeLessThan(loss!.first);
    expect(numbersOf(trained, 'w')).toEqual(numbersOf(output, 'w'));
    const merged = await merge(trained, { output: folder.fresh() });
    expect(merged.verification!.passed).toBe(true);
  });
});

describe('an adapter that started in its weight', () => {
  const data = () =>
    folder.write(
      safetensors({
        x: ['float32', [4, IN], [...randomNumbers(5, 4 * IN)]],
        target: ['float32', [4, OUT], 1],
      }),
      'data.safetensors',
    );

  it.each<[string, PatchOptions]>([
    ['plain', {}],
    ['a grid and a global part', { rank: 4, blocks: 2, hybrid: 1 }],
    ['a diagonal', { blocks: 2, structure: 'diagonal' }],
  ])('goes to PEFT as one of the model as it was: %s', async (_, options) => {
    const base = folder.write(matmul());
    const { output } = await started(matmul(), 'pissa', options);
    const trained = folder.fresh();
    const given = { data: data(), loss: 'mse', provider: 'cpu', output: trained } as const;
    await runTraining(output, resolveTrainOptions({ ...given, steps: 3, lr: 0.05 }));
    const folderOfPeft = folder.fresh('adapter');
    await extract(trained, { output: folderOfPeft });
    const { output: applied, adapters } = await apply(base, folderOfPeft, {
      output: folder.fresh(),
    });
    expect(adapters[0]!.parameters).toBeGreaterThan(0);
    const x = feed([3, IN], [...randomNumbers(7, 3 * IN)]);
    const [expected, found] = [await run(trained, { x }), await run(applied, { x })];
    expect(maxDifference(found.y!.data, expected.y!.data)).toBeLessThan(1e-5);
    expect(maxDifference(found.y!.data, (await run(base, { x })).y!.data)).toBeGreaterThan(0.01);
  });

  it('goes to our own format with what its weight kept', async () => {
    const base = folder.write(matmul());
    const { output } = await started(matmul(), 'pissa');
    const adapter = folder.fresh('adapter.safetensors');
    await extract(output, { output: adapter });
    const applied = await apply(base, adapter, { output: folder.fresh() });
    expect(sameFiles(applied.output, output)).toBe(true);
  });

  it('is no adapter of a weight that was replaced altogether', async () => {
    const path = folder.fresh();
    const other = tensor('w', [IN, OUT], randomNumbers(9, IN * OUT)).rawData!;
    const tensors = [{ name: 'w', dtype: 'float32', dims: [IN, OUT], data: other }] as const;
    await patchFile(folder.write(matmul()), path, { rank: 2, blocks: 1, extras: { tensors } });
    const run = () => extract(path, { output: folder.fresh('adapter') });
    const error = await failure(run, 'unsupported');
    expect(error.message).toContain('was replaced');
    expect(error.hint).toContain('.safetensors');
  });
});

describe('pissa is refused', () => {
  const refused = async (
    bytes: Uint8Array | string,
    message: string,
    options: PatchOptions = {},
  ) => {
    const path = typeof bytes === 'string' ? bytes : folder.write(bytes);
    const run = () => patch(path, { init: 'pissa', output: folder.fresh(), ...options });
    const error = await failure(run, 'unsupported');
    expect(error.message).toContain(message);
    expect(error.hint).toContain('`exclude: ');
  };

  it('for a weight that is quantized', async () => {
    await refused(zooModel('bert-qdq'), 'int8');
    await refused(zooModel('llama-q4'), 'expected floating point');
  });

  it('for a weight that other nodes read', async () => {
    const tied = model({
      nodes: [
        node('MatMul', ['x', 'w'], 'h', {}, 'layer'),
        node('ReduceSum', ['w'], 's', {}, 'other'),
        node('Add', ['h', 's'], 'y'),
      ],
      initializers: [tensor('w', [IN, OUT], W)],
      inputs: [value('x', ['n', IN])],
      outputs: ['y'],
    });
    await refused(tied, 'is read by other too');
  });

  it('for a weight inside the body of a branch', async () => {
    const inner = body({
      nodes: [node('MatMul', ['x', 'w'], 't', {}, 'layer')],
      initializers: [tensor('w', [IN, OUT], W)],
      outputs: ['t'],
    });
    const other = body({ nodes: [node('Identity', ['z'], 'e')], outputs: ['e'] });
    const branches = { then_branch: { graph: inner }, else_branch: { graph: other } };
    const bytes = model({
      nodes: [node('If', ['yes'], 'y', branches)],
      initializers: [tensor('z', [1, OUT])],
      inputs: [value('x', ['n', IN]), value('yes', [], 'bool')],
      outputs: ['y'],
    });
    await refused(bytes, 'body of an If');
  });

  it('for a weight that is not finite, and for an adapter without a scale', async () => {
    const broken = folder.write(matmul(tensor('w', [IN, OUT], W.with(3, Number.NaN))));
    const options = { init: 'pissa', output: folder.fresh() } as const;
    await failure(() => patch(broken, options), 'invalid-model');
    await failure(
      () => patch(folder.write(matmul()), { ...options, alpha: 0 }),
      'invalid-argument',
    );
  });
});

describe('gradient', () => {
  const SAMPLES = 16;
  const X = [...Float32Array.from(randomNumbers(2, SAMPLES * IN))];
  const TARGET = [...Float32Array.from(randomNumbers(3, SAMPLES * OUT))];
  const data = () =>
    folder.write(
      safetensors({
        x: ['float32', [SAMPLES, IN], X],
        target: ['float32', [SAMPLES, OUT], TARGET],
      }),
      'data.safetensors',
    );
  const options = () => ({ data: data(), loss: 'mse', provider: 'cpu' }) as const;

  /** Of the mean squared error: 2 · Xᵀ · (X·W - T) / elements. */
  function gradient(): Matrix {
    const x = matrix(X, SAMPLES, IN);
    const error = x.mmul(matrix(W, IN, OUT)).sub(matrix(TARGET, SAMPLES, OUT));
    return x
      .transpose()
      .mmul(error)
      .mul(2 / (SAMPLES * OUT));
  }

  it('starts A in the directions of the gradient, the model as it was', async () => {
    const { output, verification, deviation } = await started(matmul(), 'gradient', options());
    expect(verification!.maxAbsDiff).toBe(0);
    expect(deviation).toBeUndefined();
    const [a, b] = numbersOf(output, 'lora/default/layer/A', 'lora/default/layer/B');
    expect(b!.every((number) => number === 0)).toBe(true);
    // A·Aᵀ·G is the best fit of G, times the square of the columns' length.
    const left = matrix(a!, IN, 2);
    const moved = left.mmul(left.transpose()).mmul(gradient()).mul(3);
    expect(maxDifference(moved.to1DArray(), bestFit(gradient(), 2).to1DArray())).toBeLessThan(1e-6);
  });

  it('does so for every block of a grid', async () => {
    const grid = { rank: 4, blocks: 2, ...options() };
    const { output, verification } = await started(matmul(), 'gradient', grid);
    expect(verification!.maxAbsDiff).toBe(0);
    const [a] = numbersOf(output, 'lora/default/layer/A');
    // Block (1, 0): rows 4 to 7 and columns 0 to 5 of G, columns 0 and 1 of A[1].
    const block = gradient().subMatrix(4, 7, 0, 5);
    const left = matrix(a!, IN, 4).subMatrix(4, 7, 0, 1);
    const moved = left.mmul(left.transpose()).mmul(block).mul(3);
    expect(maxDifference(moved.to1DArray(), bestFit(block, 2).to1DArray())).toBeLessThan(1e-6);
  });

  it('keeps a random start where the gradient has fewer directions than the rank', async () => {
    const one = folder.write(
      safetensors({ x: ['float32', [1, IN], X.slice(0, IN)], target: ['float32', [1, OUT], 1] }),
      'data.safetensors',
    );
    const { output } = await started(matmul(), 'gradient', { ...options(), data: one });
    const plain = await started(matmul(), 'kaiming');
    const column = (path: string, k: number) =>
      [...numbersOf(path, 'lora/default/layer/A')[0]!].filter((_, i) => i % 2 === k);
    expect(column(output, 0)).not.toEqual(column(plain.output, 0));
    expect(column(output, 1)).toEqual(column(plain.output, 1));
  });

  it('learns more in its first steps than a random start', async () => {
    const losses = [];
    for (const init of ['gradient', 'kaiming'] as const) {
      const given = init === 'gradient' ? options() : {};
      const { output } = await started(matmul(), init, given);
      const sgd = { optimizer: 'sgd', momentum: 0, clip: 0, schedule: 'constant', lr: 1 } as const;
      const course = { ...sgd, steps: 2, batchSize: SAMPLES, output: folder.fresh() } as const;
      const { loss } = await runTraining(output, resolveTrainOptions({ ...options(), ...course }));
      losses.push(loss!.last);
    }
    expect(losses[0]).toBeLessThan(losses[1]!);
  });

  it('says which layer has no gradient', async () => {
    const aside = model({
      nodes: [
        node('MatMul', ['x', 'w'], 'y', {}, 'layer'),
        node('MatMul', ['x', 'v'], 'z', {}, 'aside'),
      ],
      initializers: [tensor('w', [IN, OUT], W), tensor('v', [IN, OUT], W)],
      inputs: [value('x', ['n', IN])],
      outputs: [value('y', ['n', OUT]), value('z', ['n', OUT])],
    });
    const given = { ...options(), modelOutput: 'y' };
    const error = await failure(() => started(aside, 'gradient', given), 'unsupported');
    expect(error.message).toContain('aside has no gradient');
    expect(error.hint).toContain('`exclude: ["aside"]`');
  });

  it('starts a real model from a few batches of labels', async () => {
    const { input_ids, attention_mask } = zooFeeds('bert-cls-torchscript');
    const { dims } = input_ids!;
    const int64 = (name: 'input_ids' | 'attention_mask') =>
      Array.from(zooFeeds('bert-cls-torchscript')[name]!.data as BigInt64Array, Number);
    const file = folder.write(
      safetensors({
        input_ids: ['int64', dims, int64('input_ids')],
        ...(attention_mask ? { attention_mask: ['int64', dims, int64('attention_mask')] } : {}),
        labels: ['int64', [dims[0]!], Array.from({ length: dims[0]! }, (_, i) => i % 3)],
      }),
      'data.safetensors',
    );
    const output = folder.fresh();
    const given = { data: file, loss: 'cross-entropy', provider: 'cpu', batchSize: 1 } as const;
    const { verification } = await patch(zooModel('bert-cls-torchscript'), {
      ...{ init: 'gradient', rank: 4, blocks: 2, verify: true, output },
      ...given,
    });
    expect(verification!.maxAbsDiff).toBe(0);
  });

  it.each<[string, PatchOptions]>([
    ['without data', { init: 'gradient', loss: 'mse' }],
    ['without a loss', { init: 'gradient', data: 'samples.safetensors' }],
    ['with a new head', { init: 'gradient', data: 'x', loss: 'mse', head: 'linear:2' }],
    ['with data for another start', { init: 'pissa', data: 'samples.safetensors' }],
    ['with batches for another start', { batches: 3 }],
  ])('is refused %s', async (_, given) => {
    const run = () => patch(folder.write(matmul()), { ...given, output: folder.fresh() });
    await failure(run, 'invalid-argument');
  });
});

describe('a model with a start of its own', () => {
  it.each<InitName>(['pissa', 'gaussian', 'zero'])(
    'computes what its base does: %s',
    async (init) => {
      const { output } = await started(matmul(), init);
      const x = feed([3, IN], [...randomNumbers(7, 3 * IN)]);
      const [before, after] = [await run(matmul(), { x }), await run(output, { x })];
      expect(maxDifference(after.y!.data, before.y!.data)).toBeLessThan(
        init === 'pissa' ? 1e-5 : 1e-12,
      );
    },
  );
});
