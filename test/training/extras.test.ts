/** What trains with the adapters: biases of their layers, and a head on the hidden states. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { apply } from '../../src/lora/apply.js';
import { extract } from '../../src/lora/extract.js';
import { merge } from '../../src/lora/merge.js';
import { patch } from '../../src/lora/patch.js';
import { unpatch } from '../../src/lora/unpatch.js';
import { openModel } from '../../src/onnx/parse.js';
import { openSession } from '../../src/runtime/session.js';
import { evaluate } from '../../src/training/evaluate.js';
import { resolveOptions, type TrainOptions } from '../../src/training/options.js';
import { runTraining } from '../../src/training/run.js';
import { randomNumbers } from '../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';
import { safetensors } from './data/data.js';

const files = temporaryFolder();
const SAMPLES = 12;

function train(path: string, options: Partial<TrainOptions> & { data: string }) {
  const output = files.fresh('trained.onnx');
  const given = { loss: 'mse', batchSize: 4, provider: 'cpu', threads: 1, output } as const;
  return runTraining(path, resolveOptions({ ...given, ...options }));
}

async function outputOf(path: string, name: string, x: readonly number[], dims: readonly number[]) {
  const session = await openSession(path);
  const results = await session.run(
    new Map([['x', { dtype: 'float32', dims, data: Float32Array.from(x) }]]),
  );
  await session.release();
  return results.get(name)!.data as Float32Array;
}

describe('biases', () => {
  /** `y = x·W + b` as MatMul and Add, or as Gemm. */
  const withBias = (gemm: boolean) =>
    model({
      nodes: gemm
        ? [node('Gemm', ['x', 'w', 'b'], 'y', {}, 'layer')]
        : [node('MatMul', ['x', 'w'], 'h', {}, 'layer'), node('Add', ['h', 'b'], 'y')],
      initializers: [tensor('w', [3, 2]), tensor('b', [2])],
      inputs: [value('x', ['batch', 3])],
      outputs: [value('y', ['batch', 2])],
    });
  const inputs = [...randomNumbers(1, SAMPLES * 3)];
  const targets = [...randomNumbers(2, SAMPLES * 2)];
  const data = () =>
    files.write(
      safetensors({
        x: ['float32', [SAMPLES, 3], inputs],
        target: ['float32', [SAMPLES, 2], targets],
      }),
      'data.safetensors',
    );

  test.each([false, true])('take a step of plain gradient descent (Gemm: %s)', async (gemm) => {
    const base = files.write(withBias(gemm));
    const { output } = await patch(base, { rank: 2, blocks: 1 });
    const before = await outputOf(output, 'y', inputs, [SAMPLES, 3]);
    const plain = { optimizer: 'sgd', momentum: 0, weightDecay: 0, clip: 0 } as const;
    const options = { lr: 0.1, schedule: 'constant', steps: 1, batchSize: SAMPLES } as const;
    const trained = await train(output, { data: data(), trainBias: true, ...plain, ...options });
    const after = await outputOf(trained.output, 'y', Array(3).fill(0), [1, 3]);
    const start = await outputOf(output, 'y', Array(3).fill(0), [1, 3]);
    for (const column of [0, 1]) {
      // d mean((y - t)²) / db, summed over the rows of a column.
      const terms = Array.from({ length: SAMPLES }, (_, row) => {
        const at = row * 2 + column;
        return (2 * (before[at]! - targets[at]!)) / (SAMPLES * 2);
      });
      const gradient = terms.reduce((a, b) => a + b);
      expect(after[column]! - start[column]!).toBeCloseTo(-0.1 * gradient, 5);
    }
  });

  test('leave the base model as it was, however often they are trained', async () => {
    const base = files.write(withBias(false));
    const { output } = await patch(base, { rank: 2, blocks: 1 });
    const once = await train(output, { data: data(), trainBias: true, lr: 0.05, epochs: 2 });
    const twice = await train(once.output, { data: data(), trainBias: true, lr: 0.05, epochs: 2 });
    const back = await unpatch(twice.output, { output: files.fresh() });
    expect(sameFiles(back.output, base)).toBe(true);
  });

  test('travel in an adapter file, and stay when the adapters are folded', async () => {
    const base = files.write(withBias(false));
    const { output } = await patch(base, { rank: 2, blocks: 1 });
    const trained = await train(output, { data: data(), trainBias: true, lr: 0.05, epochs: 3 });
    const adapter = files.fresh('adapter.safetensors');
    await extract(trained.output, { output: adapter });
    const applied = await apply(base, adapter, { output: files.fresh() });
    const expected = await outputOf(trained.output, 'y', inputs, [SAMPLES, 3]);
    expect(await outputOf(applied.output, 'y', inputs, [SAMPLES, 3])).toEqual(expected);
    const merged = await merge(trained.output, { output: files.fresh() });
    expect(merged.verification!.passed).toBe(true);
    await unpatch(applied.output, { output: `${applied.output}.base` });
    expect(sameFiles(`${applied.output}.base`, base)).toBe(true);
    const alone = await failure(
      () => merge(base, { adapter, output: files.fresh() }),
      'unsupported',
    );
    expect(alone.hint).toContain('apply');
  });

  test('that another layer reads too are refused', async () => {
    const shared = model({
      nodes: [
        node('MatMul', ['x', 'w'], 'h', {}, 'layer'),
        node('Add', ['h', 'b'], 'i'),
        node('Mul', ['i', 'b'], 'y', {}, 'other'),
      ],
      initializers: [tensor('w', [3, 2]), tensor('b', [2])],
      inputs: [value('x', ['batch', 3])],
      outputs: [value('y', ['batch', 2])],
    });
    const { output } = await patch(files.write(shared), { rank: 2, blocks: 1 });
    const error = await failure(
      () => train(output, { data: data(), trainBias: true }),
      'unsupported',
    );
    expect(error.message).toContain('b is read by other');
  });
});

