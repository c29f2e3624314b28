/** Layers in their training form against the same layers as they are in the model. */
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { collect } from '../../../src/onnx/edit.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { openSession } from '../../../src/runtime/session.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { buildForward } from '../../../src/training/forward.js';
import { buildStepGraph } from '../../../src/training/step-graph.js';
import { type InsertOptions, insertInto, randomNumbers, trained } from '../../support/adapters.js';
import { type LinearCase, linearModel } from '../../support/linear.js';
import {
  model,
  type NodeProto,
  node,
  type TensorProto,
  tensor,
  value,
} from '../../support/models.js';
import { maxAbs, maxDifference } from '../../support/run.js';
import { parse } from '../../support/wire.js';

const adapters: InsertOptions = {
  rank: 4,
  blocks: 2,
  hybrid: 1,
  targets: ['all'],
  factors: trained,
};

interface Step {
  readonly loss: number;
  /** Of all adapter tensors. */
  readonly gradient: Float64Array;
  /** How many layers have another form. */
  readonly rewritten: number;
}

/** One step at the numbers of the model; rows: how many the data have, where that is known. */
async function stepOf(
  bytes: Uint8Array,
  given: Readonly<Record<string, readonly number[]>>,
  { fused, name, sizes }: { fused?: boolean; name?: string; sizes?: ReadonlyMap<string, number> },
): Promise<Step> {
  const opened = parse(bytes);
  const reader = new TensorReader(opened, new ExternalFiles(opened));
  const patched = new PatchedModel(opened);
  const rewrite = fused === undefined ? undefined : { fused };
  const forward = await buildForward(patched, reader, { loss: 'mse', name, rewrite, sizes });
  // The first moment of SGD is the gradient.
  const plain = { optimizer: 'sgd', momentum: 0.5, weightDecay: 0, clip: 0 } as const;
  const unused = { betas: [0, 0], eps: 1, accumulate: 1 } as const;
  const step = await buildStepGraph(forward, { ...plain, ...unused, fused: fused ?? false });
  const theta = new Float32Array(step.size);
  for (const parameter of forward.parameters) {
    theta.set(reader.float32(patched.initializer(parameter.name)), parameter.offset);
  }
  const session = await openSession(await collect(step.graph.modelPieces()));
  const data = (name: string, dims: readonly number[], seed: number): [string, TensorValue] => [
    name,
    {
      dtype: 'float32',
      dims,
      data: Float32Array.from(
        randomNumbers(
          seed,
          dims.reduce((a, b) => a * b, 1),
        ),
      ),
    },
  ];
  const results = await session.run(
    new Map<string, TensorValue>([
      ...Object.entries(given).map(([name, dims], i) => data(name, dims, i + 1)),
      ['theta', { dtype: 'float32', dims: [step.size], data: theta }],
      ['m', { dtype: 'float32', dims: [step.size], data: new Float32Array(step.size) }],
      ['lr', { dtype: 'float32', dims: [], data: Float32Array.of(1) }],
    ]),
  );
  await session.release();
  const next = step.state.find(({ input }) => input === 'm')!.output;
  return {
    loss: Number(results.get(step.loss)!.data[0]),
    gradient: Float64Array.from(results.get(next)!.data as Float32Array),
    rewritten: forward.composites.length,
  };
}

/** Checks that both dialects compute what the model's own form does, and how many layers they change. */
async function expectRewritten(
  count: number,
  bytes: Uint8Array,
  given: Readonly<Record<string, readonly number[]>>,
  how: { name?: string; sizes?: ReadonlyMap<string, number> } = {},
): Promise<void> {
  const expected = await stepOf(bytes, given, how);
  expect(expected.rewritten).toBe(0);
  expect(maxAbs(expected.gradient)).toBeGreaterThan(1e-3);
  for (const fused of [true, false]) {
    const found = await stepOf(bytes, given, { ...how, fused });
    expect(found.rewritten).toBe(count);
    expect(found.loss / expected.loss).toBeCloseTo(1, 5);
    const error = maxDifference(found.gradient, expected.gradient);
    expect(error).toBeLessThan(1e-5 * Math.max(1, maxAbs(expected.gradient)));
  }
}

