import { describe, expect, it } from 'vitest';
import {
  type Finding,
  findLinearLayers,
  type LinearLayer,
} from '../../../src/adapters/targets/index.js';
import { ValueIndex } from '../../../src/graph/uses.js';
import { nodeLabel } from '../../../src/onnx/model.js';
import { parseModel } from '../../../src/onnx/parse.js';
import { MemorySource } from '../../../src/onnx/source.js';
import {
  type Attribute,
  body,
  constant,
  type ModelParts,
  model,
  node,
  type TensorProto,
  tensor,
  value,
} from '../../support/models.js';

function findings(parts: Omit<ModelParts, 'outputs'>): Finding[] {
  const parsed = parseModel(
    new MemorySource(model({ inputs: ['x', 'x2'], ...parts, outputs: ['y'] })),
  );
  return findLinearLayers(parsed, new ValueIndex(parsed));
}

function found(parts: Omit<ModelParts, 'outputs'>): LinearLayer {
  const [only, ...more] = findings(parts);
  expect(more).toEqual([]);
  if (!only || 'refusal' in only) throw new Error(`refused: ${only?.refusal}`);
  return only;
}

function refusal(parts: Omit<ModelParts, 'outputs'>): string {
  const [only, ...more] = findings(parts);
  expect(more).toEqual([]);
  if (!only || !('refusal' in only)) throw new Error('expected a refusal');
  return only.refusal;
}

/** Input, sizes and layout of a layer, in short. */
function summary({ input, geometry, weight }: LinearLayer) {
  const { in: inSize, out, transposed, factor } = weight;
  return { input, geometry, size: [inSize, out], transposed, factor };
}

const columns = (inputColumns: boolean, outputColumns: boolean, flat = false) =>
  ({ kind: 'matrix', inputColumns, outputColumns, flat }) as const;

const MATRIX = tensor('w', [6, 4]);
const rightOf = (operator: string, attributes: Record<string, Attribute> = {}) => ({
  nodes: [node(operator, ['x', 'w'], 'y', attributes)],
  initializers: [MATRIX],
});
const leftOf = (operator: string, attributes: Record<string, Attribute> = {}) => ({
  nodes: [node(operator, ['w', 'x'], 'y', attributes)],
  initializers: [MATRIX],
});

describe('MatMul', () => {
  it('takes its weight on the right', () => {
    expect(summary(found(rightOf('MatMul')))).toEqual({
      input: 'x',
      geometry: columns(false, false),
      size: [6, 4],
      transposed: false,
      factor: 1,
    });
  });

  it('takes its weight on the left, as [out, in] in front of columns', () => {
    expect(summary(found(leftOf('MatMul')))).toEqual({
      input: 'x',
      geometry: columns(true, true),
      size: [4, 6],
      transposed: true,
      factor: 1,
    });
  });
});

describe.each(['Gemm', 'com.microsoft:FusedMatMul'])('%s', (operator) => {
  it.each([
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ])('takes its weight on the right with transA=%i, transB=%i', (transA, transB) => {
    const layer = found(rightOf(operator, { transA, transB, alpha: { float: 0.5 } }));
    expect(summary(layer)).toEqual({
      input: 'x',
      geometry: columns(transA === 1, false, operator === 'Gemm'),
      size: transB ? [4, 6] : [6, 4],
      transposed: transB === 1,
      factor: 0.5,
    });
  });

  it.each([
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ])('takes its weight on the left with transA=%i, transB=%i', (transA, transB) => {
    const layer = found(leftOf(operator, { transA, transB, alpha: { float: -2 } }));
    expect(summary(layer)).toEqual({
      input: 'x',
      geometry: columns(transB === 0, true, operator === 'Gemm'),
      size: transA ? [6, 4] : [4, 6],
      transposed: transA === 0,
      factor: -2,
    });
  });

  it('has the factor 1 where it does not say, and is refused with 0', () => {
    expect(found(rightOf(operator)).weight.factor).toBe(1);
    expect(refusal(rightOf(operator, { alpha: { float: 0 } }))).toBe(
      'its alpha is 0, so the weight has no effect',
    );
  });
});

describe('Gemm', () => {
  it('keeps its bias and beta to itself', () => {
    const parts = {
      nodes: [node('Gemm', ['x', 'w', 'c'], 'y', { beta: { float: 3 } })],
      initializers: [MATRIX, tensor('c', [4])],
    };
    expect(found(parts).weight).toMatchObject({ name: 'w', factor: 1 });
  });
});

describe('FusedMatMul', () => {
  it.each(['transBatchA', 'transBatchB'])('is refused with %s', (attribute) => {
    expect(refusal(rightOf('com.microsoft:FusedMatMul', { [attribute]: 1 }))).toContain(
      'moves a batch axis',
    );
  });
});

