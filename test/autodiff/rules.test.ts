import { describe, test } from 'vitest';
import type { Attributes, GraphBuilder } from '../../src/graph/builder.js';
import { type Case, checkGradients } from './check.js';

type Options = Omit<Case, 'build' | 'shapes'> & { attributes?: Attributes };

function node(opType: string, attributes: Attributes = {}) {
  return (graph: GraphBuilder, inputs: readonly string[]) => graph.op(opType, inputs, attributes);
}

function op(opType: string, shapes: Case['shapes'], { attributes, ...options }: Options = {}) {
  test(`${opType} ${JSON.stringify(shapes)}${attributes ? JSON.stringify(attributes) : ''}${options.dynamic ? ' dynamic' : ''}${options.opset ? ` opset ${options.opset}` : ''}`, () =>
    checkGradients({ build: node(opType, attributes), shapes, ...options }));
}

const positive = (z: number) => Math.abs(z) + 0.3;
const f32 = { dtype: 'float32' } as const;

describe('arithmetic', () => {
  for (const opType of ['Add', 'Sub', 'Mul', 'Div', 'Min', 'Max']) {
    for (const dynamic of [false, true]) {
      const options = { dynamic, domain: positive };
      op(
        opType,
        [
          [2, 3],
          [2, 3],
        ],
        options,
      );
      op(opType, [[2, 3], [3]], options);
      op(
        opType,
        [
          [1, 3],
          [2, 1],
        ],
        options,
      );
      op(opType, [[], [2, 2]], options);
      op(
        opType,
        [
          [2, 1, 2],
          [3, 1],
        ],
        options,
      );
    }
  }
  op('Pow', [[2, 3], [3]], { domain: positive });
  op('Sum', [[2, 3], [3], [1, 1]], f32);
  op('Mean', [[2, 3], [3]], f32);
});

describe('functions of one number', () => {
  for (const opType of [
    'Abs',
    'Exp',
    'Neg',
    'Reciprocal',
    'Sigmoid',
    'Sqrt',
    'Tanh',
    'Log',
    'Sin',
    'Cos',
    'Relu',
    'Identity',
  ]) {
    op(opType, [[2, 3]], { domain: positive });
  }
  for (const opType of [
    'Elu',
    'Erf',
    'LeakyRelu',
    'Selu',
    'Softplus',
    'Softsign',
    'HardSigmoid',
    'HardSwish',
    'Mish',
  ]) {
    op(opType, [[2, 5]], { ...f32, opset: 18 });
  }
  op('Gelu', [[2, 5]], { ...f32, opset: 20 });
  op('Gelu', [[2, 5]], { ...f32, opset: 20, attributes: { approximate: { text: 'tanh' } } });
});

describe('matrices', () => {
  for (const dynamic of [false, true]) {
    op(
      'MatMul',
      [
        [2, 3],
        [3, 4],
      ],
      { dynamic },
    );
    op(
      'MatMul',
      [
        [2, 2, 3],
        [3, 4],
      ],
      { dynamic },
    );
    op(
      'MatMul',
      [
        [2, 2, 3],
        [2, 3, 4],
      ],
      { dynamic },
    );
    op(
      'MatMul',
      [
        [2, 1, 2, 3],
        [2, 3, 4],
      ],
      { dynamic },
    );
    op('MatMul', [[3], [3, 4]], { dynamic });
    op('MatMul', [[2, 3], [3]], { dynamic });
    op('MatMul', [[3], [3]], { dynamic });
    op('MatMul', [[2, 2, 3], [3]], { dynamic });
  }
  for (const transA of [0, 1]) {
    for (const transB of [0, 1]) {
      const attributes = {
        transA: { int: transA },
        transB: { int: transB },
        alpha: { float: 0.5 },
        beta: { float: 2 },
      };
      op('Gemm', [transA ? [3, 2] : [2, 3], transB ? [4, 3] : [3, 4], [4]], { attributes });
    }
  }
});

describe('normalization', () => {
  for (const opType of ['Softmax', 'LogSoftmax']) {
    op(opType, [[2, 3, 2]]);
    op(opType, [[2, 3, 2]], { attributes: { axis: { int: 1 } } });
    op(opType, [[2, 3, 2]], { attributes: { axis: { int: 1 } }, opset: 11 });
  }
  op('LayerNormalization', [[2, 3, 4], [4], [4]]);
  op('LayerNormalization', [[2, 3, 4], [4], [4]], { dynamic: true });
  op(
    'LayerNormalization',
    [
      [2, 3, 4],
      [3, 4],
      [3, 4],
    ],
    { attributes: { axis: { int: 1 } } },
  );
});

describe('reductions', () => {
  for (const opType of [
    'ReduceSum',
    'ReduceMean',
    'ReduceMax',
    'ReduceMin',
    'ReduceL1',
    'ReduceL2',
    'ReduceLogSumExp',
    'ReduceSumSquare',
  ]) {
    for (const dynamic of [false, true]) {
      const attributes = { axes: { ints: [1] }, keepdims: { int: 0 } };
      op(opType, [[2, 3, 2]], { dynamic, ...f32 });
      if (opType !== 'ReduceSum')
        op(opType, [[2, 3, 2]], { attributes, dynamic, ...f32, opset: 13 });
    }
  }
});