/** `y = layers(x)` with x [.., 6]. */
function modelOf(
  nodes: readonly NodeProto[],
  initializers: readonly TensorProto[],
  x: readonly (number | string)[] = ['batch', 6],
): Uint8Array {
  return model({ nodes, initializers, inputs: [value('x', x)], outputs: [value('y')] });
}

const square = tensor('w', [6, 6]);
const twoLayers = (second: NodeProto) => [
  node('MatMul', ['x', 'w'], 'h', {}, 'first'),
  node('Tanh', ['h'], 't'),
  second,
];

describe('a layer is rewritten', () => {
  it.each([
    ['matrix', [5, 6], [5, 4]],
    ['sequence', [2, 3, 6], [2, 3, 4]],
  ])('that multiplies a %s', async (_, x, target) => {
    const second = node('MatMul', ['t', 'w2'], 'y', {}, 'second');
    const axes = [...x.slice(0, -1).map((__, i) => `d${i}`), 6];
    const bytes = modelOf(twoLayers(second), [square, tensor('w2', [6, 4])], axes);
    await expectRewritten(2, await insertInto(bytes, adapters), { x, target });
  });

  it('once for all places of a shared weight', async () => {
    const nodes = twoLayers(node('MatMul', ['t', 'w'], 'y', {}, 'second'));
    const bytes = await insertInto(modelOf(nodes, [square]), adapters);
    await expectRewritten(2, bytes, { x: [5, 6], target: [5, 6] });
  });

  it.each([0, 1])('that is a Gemm with a bias and transB = %d', async (transB) => {
    const gemm = node('Gemm', ['t', 'w2', 'c'], 'y', { transB, beta: { float: 0.5 } }, 'second');
    const weight = tensor('w2', transB ? [4, 6] : [6, 4]);
    const bytes = modelOf(twoLayers(gemm), [square, weight, tensor('c', [4])]);
    await expectRewritten(2, await insertInto(bytes, adapters), { x: [5, 6], target: [5, 4] });
  });

  it.each([2, 3])('whose bias is added by a node of its own, to %d axes', async (rank) => {
    const nodes = [
      ...twoLayers(node('MatMul', ['t', 'w2'], 'z', {}, 'second')),
      node('Add', ['z', 'c'], 'y'),
    ];
    const leading = [5, 2].slice(3 - rank);
    const symbols = leading.map((_, i) => `d${i}`);
    const plain = modelOf(nodes, [square, tensor('w2', [6, 4]), tensor('c', [4])], [...symbols, 6]);
    const bytes = await insertInto(plain, { ...adapters, name: 'one' });
    const given = { x: [...leading, 6], target: [...leading, 4] };
    await expectRewritten(2, bytes, given);
    const both = await insertInto(bytes, { ...adapters, name: 'two' });
    await expectRewritten(2, both, given, { name: 'one' });
    await expectRewritten(0, both, given, { name: 'two' });
  });

  it('that is a Gemm whose bias is computed by an adapted layer too', async () => {
    const gemm = node('Gemm', ['t', 'w2', 'h'], 'y', { beta: { float: -2 } }, 'second');
    const bytes = modelOf(twoLayers(gemm), [square, tensor('w2', [6, 6])]);
    await expectRewritten(2, await insertInto(bytes, adapters), { x: [5, 6], target: [5, 6] });
  });

  it('that is not the last reader of its input', async () => {
    const nodes = [
      ...twoLayers(node('MatMul', ['t', 'w2'], 'z', {}, 'second')),
      node('Add', ['z', 't'], 'y'),
    ];
    const bytes = await insertInto(modelOf(nodes, [square, tensor('w2', [6, 6])]), adapters);
    await expectRewritten(2, bytes, { x: [5, 6], target: [5, 6] });
  });

  it.each(['Identity', 'Cast', 'Transpose', 'Constant'] as const)(
    'whose weight comes through %s',
    async (weightForm) => {
      const c = { ...linear, kind: 'MatMul', weightForm } as const;
      const bytes = await insertInto(linearModel(c).bytes, adapters);
      await expectRewritten(1, bytes, { x: [3, 6], target: [3, 4] });
    },
  );

  it('beneath another adapter set', async () => {
    const nodes = twoLayers(node('MatMul', ['t', 'w2'], 'y', {}, 'second'));
    const one = await insertInto(modelOf(nodes, [square, tensor('w2', [6, 4])]), {
      ...adapters,
      name: 'one',
    });
    const both = await insertInto(one, { ...adapters, name: 'two' });
    await expectRewritten(2, both, { x: [5, 6], target: [5, 4] }, { name: 'one' });
  });
});

