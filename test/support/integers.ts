/** Models of one layer that multiplies integers, or floats that stand for them, in every form that quantizers give it. */
import type { Tensor } from 'onnxruntime-node';
import { randomNumbers } from './adapters.js';
import { model, type NodeProto, node, type TensorProto, tensor, value } from './models.js';
import { feed } from './run.js';

export const integerForms = [
  'MatMulInteger',
  'MatMulInteger, one scale after the other',
  'MatMulInteger, weight transposed',
  'DynamicQuantizeMatMul',
  'MatMulIntegerToFloat',
  'QLinearMatMul',
  'QLinearMatMul, bias added',
  'QGemm',
  'QGemm, rounded',
  'QDQ around MatMul',
  'QDQ around Gemm, transposed',
] as const;
export type IntegerForm = (typeof integerForms)[number];

export interface IntegerCase {
  readonly form: IntegerForm;
  readonly dtype: 'int8' | 'uint8';
  readonly perColumn: boolean;
  readonly seed: number;
}

export interface IntegerModel {
  readonly bytes: Uint8Array;
  readonly feeds: Record<string, Tensor>;
  /** [ROWS, IN] */
  readonly x: Float64Array;
  /** `(integers - zeroPoint) · scale`, times the layer's factor, [IN, OUT] */
  readonly weight: Float64Array;
  readonly bias: Float64Array;
  /** One step of what the layer's output is rounded to; 0 where it is not. */
  readonly step: number;
}

export const [ROWS, IN, OUT] = [5, 12, 8];
const [X_SCALE, Y_SCALE] = [1 / 64, 1 / 16];
const ALPHA = 2;

/** The model `y = x · W + bias`, x rounded on the way. */
export function integerModel({ form, dtype, perColumn, seed }: IntegerCase): IntegerModel {
  const isTurned = form.endsWith('transposed') || form.startsWith('QGemm');
  const zero = dtype === 'uint8' ? 119 : 3;
  const columns = perColumn ? OUT : 1;
  const zeros = Float64Array.from({ length: columns }, (_, i) => zero + (i % 4));
  const scales = Float64Array.from({ length: columns }, (_, i) => (1 + (i % 3)) / 128);
  const at = (list: Float64Array, column: number) => list[perColumn ? column : 0]!;
  const integers = randomNumbers(seed, IN * OUT, 90).map((w, i) =>
    Math.round(w + at(zeros, i % OUT)),
  );
  const laid = isTurned ? transposed(integers) : integers;
  const parameter = (name: string, values: Float64Array, type: 'float32' | typeof dtype) =>
    tensor(name, perColumn ? [OUT] : [], values, type);
  const { nodes, initializers = [], bias = new Float64Array(OUT), ...parts } = nodesOf(form);
  const bytes = model({
    opset: 17,
    nodes,
    initializers: [
      tensor('w', isTurned ? [OUT, IN] : [IN, OUT], laid, dtype),
      parameter('ws', scales, 'float32'),
      parameter('wz', zeros, dtype),
      ...initializers,
    ],
    inputs: [value('x', ['rows', IN])],
    outputs: [value('y', ['rows', OUT])],
  });
  const x = Float64Array.from(Float32Array.from(randomNumbers(seed + 1, ROWS * IN)));
  const { step = 0, codes, factor = 1 } = parts;
  const weight = integers.map((w, i) => factor * (w - at(zeros, i % OUT)) * at(scales, i % OUT));
  const added = codes ? codes.map((c, i) => factor * X_SCALE * c * at(scales, i)) : bias;
  return { bytes, feeds: { x: feed([ROWS, IN], x) }, x, weight, bias: added, step };
}

interface Parts {
  readonly nodes: NodeProto[];
  readonly initializers?: TensorProto[];
  readonly bias?: Float64Array;
  /** A bias in integers, times both scales and the factor. */
  readonly codes?: Float64Array;
  readonly factor?: number;
  readonly step?: number;
}

const CODES = Float64Array.from({ length: OUT }, (_, i) => 100 * i - 300);
const BIAS = Float64Array.from({ length: OUT }, (_, i) => (i - 3) / 8);

