import { describe, test } from 'vitest';
import type { GraphBuilder } from '../../src/graph/builder.js';
import type { AttributeValue } from '../../src/onnx/encode.js';
import { type Case, checkGradients } from './check.js';

type Attributes = Record<string, AttributeValue>;

function conv(
  name: string,
  shapes: Case['shapes'],
  attributes: Attributes,
  options: Partial<Case> = {},
) {
  const build = (graph: GraphBuilder, inputs: readonly string[]) =>
    graph.op(name, inputs, attributes);
  test(`${name} ${JSON.stringify(shapes)} ${JSON.stringify(attributes)}`, () =>
    checkGradients({ build, shapes, dtype: 'float32', ...options }));
}

describe('convolution', () => {
  const ints = (...values: number[]) => ({ ints: values });
  conv('Conv', [[2, 3, 7], [4, 3, 3], [4]], {});
  conv(
    'Conv',
    [
      [2, 3, 8],
      [4, 3, 3],
    ],
    { strides: ints(2), pads: ints(1, 1) },
  );
  conv(
    'Conv',
    [
      [2, 4, 9],
      [6, 2, 3],
    ],
    { strides: ints(2), dilations: ints(2), pads: ints(2, 1), group: { int: 2 } },
  );
  conv('Conv', [[1, 2, 5, 6], [3, 2, 3, 2], [3]], { strides: ints(2, 1), pads: ints(1, 0, 1, 1) });
  conv(
    'Conv',
    [
      [1, 4, 5, 5],
      [4, 1, 3, 3],
    ],
    { group: { int: 4 }, auto_pad: { text: 'SAME_UPPER' } },
  );
  conv(
    'Conv',
    [
      [1, 2, 6, 5],
      [3, 2, 3, 3],
    ],
    { strides: ints(2, 2), auto_pad: { text: 'SAME_LOWER' } },
  );
  conv(
    'ConvTranspose',
    [
      [1, 3, 4],
      [3, 2, 3],
    ],
    {},
  );
  conv('ConvTranspose', [[1, 3, 4, 3], [3, 2, 3, 2], [2]], {
    strides: ints(2, 1),
    pads: ints(1, 0, 1, 0),
  });
});

describe('fused operators', () => {
  const fused = (opType: string, shapes: Case['shapes'], attributes: Attributes = {}) => {
    const build = (graph: GraphBuilder, inputs: readonly string[]) => {
      const output = graph.fresh('fused');
      graph.add({
        name: output,
        opType,
        domain: 'com.microsoft',
        inputs,
        outputs: [output],
        attributes,
      });
      return output;
    };
    test(`${opType} ${JSON.stringify(shapes)}`, () =>
      checkGradients({ build, shapes, dtype: 'float32' }));
  };
  fused('FastGelu', [[2, 5]]);
  fused('FastGelu', [[2, 5], [5]]);
  fused('BiasGelu', [[2, 5], [5]]);
  fused('QuickGelu', [[2, 5]]);
  fused('Gelu', [[2, 5]]);
  fused('SkipLayerNormalization', [[2, 3, 4], [2, 3, 4], [4], [4]], { epsilon: { float: 1e-5 } });
  fused('SkipLayerNormalization', [[2, 3, 4], [2, 3, 4], [4], [4], [4]], {
    epsilon: { float: 1e-5 },
  });
  fused('SkipSimplifiedLayerNormalization', [[2, 3, 4], [2, 3, 4], [4]], {
    epsilon: { float: 1e-5 },
  });
  fused(
    'FusedMatMul',
    [
      [2, 3, 2],
      [2, 3, 4],
    ],
    { transA: { int: 1 }, alpha: { float: 0.5 } },
  );
});
