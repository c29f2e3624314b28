/** Five steps with LoRA+ and with Lion against those of PEFT's create_loraplus_optimizer, or of plain PyTorch. */
import { expect, test } from 'vitest';
import type { FactorName } from '../../src/adapters/factors/factors.js';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import type { SafetensorsFile } from '../../src/formats/safetensors.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { collect } from '../../src/onnx/edit.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { openStatefulSession } from '../../src/runtime/stateful-session.js';
import type { TensorValue } from '../../src/runtime/tensor-value.js';
import { buildForward, type ForwardGraph } from '../../src/training/forward.js';
import { lrFactors } from '../../src/training/lr-factors.js';
import { type OptimizerName, stepScalars } from '../../src/training/optimizers/index.js';
import type { Parameter } from '../../src/training/parameters.js';
import { buildStepGraph } from '../../src/training/step-graph.js';
import { insertInto } from '../support/adapters.js';
import { goldenModel, type Kind, peftFactor } from '../support/golden.js';
import { run } from '../support/run.js';
import { parse } from '../support/wire.js';
import { zooJson, zooTensors } from '../support/zoo.js';
import { tinyModel } from './tiny.js';

interface Recorded {
  readonly kind: Kind;
  readonly optimizer: OptimizerName;
  readonly lr: number;
  readonly lrRatio: number;
  readonly weightDecay: number;
  readonly trainBias: boolean;
  readonly betas: readonly [number, number];
  readonly clip: number;
  readonly loss_per_step: readonly number[];
  readonly grad_norm_per_step: readonly number[];
}

const CASE = 'mlp-regression';
const recorded = zooJson<Record<string, Recorded>>(CASE, 'lora-plus', 'expected.json');

test.each(Object.entries(recorded))(
  '%s',
  async (name, { kind, trainBias, lr, loss_per_step, grad_norm_per_step, ...options }) => {
    const model = parseModel(new MemorySource(await goldenModel(CASE, kind)));
    const reader = new TensorReader(model, new ExternalFiles(model));
    const patched = new PatchedModel(model);
    const forward = await buildForward(patched, reader, { loss: 'mse', trainBias });
    const common = { eps: 1e-8, momentum: 0.9, accumulate: 1, fused: false };
    const { graph, state, size, ...names } = await buildStepGraph(forward, {
      ...common,
      ...options,
    });
    const theta = new Float32Array(size);
    for (const { name: tensor, offset } of forward.parameters)
      theta.set(reader.float32(patched.constant(tensor)), offset);
    const initial = new Map(
      state.map((one) => [
        one.input,
        vector(one.name === 'theta' ? theta : new Float32Array(size)),
      ]),
    );
    const session = await openStatefulSession(await collect(graph.modelPieces()), {
      state,
      initial,
    });
    for (const [i, loss] of loss_per_step.entries()) {
      const scalars = Object.entries(stepScalars(options, lr, i + 1));
      const feeds = scalars.map(([key, value]) => [key, scalar(value)] as const);
      const outputs = await session.run(new Map([...batch(kind, i), ...feeds]));
      const found = (output: string) => Number(outputs.get(output)!.data[0]);
      expect(found(names.loss) / loss).toBeCloseTo(1, 5);
      expect(found(names.gradientNorm) / grad_norm_per_step[i]!).toBeCloseTo(1, 5);
    }
    const final = (await session.readState()).get('theta')!.data as Float32Array;
    await session.release();
    for (const [parameter, expected] of expectedTensors(name, kind, patched, forward)) {
      const { offset, length } = parameter;
      const distance = distanceOf(final.subarray(offset, offset + length), expected);
      expect(distance, parameter.name).toBeLessThan(1e-5);
    }
  },
);

test('B of the hybrid part learns at the rate of B too', async () => {
  const model = parse(await insertInto(tinyModel(), { rank: 4, blocks: 2, hybrid: 1 }));
  const reader = new TensorReader(model, new ExternalFiles(model));
  const forward = await buildForward(new PatchedModel(model), reader, { loss: 'mse' });
  const { parameters, set } = forward;
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  const { rates, decays } = lrFactors(graph, forward, 16)!;
  graph.outputs.push({ name: rates, dtype: 'float32', shape: null });
  const { data } = (await run(await collect(graph.modelPieces()), {}))[rates]!;
  const fast = set.adapters.flatMap(({ b, generalB }) => [b, generalB!]);
  for (const { name, offset, length } of parameters) {
    const expected = new Array(length).fill(fast.includes(name) ? 16 : 1);
    expect([...data.slice(offset, offset + length)], name).toEqual(expected);
  }
  expect(decays).toBeUndefined();
  expect(parameters.map(({ name }) => name)).toEqual(expect.arrayContaining(fast));
});

test('a ratio of 1 leaves the graph as it is', async () => {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  expect(
    lrFactors(graph, { set: { adapters: [] }, parameters: [], biases: [] }, 1),
  ).toBeUndefined();
  expect(graph.nodes).toEqual([]);
});

/** What PEFT's tensors are for our parameters. */
function expectedTensors(
  name: string,
  kind: Kind,
  patched: PatchedModel,
  { parameters, biases }: ForwardGraph,
): (readonly [Parameter, Float64Array])[] {
  return zooTensors([CASE, 'lora-plus', `${name}.safetensors`], (file) =>
    parameters.map((parameter) => {
      const adapter = patched.sets[0]!.adapters.find(({ a, b }) => [a, b].includes(parameter.name));
      if (adapter) {
        const factor: FactorName = adapter.a === parameter.name ? 'a' : 'b';
        return [parameter, peftFactor(file, adapter.name, kind, factor)] as const;
      }
      expect(biases).toContain(parameter.name);
      return [parameter, biasIn(file, parameter.name)] as const;
    }),
  );
}

function biasIn(file: SafetensorsFile, name: string): Float64Array {
  return file.readFloat64(`base_model.model.${name.replace('.bias', '.base_layer.bias')}`).slice();
}

function batch(kind: Kind, step: number): Map<string, TensorValue> {
  return zooTensors([CASE, kind, 'train.safetensors'], (file) => {
    const read = (key: string): TensorValue => {
      const [, ...dims] = file.tensors.get(key)!.shape;
      const size = dims.reduce((a, b) => a * b, 1);
      const data = file.readFloat32(key).slice(step * size, (step + 1) * size);
      return { dtype: 'float32', dims, data };
    };
    return new Map([
      ['x', read('input.x')],
      ['target', read('target')],
    ]);
  });
}

function distanceOf(found: Float32Array, expected: Float64Array): number {
  return Math.hypot(...expected.map((value, i) => found[i]! - value)) / Math.hypot(...expected);
}

function vector(data: Float32Array): TensorValue {
  return { dtype: 'float32', dims: [data.length], data };
}

function scalar(value: number): TensorValue {
  return { dtype: 'float32', dims: [], data: Float32Array.of(value) };
}
