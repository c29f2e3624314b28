/** Gradients of whole models against the ones that PyTorch and PEFT recorded. */
import { expect, test } from 'vitest';
import type { FactorName } from '../../src/adapters/factors/factors.js';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { loadGraph } from '../../src/graph/load.js';
import { toIntegers } from '../../src/onnx/dtype.js';
import { collect } from '../../src/onnx/edit.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';
import type { TensorValue } from '../../src/runtime/tensor-value.js';
import { addLoss } from '../../src/training/losses/index.js';
import { type Expected, goldenModel, type Kind, lossOf, peftFactor } from '../support/golden.js';
import { goldenCases, zooJson, zooTensors } from '../support/zoo.js';

const later = new Set(['llama-q4-causal']);

for (const name of goldenCases.filter((c) => !later.has(c))) {
  for (const kind of ['lora', 'gralora'] as const) {
    test(`${name} ${kind}`, () => compare(name, kind));
  }
}

async function compare(name: string, kind: Kind) {
  const model = parseModel(new MemorySource(await goldenModel(name, kind)));
  const patched = new PatchedModel(model);
  const graph = loadGraph(model, new TensorReader(model, new ExternalFiles(model)));
  const { output, loss: lossSpec, loss_per_step } = zooJson<Expected>(name, kind, 'expected.json');
  const outputType = (await inferTypes(graph)).get(output)!;
  const added = addLoss(graph, lossOf(lossSpec.kind), { name: output, ...outputType });
  const adapters = patched.sets[0]!.adapters;
  const wrt = adapters.flatMap(({ a, b, generalA, generalB }) =>
    [a, b, generalA, generalB].filter((x) => x !== undefined),
  );
  const gradients = differentiate(graph, await inferTypes(graph), added.loss, wrt, {
    seeds: added.seeds,
  });
  graph.outputs.length = 0;
  graph.outputs.push({ name: added.loss, dtype: 'float32', shape: [] });
  for (const g of gradients.values())
    graph.outputs.push({ name: g, dtype: 'float32', shape: null });
  const session = await openSession(await collect(graph.modelPieces()));
  const feeds = zooTensors([name, kind, 'train.safetensors'], (file) => {
    const values = new Map<string, TensorValue>();
    for (const [key, { dtype, shape }] of file.tensors) {
      const dims = shape.slice(1);
      const count = dims.reduce((a, b) => a * b, 1);
      const data =
        dtype === 'float32'
          ? file.readFloat32(key).slice(0, count)
          : (toIntegers(dtype, file.read(key).slice(), count * shape[0]!) as BigInt64Array).slice(
              0,
              count,
            );
      values.set(key.replace(/^input\./, ''), { dtype, dims, data });
    }
    return values;
  });
  const results = await session.run(feeds);
  await session.release();
  const loss = Number(results.get(added.loss)!.data[0]);
  expect(Math.abs(loss / loss_per_step[0]! - 1), 'relative error of the loss').toBeLessThan(1e-5);
  zooTensors([name, kind, 'expected.safetensors'], (file) => {
    for (const adapter of adapters) {
      for (const factor of ['a', 'b', 'generalA', 'generalB'] as FactorName[]) {
        const tensor = adapter[factor];
        if (tensor === undefined) continue;
        const expected = peftFactor(file, adapter.name, kind, factor, 'grad.');
        const found = results.get(gradients.get(tensor)!)!.data as Float32Array;
        expect(found.length).toBe(expected.length);
        expect(relative(found, expected), `${adapter.name} ${factor}`).toBeLessThan(1e-4);
      }
    }
  });
}

function relative(found: Float32Array, expected: Float64Array): number {
  let difference = 0;
  let size = 0;
  expected.forEach((value, i) => {
    difference += (found[i]! - value) ** 2;
    size += value ** 2;
  });
  return Math.sqrt(difference / size);
}