describe('a head', () => {
  /** Hidden states [B, T, 4] of x [B, T, 3]. */
  const encoder = (opset: number) =>
    model({
      opset,
      nodes: [node('MatMul', ['x', 'w'], 'h', {}, 'layer'), node('Tanh', ['h'], 'hidden')],
      initializers: [tensor('w', [3, 4])],
      inputs: [value('x', ['batch', 'time', 3])],
      outputs: [value('hidden', ['batch', 'time', 4])],
    });
  const inputs = [...randomNumbers(3, SAMPLES * 5 * 3)];
  const labels = Array.from({ length: SAMPLES }, (_, i) => (inputs[i * 15]! > 0 ? 1 : 0));
  const data = () =>
    files.write(
      safetensors({
        x: ['float32', [SAMPLES, 5, 3], inputs],
        labels: ['int64', [SAMPLES], labels],
      }),
      'data.safetensors',
    );

  test.each(['mean', 'cls'] as const)('learns classes of pooled states (%s)', async (pooling) => {
    for (const opset of [12, 18]) {
      const base = files.write(encoder(opset));
      const head = `linear:2:${pooling}`;
      const { output } = await patch(base, { rank: 2, blocks: 1, head });
      const options = { data: data(), loss: 'cross-entropy', lr: 0.1, epochs: 40 } as const;
      const trained = await train(output, options);
      const before = await evaluate(output, { data: data(), loss: 'cross-entropy' });
      const measured = await evaluate(trained.output, { data: data(), loss: 'cross-entropy' });
      expect(measured.loss).toBeLessThan(0.85 * before.loss);
      const back = await unpatch(trained.output, { output: files.fresh() });
      expect(sameFiles(back.output, base)).toBe(true);
    }
  });

  test('can be added when training starts, and is the same then', async () => {
    const base = files.write(encoder(17));
    const options = { data: data(), loss: 'cross-entropy', lr: 0.05, epochs: 2 } as const;
    const early = await patch(base, { rank: 2, blocks: 1, head: 'linear:2' });
    const late = await patch(base, { rank: 2, blocks: 1, output: files.fresh() });
    const first = await train(early.output, options);
    const second = await train(late.output, { ...options, head: 'linear:2' });
    expect(second.loss).toEqual(first.loss);
    const again = () => train(second.output, { ...options, head: 'linear:2' });
    expect((await failure(again, 'invalid-argument')).message).toContain('has a head already');
  });

  test('travels in an adapter file, and stays when the adapters are folded', async () => {
    const base = files.write(encoder(17));
    const { output } = await patch(base, { rank: 2, blocks: 1, head: 'linear:2:mean' });
    const options = { data: data(), loss: 'cross-entropy', lr: 0.05, epochs: 3 } as const;
    const trained = await train(output, options);
    const adapter = files.fresh('adapter.safetensors');
    await extract(trained.output, { output: adapter });
    const applied = await apply(base, adapter, { output: files.fresh() });
    const dims = [SAMPLES, 5, 3];
    const expected = await outputOf(trained.output, 'logits', inputs, dims);
    expect(await outputOf(applied.output, 'logits', inputs, dims)).toEqual(expected);
    const merged = await merge(trained.output, { output: files.fresh() });
    expect(merged.verification!.passed).toBe(true);
    const folded = await outputOf(merged.output, 'logits', inputs, dims);
    folded.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!, 5);
    });
    const { graph } = openModel(merged.output);
    expect(graph.outputs.map(({ name }) => name)).toEqual(['hidden', 'logits']);
    expect(readFileSync(base).length).toBeLessThan(readFileSync(merged.output).length);
  });

  test('that does not fit is refused', async () => {
    const base = files.write(encoder(17));
    const tooMany = () => patch(base, { head: 'linear:0', output: files.fresh() });
    await failure(tooMany, 'invalid-argument');
    const noSuch = () => patch(base, { head: 'linear:2', modelOutput: 'h', output: files.fresh() });
    expect((await failure(noSuch, 'invalid-argument')).message).toContain('hidden');
  });
});
