/** Whole training runs on WebGPU beside the same runs on the CPU. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { resolveTrainOptions, type TrainOptions } from '../../../src/commands/options/train.js';
import type { TrainResult } from '../../../src/commands/train/result.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { openDataset } from '../../../src/data/open-dataset.js';
import { collect } from '../../../src/onnx/edit.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { openModel } from '../../../src/onnx/parse.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { providerInfo } from '../../../src/runtime/providers.js';
import { openStatefulSession } from '../../../src/runtime/stateful-session.js';
import { Batches } from '../../../src/training/batches.js';
import { buildForward } from '../../../src/training/forward.js';
import { batchShapes } from '../../../src/training/layers/data-shapes.js';
import { buildStepGraph, stepOptionsOf } from '../../../src/training/step-graph.js';
import { safetensors } from '../../data/data.js';
import { insertInto, randomNumbers } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { type Expected, goldenModel, type Kind, lossOf } from '../../support/golden.js';
import { model, node, tensor, value } from '../../support/models.js';
import { zooSamples } from '../../support/samples.js';
import { describeOnWebGpu } from '../../support/vulkan.js';
import { zooJson } from '../../support/zoo.js';

const files = temporaryFolder();

interface Run {
  readonly model: string;
  readonly options: Pick<TrainOptions, 'data' | 'loss' | 'batchSize'>;
}

/** A recorded case with batches of its first steps. */
async function recorded(name: string, kind: Kind, steps: number): Promise<Run> {
  const { loss, batch } = zooJson<Expected & { batch: number }>(name, kind, 'expected.json');
  const data = files.write(zooSamples(name, kind, steps), 'data.safetensors');
  const options = { data, loss: lossOf(loss.kind), batchSize: batch };
  return { model: files.write(await goldenModel(name, kind)), options };
}

/** Trains in the order of the file, and gives the losses too. */
async function train(run: Run, more: Partial<TrainOptions>) {
  const [output, log] = [files.fresh(), files.fresh('log.jsonl')];
  const options = { ...run.options, shuffle: false, lr: 1e-3, output, log, ...more };
  const result = await runTraining(run.model, resolveTrainOptions(options));
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  return { result, losses: lines.map((line): number => JSON.parse(line).loss) };
}

async function expectLossesOfCpu(run: Run, steps: number, more: Partial<TrainOptions> = {}) {
  const cpu = await train(run, { ...more, steps, provider: 'cpu' });
  const gpu = await train(run, { ...more, steps, provider: 'webgpu' });
  expect(cpu.losses).toHaveLength(steps);
  expect(gpu.losses).toHaveLength(steps);
  for (const [i, loss] of gpu.losses.entries()) {
    expect(Math.abs(loss - cpu.losses[i]!) / cpu.losses[i]!, `step ${i + 1}`).toBeLessThan(1e-4);
  }
  return gpu.result;
}

function expectAllOnWebGpu({ provider }: TrainResult): void {
  expect(provider).toEqual({
    requested: 'webgpu',
    used: 'webgpu',
    nodes: { webgpu: expect.any(Number) },
    fallbacks: [],
  });
  expect(provider!.nodes.webgpu).toBeGreaterThan(10);
}