const linear: Omit<LinearCase, 'kind'> = {
  ...{ in: 6, out: 4, dtype: 'float32', opset: 17, leading: [3], weightForm: 'initializer' },
  ...{ transA: false, transB: false, alpha: 1, stride: 1, bias: false, seed: 5, fixed: false },
};

/** A patched model whose second layer's own output is read by one more node. */
function readBase(bytes: Uint8Array): Uint8Array {
  const decoded = onnxProto.onnx.ModelProto.decode(bytes);
  const { node: nodes, output } = decoded.graph!;
  const base = nodes!.find(({ name }) => name === 'second')!.output![0]!;
  nodes!.push(node('Add', ['y', base], 'both'));
  output![0]!.name = 'both';
  return onnxProto.onnx.ModelProto.encode(decoded).finish();
}

describe('a layer stays as it is', () => {
  it.each<[string, Partial<LinearCase> & Pick<LinearCase, 'kind'>]>([
    ['Gemm with alpha', { kind: 'Gemm', alpha: 0.5 }],
    ['Gemm with transA', { kind: 'Gemm', transA: true }],
    ['Gemm with its weight on the left', { kind: 'Gemm, weight left' }],
    ['FusedMatMul with transA', { kind: 'FusedMatMul', transA: true }],
    ['MatMul with its weight on the left', { kind: 'MatMul, weight left' }],
    ['Conv', { kind: 'Conv', leading: [3, 2] }],
    ['product with quantized blocks', { kind: 'MatMulNBits', in: 16 }],
  ])('that is a %s', async (_, given) => {
    const c = { ...linear, ...given };
    const { bytes, feeds } = linearModel(c);
    const x = feeds.x!.dims;
    const turned = c.kind === 'MatMul, weight left' || c.kind === 'Gemm, weight left';
    const target = c.kind === 'Conv' ? [3, 4, 3] : turned ? [4, 3] : [3, 4];
    await expectRewritten(0, await insertInto(bytes, adapters), { x, target });
  });

  it('above another adapter set', async () => {
    const nodes = twoLayers(node('MatMul', ['t', 'w2'], 'y', {}, 'second'));
    const one = await insertInto(modelOf(nodes, [square, tensor('w2', [6, 4])]), {
      ...adapters,
      name: 'one',
    });
    const both = await insertInto(one, { ...adapters, name: 'two' });
    await expectRewritten(0, both, { x: [5, 6], target: [5, 4] }, { name: 'two' });
  });

  it('whose own output another node reads, which an edit can bring about', async () => {
    const nodes = twoLayers(node('MatMul', ['t', 'w2'], 'y', {}, 'second'));
    const bytes = await insertInto(modelOf(nodes, [square, tensor('w2', [6, 4])]), adapters);
    await expectRewritten(1, readBase(bytes), { x: [5, 6], target: [5, 4] });
  });

  it('where the data have too few rows for it to pay', async () => {
    const nodes = [node('MatMul', ['x', 'w'], 'y', {}, 'layer')];
    const plain = modelOf(nodes, [tensor('w', [16, 16])], ['batch', 16]);
    const bytes = await insertInto(plain, adapters);
    const given = { x: [2, 16], target: [2, 16] };
    await expectRewritten(0, bytes, given, { sizes: new Map([['batch', 2]]) });
    await expectRewritten(1, bytes, given, { sizes: new Map([['batch', 8]]) });
    const vector = modelOf(nodes, [tensor('w', [16, 16])], [16]);
    await expectRewritten(0, await insertInto(vector, adapters), { x: [16], target: [16] });
  });
});