describe('Conv', () => {
  const conv = (dims: number[], attributes: Record<string, Attribute> = {}) => ({
    nodes: [node('Conv', ['x', 'w'], 'y', attributes)],
    initializers: [tensor('w', dims)],
  });

  it('is a linear layer over the channels where its kernel is one pixel', () => {
    const layer = found(conv([4, 6, 1, 1], { strides: [2, 3], kernel_shape: [1, 1] }));
    expect(summary(layer)).toEqual({
      input: 'x',
      geometry: { kind: 'channels', spatial: 2, strides: [2, 3] },
      size: [6, 4],
      transposed: true,
      factor: 1,
    });
  });

  it('may have one axis of space, or three', () => {
    expect(found(conv([4, 6, 1])).geometry).toMatchObject({ spatial: 1, strides: [] });
    expect(found(conv([4, 6, 1, 1, 1])).geometry).toMatchObject({ spatial: 3 });
  });

  it('may dilate its one pixel and pad with nothing', () => {
    expect(found(conv([4, 6, 1], { pads: [0, 0], dilations: [2] })).weight.in).toBe(6);
  });

  it.each<[string, number[], Record<string, Attribute>, string]>([
    ['a larger kernel', [4, 6, 3, 1], {}, 'its kernel is 3 x 1, only 1x1 is a linear layer'],
    ['groups', [4, 3, 1, 1], { group: 2 }, 'it has 2 groups, only 1 is a linear layer'],
    ['pads', [4, 6, 1, 1], { pads: [0, 1, 0, 1] }, 'it pads its input'],
  ])('is refused with %s', (_, dims, attributes, reason) => {
    expect(refusal(conv(dims, attributes))).toBe(reason);
  });

  it('is refused with a computed weight', () => {
    expect(refusal({ nodes: [node('Conv', ['x', 'x2'], 'y')] })).toBe(
      'its weight x2 is computed, not constant',
    );
  });
});

describe('MatMulNBits', () => {
  const nBits = (attributes: Record<string, Attribute>, inputs = ['x', 'q', 'scales']) => ({
    nodes: [node('com.microsoft:MatMulNBits', inputs, 'y', attributes)],
    initializers: [
      tensor('q', [8, 2, 8], new Float64Array(128), 'uint8'),
      tensor('scales', [16], undefined, 'float16'),
      tensor('counts', [16], new Float64Array(16), 'int32'),
    ],
  });

  it('has its size in attributes and computes in the type of its scales', () => {
    const layer = found(nBits({ K: 32, N: 8, bits: 4, block_size: 16 }));
    expect(layer.weight).toMatchObject({
      in: 32,
      out: 8,
      constant: undefined,
      storedDtype: 'uint8',
      dtype: 'float16',
    });
  });

  it('is refused without sizes, without constant weights, without floating-point scales', () => {
    expect(refusal(nBits({ K: 32 }))).toBe('its K or N attribute is missing');
    expect(refusal(nBits({ K: 32, N: 8 }, ['x', 'x2', 'scales']))).toBe(
      'its quantized weight is not constant',
    );
    expect(refusal(nBits({ K: 32, N: 8 }, ['x', 'q', 'counts']))).toBe(
      'its scales are not floating point',
    );
  });
});