describeOnWebGpu('training on WebGPU', () => {
  it.each<[string, Kind]>([
    ['bert-cls-torchscript', 'gralora'],
    ['bert-cls-dynamo', 'lora'],
    ['gpt2-causal', 'lora'],
    ['llama-causal', 'lora'],
    ['minilm-embed', 'lora'],
  ])('takes the steps of %s %s as the CPU does, and takes them whole', async (name, kind) => {
    expectAllOnWebGpu(await expectLossesOfCpu(await recorded(name, kind, 5), 20));
  });

  it.each<[string, Kind]>([
    ['bert-cls-torchscript', 'gralora'],
    ['llama-causal', 'lora'],
  ])('steps through %s %s where the CPU is forbidden', async (name, kind) => {
    const run = await recorded(name, kind, 1);
    const opened = openModel(run.model);
    const dataset = await openDataset(run.options.data);
    const { loss, batchSize = 0 } = run.options;
    const reader = new TensorReader(opened, new ExternalFiles(opened));
    const inputShapes = batchShapes(opened.graph.inputs, dataset, batchSize, true);
    const options = { loss, rewrite: { fused: false }, forGpu: true, inputShapes };
    const patched = new PatchedModel(opened);
    const forward = await buildForward(patched, reader, options);
    const order = { loss, batchSize, shuffle: false, seed: 0 };
    const batches = await Batches.of(dataset, opened, forward, order, {});
    const { graph, state, size } = await buildStepGraph(
      forward,
      stepOptionsOf({ ...resolveTrainOptions(run.options), accumulate: 1, fused: false }),
    );
    const theta = new Float32Array(size);
    for (const { name: tensor, offset } of forward.parameters) {
      theta.set(reader.float32(patched.initializer(tensor)), offset);
    }
    const vector = (data: Float32Array) => ({ dtype: 'float32', dims: [size], data }) as const;
    const initial = state.map(({ input }) => [input, vector(new Float32Array(size))] as const);
    const session = await openStatefulSession(await collect(graph.modelPieces()), {
      provider: 'webgpu',
      cpuFallback: false,
      state,
      initial: new Map([...initial, ['theta', vector(theta)]]),
    });
    const one = { dtype: 'float32', dims: [], data: Float32Array.of(1) } as const;
    const scalars = ['lr', 'correction1', 'correction2'].map((key) => [key, one] as const);
    const outputs = await session.run(new Map([...(await batches.at(0)), ...scalars]));
    const [first] = zooJson<Expected>(name, kind, 'expected.json').loss_per_step;
    expect(outputs.get('loss')!.data[0]).toBeCloseTo(first!, 4);
    await session.release();
    dataset.close();
    opened.close();
  });

  it.each<[string, Partial<TrainOptions>]>([
    ['dropout', { dropout: 0.1 }],
    ['accumulated batches', { accumulate: 2 }],
    ['SGD', { optimizer: 'sgd' }],
    ['label smoothing and class weights', { labelSmoothing: 0.1, classWeights: [1, 2, 3] }],
  ])('has no need of the CPU for %s', async (_, options) => {
    const run = await recorded('bert-cls-torchscript', 'lora', 5);
    expectAllOnWebGpu(await expectLossesOfCpu(run, 3, options));
  });

  it('evaluates as the CPU does', async () => {
    const run = await recorded('bert-cls-torchscript', 'lora', 5);
    const more = { steps: 2, evalData: run.options.data };
    const [cpu, gpu] = [
      await train(run, { ...more, provider: 'cpu' }),
      await train(run, { ...more, provider: 'webgpu' }),
    ];
    expect(gpu.result.eval!.loss).toBeCloseTo(cpu.result.eval!.loss!, 4);
    expect(gpu.result.eval!.accuracy).toBe(cpu.result.eval!.accuracy);
  });

  it('names the nodes that the CPU ran', async () => {
    const run = await recorded('wav2vec2-ctc', 'lora', 1);
    const { provider } = await expectLossesOfCpu(run, 1);
    expect(provider!.fallbacks.map(({ op }) => op)).toContain('Scan');
    expect(provider!.nodes.cpu).toBe(provider!.fallbacks.length);
  });

  it('says why shapes vary where the last batch is smaller', async () => {
    const run = await recorded('mlp-regression', 'lora', 1);
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    const batches = { ...run, options: { ...run.options, batchSize: 6 } };
    await train(batches, { steps: 3, provider: 'webgpu', onNote });
    expect(notes).toEqual([
      expect.stringContaining('the last batch of an epoch has 4 of 6 samples'),
    ]);
  });

  it('takes 1000 steps in constant memory', async () => {
    const run = await wideRun();
    let warm = 0;
    const onProgress = ({ done }: { done: number }) => {
      if (done === 300) warm = process.memoryUsage().rss;
    };
    const { losses } = await train(run, { steps: 1000, provider: 'webgpu', onProgress });
    expect(losses.at(-1)).toBeLessThan(losses[0]! / 2);
    // One state vector kept a step would be 180 MB.
    expect(process.memoryUsage().rss - warm).toBeLessThan(60e6);
  });
});

/** One layer with 64k trainable numbers: y = x·W. */
async function wideRun(): Promise<Run> {
  const width = 512;
  const layer = model({
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'layer')],
    initializers: [tensor('w', [width, width])],
    inputs: [value('x', ['batch', width])],
    outputs: [value('y', ['batch', width])],
  });
  const data = safetensors({
    x: ['float32', [4, width], [...randomNumbers(1, 4 * width)]],
    target: ['float32', [4, width], [...randomNumbers(2, 4 * width)]],
  });
  return {
    model: files.write(await insertInto(layer, { rank: 64, targets: ['all'] })),
    options: { data: files.write(data, 'data.safetensors'), loss: 'mse', batchSize: 4 },
  };
}

const cuda = await providerInfo('cuda');

describe.skipIf(cuda.usable)('a provider that does not work', () => {
  it('is an error that says why', async () => {
    const run = await recorded('mlp-regression', 'lora', 1);
    const error = await failure(() => train(run, { steps: 1, provider: 'cuda' }), 'provider');
    expect(error.message).toBe(`provider cuda does not work here: ${cuda.reason}`);
    expect(error.hint).toContain('listProviders()');
  });
});
