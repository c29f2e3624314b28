import { describe, expect, it } from 'vitest';
import { type Constant, traceConstant } from '../../src/graph/constants.js';
import { ValueIndex } from '../../src/graph/uses.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { cpuSeconds } from '../support/cpu-time.js';
import { constant, type ModelParts, model, node, tensor } from '../support/models.js';

/** What the value `w` of a model is made of. */
function trace(parts: Omit<ModelParts, 'outputs'>): Constant | undefined {
  const parsed = parseModel(new MemorySource(model({ inputs: ['x'], ...parts, outputs: ['w'] })));
  return traceConstant(new ValueIndex(parsed), parsed.graph, 'w');
}

const FLOAT16 = 10;
const stored = tensor('s', [2, 3]);

describe('a stored tensor', () => {
  it('is found as an initializer', () => {
    const found = trace({ nodes: [], initializers: [tensor('w', [2, 3])] })!;
    expect(found).toMatchObject({ node: undefined, overridable: false, steps: [] });
    expect(found).toMatchObject({ dims: [2, 3], dtype: 'float32' });
    expect(found.tensor.name).toBe('w');
  });

  it('is found as the value of a Constant node', () => {
    const found = trace({ nodes: [constant('w', tensor('', [2, 3], undefined, 'float16'))] })!;
    expect(found.node?.opType).toBe('Constant');
    expect(found).toMatchObject({ overridable: false, dims: [2, 3], dtype: 'float16' });
  });

  it('is marked where it is an input too, so that a caller may replace it (IR 3)', () => {
    const found = trace({ opset: 8, nodes: [], initializers: [tensor('w', [2, 3])] })!;
    expect(found.overridable).toBe(true);
  });

  it('is not seen in a Constant of another kind', () => {
    expect(trace({ nodes: [node('Constant', [], 'w', { value_ints: [1, 2] })] })).toBeUndefined();
    expect(
      trace({ nodes: [node('other:Constant', [], 'w', { value: { tensor: stored } })] }),
    ).toBeUndefined();
  });
});

describe('the nodes between a stored tensor and its use', () => {
  it('are listed from the tensor on, with the shape and type behind them', () => {
    const found = trace({
      nodes: [
        node('Identity', ['s'], 'a'),
        node('Cast', ['a'], 'b', { to: FLOAT16 }),
        node('Transpose', ['b'], 'w', { perm: [1, 0] }),
      ],
      initializers: [stored],
    })!;
    expect(found.steps.map(({ opType }) => opType)).toEqual(['Identity', 'Cast', 'Transpose']);
    expect(found).toMatchObject({ dims: [3, 2], dtype: 'float16' });
    expect(found.tensor).toMatchObject({ name: 's', dims: [2, 3] });
  });

  it('may be a Transpose without perm, which reverses a matrix', () => {
    const found = trace({ nodes: [node('Transpose', ['s'], 'w')], initializers: [stored] })!;
    expect(found.dims).toEqual([3, 2]);
  });

  it('may not be a Transpose of more than a matrix', () => {
    const nodes = [node('Transpose', ['s'], 'w', { perm: [0, 2, 1] })];
    expect(trace({ nodes, initializers: [tensor('s', [2, 3, 4])] })).toBeUndefined();
  });

  it('may dequantize, which gives the type of the scale', () => {
    const nodes = [node('DequantizeLinear', ['s', 'scale', 'zero'], 'w')];
    const found = trace({
      nodes,
      initializers: [
        tensor('s', [2, 3], [1, 2, 3, 4, 5, 6], 'int8'),
        tensor('scale', [], [0.5], 'float16'),
        tensor('zero', [], [0], 'int8'),
      ],
    })!;
    expect(found).toMatchObject({ dims: [2, 3], dtype: 'float16' });
  });

  it('may dequantize with a scale that is itself cast', () => {
    const found = trace({
      nodes: [
        node('Identity', ['half'], 'same'),
        node('Cast', ['same'], 'scale', { to: 1 }),
        node('DequantizeLinear', ['s', 'scale'], 'w'),
      ],
      initializers: [
        tensor('s', [2, 3], [1, 2, 3, 4, 5, 6], 'int8'),
        tensor('half', [], [0.5], 'float16'),
      ],
    })!;
    expect(found.dtype).toBe('float32');
  });
});

describe('a computed value', () => {
  it('is no constant, whether it comes from an input or from other operators', () => {
    expect(trace({ nodes: [node('Identity', ['x'], 'w')] })).toBeUndefined();
    expect(
      trace({ nodes: [node('Add', ['s', 's'], 'w')], initializers: [stored] }),
    ).toBeUndefined();
    expect(trace({ nodes: [node('Identity', ['gone'], 'w')] })).toBeUndefined();
  });

  it('is what a computed scale makes of a stored tensor', () => {
    const nodes = [node('DequantizeLinear', ['s', 'x'], 'w')];
    const initializers = [tensor('s', [2, 3], [1, 2, 3, 4, 5, 6], 'int8')];
    expect(trace({ nodes, initializers })).toBeUndefined();
  });
});

describe('a hostile graph', () => {
  it('of nodes in a circle comes to an end', () => {
    expect(
      trace({ nodes: [node('Identity', ['v'], 'w'), node('Identity', ['w'], 'v')] }),
    ).toBeUndefined();
    expect(trace({ nodes: [node('DequantizeLinear', ['w', 'w', 'w'], 'w')] })).toBeUndefined();
  });

  it('of ever more branches comes to an end soon', async () => {
    const scale = (i: number) => (i === 16 ? 'w' : `v${i}`);
    const nodes = Array.from({ length: 16 }, (_, i) =>
      node('DequantizeLinear', [scale(i), scale(i), scale(i)], scale(i + 1)),
    );
    const traced = () => trace({ nodes, initializers: [tensor('v0', [], [1])] });
    expect(await cpuSeconds(traced)).toBeLessThan(1);
  });
});
