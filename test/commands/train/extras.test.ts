/** What trains with the adapters: biases of their layers, and a head on the hidden states. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { evaluate } from '../../../src/commands/evaluate.js';
import { extract } from '../../../src/commands/extract.js';
import { merge } from '../../../src/commands/merge.js';
import { resolveTrainOptions, type TrainOptions } from '../../../src/commands/options/train.js';
import { patch } from '../../../src/commands/patch.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { openModel } from '../../../src/onnx/parse.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { openSession } from '../../../src/runtime/session.js';
import { STEP_MANIFEST_KEY } from '../../../src/training/step-format.js';
import { safetensors } from '../../data/data.js';
import { randomNumbers } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { zooFeeds, zooModel } from '../../support/zoo.js';

const files = temporaryFolder();
const SAMPLES = 12;

function train(path: string, options: Partial<TrainOptions> & { data: string }) {
  const output = files.fresh('trained.onnx');
  const given = { loss: 'mse', batchSize: 4, provider: 'cpu', threads: 1, output } as const;
  return runTraining(path, resolveTrainOptions({ ...given, ...options }));
}

/** The numbers of initializers. */
function numbersOf(path: string, names: readonly string[]): Float64Array[] {
  const opened = openModel(path);
  const reader = new TensorReader(opened, new ExternalFiles(opened));
  const numbers = names.map((name) => reader.float64(opened.graph.initializers.get(name)!).slice());
  opened.close();
  return numbers;
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
    const alone = await merge(base, { adapter, output: files.fresh() });
    expect(sameFiles(alone.output, merged.output)).toBe(true);
  });

  test('of a convolution are its own, and layers without one are told', async () => {
    const base = files.write(
      model({
        nodes: [
          node('Conv', ['x', 'k', 'b'], 'c', {}, 'conv'),
          node('GlobalAveragePool', ['c'], 'p'),
          node('Flatten', ['p'], 'f'),
          node('MatMul', ['f', 'w'], 'y', {}, 'bare'),
        ],
        initializers: [tensor('k', [3, 2, 1, 1]), tensor('b', [3]), tensor('w', [3, 2])],
        inputs: [value('x', ['batch', 2, 4, 4])],
        outputs: [value('y', ['batch', 2])],
      }),
    );
    const { output } = await patch(base, { rank: 2, blocks: 1, targets: ['conv', 'bare'] });
    const images = safetensors({
      x: ['float32', [SAMPLES, 2, 4, 4], [...randomNumbers(1, SAMPLES * 32)]],
      target: ['float32', [SAMPLES, 2], targets],
    });
    const notes: string[] = [];
    const options = { trainBias: true, lr: 0.05, onNote: (text: string) => notes.push(text) };
    const trained = await train(output, {
      data: files.write(images, 'images.safetensors'),
      ...options,
    });
    expect(notes).toContainEqual('1 of 2 adapted layers have no bias that could train: bare');
    const numbers = numbersOf(trained.output, ['b'])[0]!;
    expect(numbers).not.toEqual(numbersOf(base, ['b'])[0]);
    const back = await unpatch(trained.output, { output: files.fresh() });
    expect(sameFiles(back.output, base)).toBe(true);
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
  const encoder = (opset: number, more: readonly ReturnType<typeof value>[] = []) =>
    model({
      opset,
      nodes: [node('MatMul', ['x', 'w'], 'h', {}, 'layer'), node('Tanh', ['h'], 'hidden')],
      initializers: [tensor('w', [3, 4])],
      inputs: [value('x', ['batch', 'time', 3]), ...more],
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

  test('takes a step of plain gradient descent', async () => {
    const base = files.write(encoder(17));
    const { output } = await patch(base, { rank: 2, blocks: 1, head: 'linear:2:mean' });
    const targets = [...randomNumbers(4, SAMPLES * 2)];
    const numbers = safetensors({
      x: ['float32', [SAMPLES, 5, 3], inputs],
      target: ['float32', [SAMPLES, 2], targets],
    });
    const plain = { optimizer: 'sgd', momentum: 0, weightDecay: 0, clip: 0 } as const;
    const once = { lr: 0.1, schedule: 'constant', steps: 1, batchSize: SAMPLES } as const;
    const path = files.write(numbers, 'numbers.safetensors');
    const trained = await train(output, { data: path, ...plain, ...once });
    const dims = [SAMPLES, 5, 3];
    const hidden = await outputOf(output, 'hidden', inputs, dims);
    const logits = await outputOf(output, 'logits', inputs, dims);
    const names = ['lora/default/head/weight', 'lora/default/head/bias'];
    const [[w0, b0], [w1, b1]] = [numbersOf(output, names), numbersOf(trained.output, names)];
    // d mean((z - t)²) / dz, and the mean of the hidden states over time.
    const dz = (row: number, c: number) =>
      (2 * (logits[row * 2 + c]! - targets[row * 2 + c]!)) / (SAMPLES * 2);
    const pooled = (row: number, f: number) =>
      [0, 1, 2, 3, 4].reduce((sum, t) => sum + hidden[(row * 5 + t) * 4 + f]!, 0) / 5;
    const overRows = (term: (row: number) => number) =>
      Array.from({ length: SAMPLES }, (_, row) => term(row)).reduce((a, b) => a + b);
    for (const c of [0, 1]) {
      expect(b1![c]! - b0![c]!).toBeCloseTo(-0.1 * overRows((row) => dz(row, c)), 6);
      for (const f of [0, 1, 2, 3]) {
        const gradient = overRows((row) => pooled(row, f) * dz(row, c));
        expect(w1![f * 2 + c]! - w0![f * 2 + c]!).toBeCloseTo(-0.1 * gradient, 6);
      }
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

  test('is what a merged model is evaluated by, and trained from', async () => {
    const { output } = await patch(files.write(encoder(17)), {
      ...{ rank: 2, blocks: 1, head: 'linear:2:mean', output: files.fresh() },
    });
    const given = { data: data(), loss: 'cross-entropy' } as const;
    const trained = await train(output, { ...given, lr: 0.05, epochs: 3 });
    const merged = await merge(trained.output, { output: files.fresh() });
    const expected = await evaluate(trained.output, given);
    const { loss, accuracy } = await evaluate(merged.output, given);
    expect(loss).toBeCloseTo(expected.loss, 5);
    expect(accuracy).toBe(expected.accuracy);
    const again = await patch(merged.output, { rank: 2, blocks: 1, output: files.fresh() });
    const more = await train(again.output, { ...given, steps: 1, batchSize: SAMPLES });
    expect(more.loss!.first).toBeCloseTo(loss, 5);
  });

  test.each([12, 18])('learns though a sample has no token (opset %i)', async (opset) => {
    const base = encoder(opset, [value('attention_mask', ['batch', 'time'], 'int64')]);
    const { output } = await patch(files.write(base), {
      ...{ rank: 2, blocks: 1, head: 'linear:2:mean', output: files.fresh() },
    });
    const masked = files.write(
      safetensors({
        x: ['float32', [SAMPLES, 5, 3], inputs],
        attention_mask: ['int64', [SAMPLES, 5], Array.from(labels, (c) => Array(5).fill(c)).flat()],
        labels: ['int64', [SAMPLES], labels],
      }),
      'masked.safetensors',
    );
    const options = { data: masked, loss: 'cross-entropy', lr: 0.1, epochs: 40 } as const;
    const { loss } = await train(output, { ...options, batchSize: SAMPLES });
    expect(loss!.last).toBeLessThan(0.8 * loss!.first);
  });

  test('that does not fit is refused', async () => {
    const base = files.write(encoder(17));
    const tooMany = () => patch(base, { head: 'linear:0', output: files.fresh() });
    await failure(tooMany, 'invalid-argument');
    const noSuch = () => patch(base, { head: 'linear:2', modelOutput: 'h', output: files.fresh() });
    expect((await failure(noSuch, 'invalid-argument')).message).toContain('hidden');
  });
});

describe('a head and biases together', () => {
  const base = zooModel('minilm-embed');
  const data = () => {
    const { input_ids, attention_mask } = zooFeeds('minilm-embed');
    const { dims } = input_ids!;
    const labels = Array.from({ length: dims[0]! }, (_, i) => i % 3);
    return files.write(
      safetensors({
        input_ids: ['int64', dims, Array.from(input_ids!.data as BigInt64Array, Number)],
        attention_mask: ['int64', dims, Array.from(attention_mask!.data as BigInt64Array, Number)],
        labels: ['int64', [dims[0]!], labels],
      }),
      'data.safetensors',
    );
  };
  /** The patched model in a folder of its own, and options of a run that adds a head. */
  async function started() {
    const output = files.fresh('model.lora.onnx');
    await patch(base, { rank: 4, blocks: 2, output });
    const extras = { head: 'linear:3:none', trainBias: true } as const;
    const more = { loss: 'cross-entropy', lr: 0.02, steps: 12, batchSize: 2 } as const;
    return { patched: output, options: { data: data(), ...extras, ...more } };
  }

  test('learn on a real encoder, and come off again', async () => {
    const { patched, options } = await started();
    const adapter = files.fresh('adapter.safetensors');
    const trained = await train(patched, { ...options, saveAdapter: adapter });
    expect(trained.loss!.last).toBeLessThan(0.5 * trained.loss!.first);
    const back = await unpatch(trained.output, { output: files.fresh() });
    expect(sameFiles(back.output, base)).toBe(true);
    const applied = await apply(base, adapter, { output: files.fresh() });
    expect(sameFiles(applied.output, trained.output)).toBe(true);
    expect((await merge(trained.output, { output: files.fresh() })).verification!.passed).toBe(
      true,
    );
  });

  test('are in no file until the run is over, and the same as if they had been', async () => {
    const { patched, options } = await started();
    const { head, ...rest } = options;
    const early = files.fresh('model.lora.onnx');
    await patch(base, { rank: 4, blocks: 2, head, output: early });
    const first = await train(early, rest);
    const seen = new Set<string>();
    const onProgress = () => {
      for (const name of readdirSync(dirname(patched))) seen.add(name);
    };
    const second = await train(patched, { ...options, onProgress });
    expect([...seen]).toEqual(['model.lora.onnx']);
    expect(second.loss).toEqual(first.loss);
    expect(sameFiles(second.output, first.output)).toBe(true);
  });

  test('go on from a checkpoint to the same numbers', async () => {
    const { patched, options } = await started();
    const whole = await train(patched, options);
    const checkpoint = join(files.fresh('x'), '../checkpoint');
    const broken = { ...options, checkpoint, checkpointEvery: 2 };
    const controller = new AbortController();
    let seen = 0;
    const onProgress = ({ phase }: { phase: string }) => {
      if (phase === 'training' && ++seen === 5) controller.abort();
    };
    const stopped = () => train(patched, { ...broken, signal: controller.signal, onProgress });
    await failure(stopped, 'aborted');
    const resumed = await train(patched, { ...broken, resume: true });
    expect(sameFiles(resumed.output, whole.output)).toBe(true);
  });

  test('stand in the emitted step graph; the model itself is left alone', async () => {
    const { patched, options } = await started();
    const before = readFileSync(patched);
    const folder = dirname(patched);
    const emitStepGraph = join(folder, 'step.onnx');
    // A step that is only written has no course.
    const ofRuns = { output: undefined, provider: undefined, lr: undefined, steps: undefined };
    const step = { ...options, ...ofRuns };
    await train(patched, { ...step, emitStepGraph });
    const written = openModel(emitStepGraph);
    const manifest = JSON.parse(
      written.metadata.find(({ key }) => key === STEP_MANIFEST_KEY)!.value(),
    );
    written.close();
    const names = manifest.parameters.map(({ name }: { name: string }) => name);
    expect(names).toContain('lora/default/head/weight');
    expect(names.filter((name: string) => name.endsWith('.bias')).length).toBeGreaterThan(0);
    const overwrite = { ...step, emitStepGraph: patched, force: true };
    const refused = await failure(() => train(patched, overwrite), 'invalid-argument');
    expect(refused.message).toContain('is an input');
    await failure(
      () => train(patched, { ...options, plot: patched, force: true }),
      'invalid-argument',
    );
    expect(readFileSync(patched).equals(before)).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(['model.lora.onnx', 'step.onnx']);
  });
});