describe('a weight', () => {
  const used = (nodes: ModelParts['nodes'], ...initializers: TensorProto[]) => ({
    nodes: [...nodes, node('MatMul', ['x', 'w'], 'y')],
    initializers,
  });

  it('may be the value of a Constant node', () => {
    const { weight } = found(used([constant('w', MATRIX)]));
    expect(weight.constant?.node?.opType).toBe('Constant');
    expect([weight.in, weight.out]).toEqual([6, 4]);
  });

  it('may be an initializer that is an input too (IR 3)', () => {
    expect(found({ ...rightOf('MatMul'), opset: 8 }).weight.constant?.overridable).toBe(true);
  });

  it('may be transposed, any number of times', () => {
    const once = found(used([node('Transpose', ['s'], 'w')], tensor('s', [4, 6]))).weight;
    expect(once).toMatchObject({ in: 6, out: 4, transposed: true });
    const twice = found(
      used([node('Transpose', ['s'], 't'), node('Transpose', ['t'], 'w')], tensor('s', [6, 4])),
    ).weight;
    expect(twice).toMatchObject({ in: 6, out: 4, transposed: false });
  });

  it('may be transposed in front of an operator that transposes too', () => {
    const nodes = [node('Transpose', ['s'], 'w'), node('Gemm', ['x', 'w'], 'y', { transB: 1 })];
    expect(found({ nodes, initializers: [tensor('s', [6, 4])] }).weight).toMatchObject({
      in: 6,
      out: 4,
      transposed: false,
    });
  });

  it('may be cast: stored in one type, used in another', () => {
    const half = tensor('s', [6, 4], undefined, 'float16');
    expect(found(used([node('Cast', ['s'], 'w', { to: 1 })], half)).weight).toMatchObject({
      storedDtype: 'float16',
      dtype: 'float32',
    });
  });

  it('may pass through Identity', () => {
    expect(found(used([node('Identity', ['s'], 'w')], tensor('s', [6, 4]))).weight.in).toBe(6);
  });

  it('may be dequantized', () => {
    const { weight } = found(
      used(
        [node('DequantizeLinear', ['q', 'scale'], 'w')],
        tensor('q', [6, 4], new Float64Array(24), 'int8'),
        tensor('scale', [], [0.5]),
      ),
    );
    expect(weight).toMatchObject({ in: 6, out: 4, storedDtype: 'int8', dtype: 'float32' });
  });

  it.each(['float32', 'float64', 'float16', 'bfloat16'] as const)('may be %s', (dtype) => {
    const parts = used([], tensor('w', [6, 4], undefined, dtype));
    expect(found(parts).weight).toMatchObject({ dtype, storedDtype: dtype });
  });

  it('is refused where it is not a matrix of floating-point numbers', () => {
    const of = (dims: number[], dtype?: 'int32') => {
      const count = dims.reduce((a, b) => a * b, 1);
      return refusal(used([], tensor('w', dims, new Float64Array(count), dtype)));
    };
    expect(of([2, 6, 4])).toBe('its weight w has the shape [2, 6, 4], expected a matrix');
    expect(of([6])).toBe('its weight w has the shape [6], expected a matrix');
    expect(of([0, 4])).toBe('its weight w is empty: [0, 4]');
    expect(of([6, 4], 'int32')).toBe('its weight w is int32, expected floating point');
  });
});

describe('a product without a weight', () => {
  it.each(['MatMul', 'Gemm', 'com.microsoft:FusedMatMul'])('is refused: %s', (operator) => {
    expect(refusal({ nodes: [node(operator, ['x', 'x2'], 'y')] })).toBe(
      'both its operands are computed: there is no weight to adapt',
    );
    const two = { nodes: [node(operator, ['w', 'w'], 'y')], initializers: [MATRIX] };
    expect(refusal(two)).toBe('both its operands are constant');
  });
});

describe('an operator that takes no adapter', () => {
  it.each([
    ['ConvInteger', /convolves integers/],
    ['QLinearConv', /convolves integers/],
    ['com.microsoft:Attention', /4 columns, expected those of query, key and value/],
    ['com.microsoft:QAttention', /packed into one operator as integers/],
    ['com.microsoft:FusedGemm', /an activation is fused into it/],
    ['com.microsoft:MoE', /weights of all experts in one operator/],
    ['com.microsoft:QMoE', /a MatMul for each expert/],
    ['com.microsoft:FusedConv', /an activation is fused into it/],
  ])('%s says why', (operator, reason) => {
    expect(refusal(rightOf(operator))).toMatch(reason);
  });

  it('is left out where it has nothing to do with weights, or only shares a name', () => {
    expect(findings(rightOf('Add'))).toEqual([]);
    expect(findings(rightOf('other:MatMul'))).toEqual([]);
  });
});

describe('an If body', () => {
  const branch = body({
    nodes: [
      node('MatMul', ['x', 'w'], 'a', {}, 'captured'),
      constant('own', tensor('', [4, 3])),
      node('MatMul', ['a', 'own'], 'b', {}, 'own weight'),
      node('MatMul', ['x', 'x2'], 'c', {}, 'computed'),
    ],
    outputs: ['b'],
  });
  const layers = findings({
    nodes: [
      node('If', ['c'], 'y', { then_branch: { graph: branch }, else_branch: { graph: branch } }),
    ],
    initializers: [MATRIX],
    inputs: ['x', 'x2', value('c', [], 'bool')],
  });

  it('has layers with weights of its own and of the graph around it', () => {
    const labels = layers.map((f) => `${nodeLabel(f.node)}: ${'refusal' in f ? 'no' : 'yes'}`);
    const each = ['captured: yes', 'own weight: yes', 'computed: no'];
    expect(labels).toEqual([...each, ...each]);
  });
});

it('is refused inside a function, whose weights are its arguments', () => {
  const parts = {
    nodes: [node('local:Linear', ['x', 'w'], 'y')],
    initializers: [MATRIX],
    functions: [
      {
        name: 'Linear',
        domain: 'local',
        input: ['a', 'b'],
        output: ['c'],
        node: [node('MatMul', ['a', 'b'], 'c')],
        opsetImport: [{ domain: '', version: 17 }],
      },
    ],
  };
  expect(refusal(parts)).toBe(
    "it is inside the function Linear; inline the model's functions first",
  );
});