function nodesOf(form: IntegerForm): Parts {
  const dynamic = node('DynamicQuantizeLinear', ['x'], ['xq', 'xs', 'xz'], {}, 'quantize');
  const floatBias = { initializers: [tensor('b', [OUT], BIAS)], bias: BIAS };
  const toFloat = node('Cast', ['sums'], 'numbers', { to: 1 });
  const product = (weight: string) =>
    node('MatMulInteger', ['xq', weight, 'xz', 'wz'], 'sums', {}, 'layer');
  const scaled = [
    node('Mul', ['xs', 'ws'], 'scale'),
    node('Mul', ['numbers', 'scale'], 'y', {}, 'last'),
  ];
  const scales = [tensor('as', [], [X_SCALE]), tensor('az', [], [128], 'uint8')];
  const rounded = [tensor('ys', [], [Y_SCALE]), tensor('yz', [], [128], 'uint8')];
  const quantize = node('QuantizeLinear', ['x', 'as', 'az'], 'xq');
  const dequantize = node('DequantizeLinear', ['yq', 'ys', 'yz'], 'y', {}, 'last');
  const linear = (output: string) =>
    node('QLinearMatMul', ['xq', 'as', 'az', 'w', 'ws', 'wz', 'ys', 'yz'], output, {}, 'layer');
  const gemm = ['xq', 'as', 'az', 'w', 'ws', 'wz', 'c'];
  switch (form) {
    case 'MatMulInteger':
      return { nodes: [dynamic, product('w'), toFloat, ...scaled] };
    case 'MatMulInteger, one scale after the other': {
      const once = node('Mul', ['ws', 'numbers'], 'once');
      return { nodes: [dynamic, product('w'), toFloat, once, node('Mul', ['once', 'xs'], 'y')] };
    }
    case 'MatMulInteger, weight transposed': {
      const turn = node('Transpose', ['w'], 'wt', { perm: [1, 0] });
      return { nodes: [turn, dynamic, product('wt'), toFloat, ...scaled] };
    }
    case 'DynamicQuantizeMatMul': {
      const inputs = ['x', 'w', 'ws', 'wz', 'b'];
      return { nodes: [node(`com.microsoft:${form}`, inputs, 'y', {}, 'layer')], ...floatBias };
    }
    case 'MatMulIntegerToFloat': {
      const inputs = ['xq', 'w', 'xs', 'ws', 'xz', 'wz', 'b'];
      const layer = node(`com.microsoft:${form}`, inputs, 'y', {}, 'layer');
      return { nodes: [dynamic, layer], ...floatBias };
    }
    case 'QLinearMatMul':
      return {
        nodes: [quantize, linear('yq'), dequantize],
        ...{ initializers: [...scales, ...rounded], step: Y_SCALE },
      };
    case 'QLinearMatMul, bias added': {
      const codes = BIAS.map((b) => 100 + b * 32);
      const constants = [
        tensor('bq', [OUT], codes, 'uint8'),
        tensor('bs', [], [1 / 32]),
        tensor('bz', [], [100], 'uint8'),
      ];
      const inputs = ['pq', 'ys', 'yz', 'bq', 'bs', 'bz', 'ys', 'yz'];
      const sum = node('com.microsoft:QLinearAdd', inputs, 'yq');
      return {
        nodes: [quantize, linear('pq'), sum, dequantize],
        ...{ initializers: [...scales, ...rounded, ...constants], bias: BIAS, step: 2 * Y_SCALE },
      };
    }
    case 'QDQ around MatMul':
      return { ...between(node('MatMul', ['xd', 'wd'], 'p', {}, 'layer')), step: Y_SCALE };
    case 'QDQ around Gemm, transposed': {
      const gemm = node('Gemm', ['xd', 'wd', 'b'], 'p', { transB: 1 }, 'layer');
      const { nodes, initializers = [] } = between(gemm);
      return {
        nodes,
        initializers: [...initializers, ...floatBias.initializers],
        bias: BIAS,
        step: Y_SCALE,
      };
    }
    case 'QGemm':
    case 'QGemm, rounded':
      return gemmOf(form === 'QGemm' ? [] : ['ys', 'yz']);
  }

  function between(product: NodeProto): Parts {
    const nodes = [
      quantize,
      node('DequantizeLinear', ['xq', 'as', 'az'], 'xd'),
      node('DequantizeLinear', ['w', 'ws', 'wz'], 'wd'),
      product,
      node('QuantizeLinear', ['p', 'ys', 'yz'], 'yq'),
      dequantize,
    ];
    return { nodes, initializers: [...scales, ...rounded] };
  }

  function gemmOf(outputs: string[]): Parts {
    const isRounded = outputs.length > 0;
    const attributes = { alpha: { float: ALPHA }, transB: 1 };
    const layer = node(
      'com.microsoft:QGemm',
      [...gemm, ...outputs],
      isRounded ? 'yq' : 'y',
      attributes,
      'layer',
    );
    return {
      nodes: [quantize, layer, ...(isRounded ? [dequantize] : [])],
      initializers: [...scales, ...(isRounded ? rounded : []), tensor('c', [OUT], CODES, 'int32')],
      ...{ codes: CODES, factor: ALPHA, step: isRounded ? Y_SCALE : 0 },
    };
  }
}

function transposed(matrix: Float64Array): Float64Array {
  return matrix.map((_, i) => matrix[(i % IN) * OUT + Math.floor(i / IN)]!);
}
