/** Twenty training steps of whole models against the ones that PEFT and torch.optim.AdamW took. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { FactorName } from '../../src/adapters/factors/factors.js';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { apply } from '../../src/commands/apply.js';
import type { SafetensorsFile } from '../../src/formats/safetensors.js';
import { toIntegers } from '../../src/onnx/dtype.js';
import { collect } from '../../src/onnx/edit.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { openSession } from '../../src/runtime/session.js';
import type { TensorValue } from '../../src/runtime/tensor-value.js';
import { buildForward } from '../../src/training/forward.js';
import type { AllowedOperators } from '../../src/training/layers/factor-gradients.js';
import type { LossName } from '../../src/training/losses/index.js';
import { stepScalars } from '../../src/training/optimizers/index.js';
import type { Parameter } from '../../src/training/parameters.js';
import { buildStepGraph } from '../../src/training/step-graph.js';
import { temporaryFolder } from '../support/files.js';
import { type Expected, goldenModel, type Kind, peftFactor } from '../support/golden.js';
import { goldenCases, ZOO, zooJson, zooModel, zooTensors } from '../support/zoo.js';

interface Recorded extends Expected {
  readonly optimizer: {
    readonly beta1: number;
    readonly beta2: number;
    readonly eps: number;
    readonly weight_decay: number;
  };
  readonly clip_grad_norm: number | null;
  readonly loss_per_step: readonly number[];
  readonly grad_norm_per_step: readonly number[];
  readonly lr_per_step: readonly number[];
}

const lossNames: Record<string, LossName> = {
  cross_entropy: 'cross-entropy',
  causal_lm: 'causal-lm',
  ctc: 'ctc',
  multiple_negatives_ranking: 'mnr',
  mse: 'mse',
};

/** Ways to write the step. */
const forms: Readonly<Record<string, AllowedOperators | undefined>> = {
  'as in the model': undefined,
  'for the CPU': { fused: true },
  'in standard operators': { fused: false },
};

describe.each(goldenCases)('%s', (name) => {
  describe.each(['lora', 'gralora'] as const)('%s', (kind) => {
    test.each(Object.keys(forms))('%s', (form) => followsPeft(name, kind, forms[form]));
  });
});

const folder = temporaryFolder();

test.each(['lora', 'gralora'] as const)(
  'query, key and value packed into one operator follow %s of separate ones',
  async (kind) => {
    const output = folder.fresh();
    const name = 'bert-cls-torchscript';
    await apply(zooModel('bert-ort-attention'), join(ZOO, name, kind, 'init'), { output });
    await followsPeft(name, kind, { fused: true }, readFileSync(output));
  },
);

async function followsPeft(
  name: string,
  kind: Kind,
  rewrite: AllowedOperators | undefined,
  bytes?: Uint8Array,
) {
  const recorded = zooJson<Recorded>(name, kind, 'expected.json');
  const model = parseModel(new MemorySource(bytes ?? (await goldenModel(name, kind))));
  const reader = new TensorReader(model, new ExternalFiles(model));
  const patched = new PatchedModel(model);
  const loss = lossNames[recorded.loss.kind]!;
  const forward = await buildForward(patched, reader, { loss, rewrite });
  const { beta1, beta2, eps, weight_decay: weightDecay } = recorded.optimizer;
  const clip = recorded.clip_grad_norm ?? 0;
  const betas = [beta1, beta2] as const;
  const options = { optimizer: 'adamw', betas, eps, weightDecay, clip, momentum: 0 } as const;
  const step = await buildStepGraph(forward, {
    ...options,
    accumulate: 1,
    fused: rewrite?.fused ?? false,
  });
  const session = await openSession(await collect(step.graph.modelPieces()));
  const theta = new Float32Array(step.size);
  for (const { name: tensor, offset } of forward.parameters)
    theta.set(reader.float32(patched.initializer(tensor)), offset);
  const state = new Map<string, TensorValue>(
    step.state.map(({ input }) => [
      input,
      vector(input === 'theta' ? theta : new Float32Array(step.size)),
    ]),
  );
  for (const [i, lr] of recorded.lr_per_step.entries()) {
    const scalars = Object.entries(stepScalars({ ...options }, lr, i + 1));
    const results = await session.run(
      new Map([
        ...batchOf(name, kind, i),
        ...state,
        ...scalars.map(([key, value]) => [key, scalar(value)] as const),
      ]),
    );
    const tolerance = i === 0 ? 1e-5 : 1e-4;
    expect(relativeError(results.get(step.loss)!, recorded.loss_per_step[i]!)).toBeLessThan(
      tolerance,
    );
    expect(
      relativeError(results.get(step.gradientNorm)!, recorded.grad_norm_per_step[i]!),
    ).toBeLessThan(1e-3);
    for (const { input, output } of step.state) state.set(input, results.get(output)!);
  }
  await session.release();
  compareFactors(name, kind, patched, forward.parameters, state.get('theta')!.data as Float32Array);
}

/** All final numbers together within 1e-3, each tensor within 5e-3, as the zoo's README derives. */
function compareFactors(
  name: string,
  kind: Kind,
  patched: PatchedModel,
  parameters: readonly Parameter[],
  theta: Float32Array,
) {
  const total = { difference: 0, size: 0 };
  zooTensors([name, kind, 'final', 'adapter_model.safetensors'], (file) => {
    for (const adapter of patched.sets[0]!.adapters) {
      for (const factor of ['a', 'b', 'generalA', 'generalB'] as FactorName[]) {
        const parameter = parameters.find((one) => one.name === adapter[factor]);
        if (!parameter) continue;
        const found = theta.subarray(parameter.offset, parameter.offset + parameter.length);
        const { difference, size } = squares(found, peftFactor(file, adapter.name, kind, factor));
        total.difference += difference;
        total.size += size;
        expect(Math.sqrt(difference / size), `${adapter.name} ${factor}`).toBeLessThan(5e-3);
      }
    }
  });
  expect(Math.sqrt(total.difference / total.size)).toBeLessThan(1e-3);
}

function squares(found: Float32Array, expected: Float64Array) {
  const squared = (value: (i: number) => number) =>
    expected.reduce((sum, _, i) => sum + value(i) ** 2, 0);
  return {
    difference: squared((i) => found[i]! - expected[i]!),
    size: squared((i) => expected[i]!),
  };
}

/** One of the recorded batches, which have the steps as their leading axis. */
function batchOf(name: string, kind: Kind, step: number): Map<string, TensorValue> {
  return zooTensors([name, kind, 'train.safetensors'], (file) => {
    const keys = [...file.tensors.keys()];
    return new Map(keys.map((key) => [key.replace(/^input\./, ''), sliceOf(file, key, step)]));
  });
}

function sliceOf(file: SafetensorsFile, key: string, step: number): TensorValue {
  const { dtype, shape } = file.tensors.get(key)!;
  const [steps, ...dims] = shape as [number, ...number[]];
  const size = dims.reduce((a, b) => a * b, 1);
  const values =
    dtype === 'float32'
      ? file.readFloat32(key)
      : (toIntegers(dtype, file.read(key).slice(), steps * size) as BigInt64Array);
  return { dtype, dims, data: values.slice(step * size, (step + 1) * size) };
}

function vector(data: Float32Array): TensorValue {
  return { dtype: 'float32', dims: [data.length], data };
}

function scalar(value: number): TensorValue {
  return { dtype: 'float32', dims: [], data: Float32Array.of(value) };
}

function relativeError({ data }: TensorValue, expected: number): number {
  return Math.abs(Number(data[0]) - expected) / Math.abs(expected);
}
