/** dΔW = Xᵀ · dY for layers in every form, against the product computed here. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { findLinearLayers, type OpenLayer } from '../../../src/adapters/targets/index.js';
import { OpBuilder } from '../../../src/autodiff/op-builder.js';
import type { GraphBuilder } from '../../../src/graph/builder.js';
import { loadGraph } from '../../../src/graph/load.js';
import { raiseOpset } from '../../../src/graph/raise-opset.js';
import { ValueIndex } from '../../../src/graph/uses.js';
import { fromFloat64, toFloat64 } from '../../../src/onnx/dtype.js';
import { collect } from '../../../src/onnx/edit.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { parseModel } from '../../../src/onnx/parse.js';
import { MemorySource } from '../../../src/onnx/source.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { inferTypes } from '../../../src/runtime/infer-types.js';
import { deltaGradient } from '../../../src/training/layers/delta-gradient.js';
import { randomNumbers } from '../../support/adapters.js';
import {
  dtypesOf,
  kinds,
  type LinearCase,
  linearModel,
  weightForms,
} from '../../support/linear.js';
import { feed, run } from '../../support/run.js';

const linearCase: fc.Arbitrary<LinearCase> = fc.constantFrom(...kinds).chain((kind) =>
  fc.record({
    kind: fc.constant(kind),
    dtype: fc.constantFrom(...dtypesOf(kind)),
    opset: fc.integer({ min: kind === 'DequantizeLinear' ? 10 : 7, max: 23 }),
    in: fc.integer({ min: 1, max: 9 }),
    out: fc.integer({ min: 1, max: 9 }),
    leading: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
    fixed: fc.constant(false),
    weightForm: fc.constantFrom(...weightForms),
    transA: fc.boolean(),
    transB: fc.boolean(),
    alpha: fc.constantFrom(1, 0.5, -2),
    stride: fc.constantFrom(1, 2),
    bias: fc.constant(false),
    seed: fc.integer({ min: 1, max: 1e6 }),
  }),
);

it('is the product of input and output gradient, however they lie in memory', async () => {
  await fc.assert(
    fc.asyncProperty(linearCase, async (c) => {
      const { bytes, feeds, rows, rowsOf } = linearModel(c);
      const { dims } = (await run(bytes, feeds)).y!;
      const numbers = randomNumbers(
        c.seed + 5,
        dims.reduce((a, b) => a * b, 1),
      );
      const dy = feed(dims, numbers, c.dtype);
      const found = (await run(await withGradient(bytes), { ...feeds, dy })).gradient!;
      expect(found.dims).toEqual([c.in, c.out]);
      const products = rowsOf({ dims, data: roundedAs(c, numbers) });
      const expected = transposedProduct(rows, products, c.in, c.out);
      const scale = Math.max(...expected.map(Math.abs));
      expected.forEach((value, i) => {
        expect(Math.abs(found.data[i]! - value)).toBeLessThan(1e-5 * scale + 1e-9);
      });
    }),
    { numRuns: 200 },
  );
});

/** The numbers as the type that they are fed in holds them. */
function roundedAs({ dtype }: LinearCase, numbers: Float64Array): Float64Array {
  const fed = fromFloat64(dtype, numbers);
  return toFloat64(dtype, fed, numbers.length);
}

/** The model with `gradient`, which is computed from the input and `dy`. */
async function withGradient(bytes: Uint8Array): Promise<Uint8Array> {
  const model = parseModel(new MemorySource(bytes));
  const [layer] = findLinearLayers(model, new ValueIndex(model)) as OpenLayer[];
  const reader = new TensorReader(model, new ExternalFiles(model));
  const loaded = loadGraph(model, reader);
  const graph = raiseOpset(loaded, await inferTypes(loaded));
  const types = await inferTypes(graph);
  const output = types.get(layer!.output)!;
  graph.inputs.push({ name: 'dy', dtype: output.dtype, shape: rankOnly(output.shape) });
  types.set('dy', output);
  const gradient = deltaGradient(new OpBuilder(graph, types), layer!, 'dy');
  return onlyOutput(graph, graph.rename(gradient, 'gradient'));
}

function rankOnly(shape: readonly unknown[] | null) {
  return shape?.map((_, i) => `dy${i}`) ?? null;
}

function onlyOutput(graph: GraphBuilder, name: string): Promise<Uint8Array> {
  graph.outputs.length = 0;
  graph.outputs.push({ name, dtype: undefined, shape: null });
  return collect(graph.modelPieces());
}

/** xᵀ · y for rows of features. */
function transposedProduct(x: Float64Array, y: Float64Array, width: number, out: number) {
  const result = new Float64Array(width * out);
  for (let row = 0; row * width < x.length; row++) {
    for (let i = 0; i < width; i++) {
      for (let j = 0; j < out; j++) {
        result[i * out + j]! += x[row * width + i]! * y[row * out + j]!;
      }
    }
  }
  return result;
}
