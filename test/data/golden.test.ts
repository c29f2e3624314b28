/** The recorded training batches as a data file: each step gets exactly its batch back. */
import { expect, test } from 'vitest';
import { checkDataset } from '../../src/data/check.js';
import { convertBatch } from '../../src/data/convert.js';
import type { DataNeeds } from '../../src/data/needs.js';
import { openDataset } from '../../src/data/open-dataset.js';
import { BatchOrder } from '../../src/data/order.js';
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import { loadGraph } from '../../src/graph/load.js';
import { ValueIndex } from '../../src/graph/uses.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { elementCount } from '../../src/onnx/model.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { IndexTracer } from '../../src/runtime/index-bounds.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { addLoss, type LossName, labelRequest } from '../../src/training/losses/index.js';
import { temporaryFolder } from '../support/files.js';
import { type Expected, lossOf } from '../support/golden.js';
import { goldenCases, zooJson, zooModel, zooTensors } from '../support/zoo.js';

const folder = temporaryFolder();

interface Recorded {
  readonly key: string;
  readonly dtype: 'float32' | 'int64';
  /** Steps first. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

test.each(goldenCases)('%s', async (name) => {
  const loss = lossOf(zooJson<Expected>(name, 'lora', 'expected.json').loss.kind);
  const recorded = readSteps(name).filter(({ key }) => loss !== 'mnr' || key !== 'labels');
  const dataset = await openDataset(saveRows(recorded, loss));
  const steps = recorded[0]!.shape[0]!;
  const batchSize = dataset.size / steps;
  const needs = await needsOf(name, loss);
  const batches = { batchSize, shuffle: false };
  const plan = await checkDataset(dataset, { ...needs, batches });
  expect(plan.unused).toEqual([]);

  const order = new BatchOrder({ size: dataset.size, ...batches, seed: 0 });
  for (const step of [0, 1, steps - 1]) {
    const feeds = convertBatch(await dataset.batch(order.indices(step), plan.keys), plan);
    expect([...feeds.keys()].sort()).toEqual(recorded.map(({ key }) => key).sort());
    for (const { key, dtype, shape, bytes } of recorded) {
      const count = elementCount(shape.slice(1));
      const width = count * (dtype === 'int64' ? 8 : 4);
      const part = bytes.slice(step * width, (step + 1) * width);
      const numbers = new (dtype === 'int64' ? BigInt64Array : Float32Array)(part.buffer);
      expect(feeds.get(key)).toEqual({ dtype, dims: shape.slice(1), data: numbers });
    }
  }
  dataset.close();
});

/** The arrays of all steps, under the names that data files have. */
function readSteps(name: string): Recorded[] {
  return zooTensors([name, 'lora', 'train.safetensors'], (file) =>
    [...file.tensors].map(([key, { dtype, shape }]) => ({
      key: key.replace(/^input\./, ''),
      dtype: dtype as Recorded['dtype'],
      shape,
      bytes: file.read(key),
    })),
  );
}

/** [steps, rows, ..] as [steps * rows, ..]; for mnr, anchors and positives as [steps * pairs, 2, ..]. */
function saveRows(recorded: readonly Recorded[], loss: LossName): string {
  const tensors = recorded.map(({ key, dtype, shape: [steps, rows, ...rest], bytes }) => {
    const count = steps! * rows!;
    if (loss !== 'mnr') return { name: key, dtype, shape: [count, ...rest], data: bytes };
    const width = bytes.length / count;
    const row = (i: number) => bytes.subarray(i * width, (i + 1) * width);
    const half = rows! / 2;
    const inPairs = Array.from({ length: count / 2 }, (_, i) => {
      const anchor = Math.floor(i / half) * rows! + (i % half);
      return Buffer.concat([row(anchor), row(anchor + half)]);
    });
    return { name: key, dtype, shape: [count / 2, 2, ...rest], data: Buffer.concat(inPairs) };
  });
  return folder.write(encodeSafetensors(tensors), 'train.safetensors');
}

async function needsOf(name: string, loss: LossName): Promise<DataNeeds> {
  const model = openModel(zooModel(name));
  const files = new ExternalFiles(model);
  try {
    const graph = loadGraph(model, new TensorReader(model, files));
    const inputs = [...graph.inputs];
    const output = zooJson<Expected>(name, 'lora', 'expected.json').output;
    const type = (await inferTypes(graph)).get(output)!;
    const { inputs: lossInputs } = addLoss(graph, loss, { name: output, ...type });
    const tracer = new IndexTracer(model, new ValueIndex(model));
    const indexBounds = new Map(
      inputs.map((input) => [input.name, tracer.bounds(input.name, { strict: true })]),
    );
    return { inputs, lossInputs, ...labelRequest(loss), output: type, indexBounds };
  } finally {
    files.close();
    model.close();
  }
}
