/**
 * Activations that are rounded to integers, and products of those. A number that was rounded does not move
 * with the one it came from: the gradient goes straight through the rounding, as in quantization-aware
 * training, and nothing passes where the rounding cuts off. The gradient of an integer is the change of the
 * loss with one more of it: that of the number it stands for, times its scale.
 */
import type { DataTypeName } from '../../onnx/dtype.js';
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import { type GradientRule, ofOutputs, type RuleContext } from '../rule.js';
import { matMul } from './matrix.js';

export const quantizedConv = ofOutputs('all', () => {
  throw new Refusal(
    'it convolves integers, which has no gradient here',
    'Quantize weights only, or train the model before it is quantized.',
  );
});

/** `q = round(x / scale) + zeroPoint`, cut off at the ends of its type */
export const quantizeLinear: GradientRule = (context) => {
  const { x, y, dy, c } = context;
  const [input, , zero = ''] = x as readonly string[] as [string, string, string?];
  return [
    () => {
      const scale = parameter(context, x[1]!);
      const stands = c.mul(less(c, floats(c, y[0]!), parameter(context, zero)), scale);
      const off = c.unary('Abs', c.sub(input, stands));
      const isKept = c.compare('Less', off, c.scale(scale, MORE_THAN_ROUNDING));
      return c.div(c.masked(isKept, dy[0]!), scale);
    },
    undefined,
    'none',
  ];
};

/** Rounding moves a number by half a step of its scale. */
const MORE_THAN_ROUNDING = 0.51;

/** `x = (q - zeroPoint) · scale` */
export const dequantizeLinear: GradientRule = (context) => [
  () => context.c.mul(context.dy[0]!, parameter(context, context.x[1]!)),
  undefined,
  'none',
];

/** QuantizeLinear with the least scale that cuts off nothing; scale and zero point count as given. */
export const dynamicQuantizeLinear = ofOutputs('all', ({ y: [, scale], dy: [dy], c }) => [
  () => c.div(dy!, scale!),
]);

/** `Y = (A - zeroA) · (B - zeroB)` */
export const matMulInteger: GradientRule = (context) => {
  const [a, b, zeroA, zeroB] = context.x as Inputs;
  return [...productOf(context, { a, b, zeroA, zeroB }), 'none', 'none'];
};

/** com.microsoft MatMulIntegerToFloat: `Y = scaleA · (A - zeroA) · (B - zeroB) · scaleB + bias` */
export const matMulIntegerToFloat: GradientRule = (context) => {
  const [a, b, scaleA, scaleB, zeroA, zeroB, bias] = context.x as Inputs;
  const [left, right] = productOf(context, { a, b, zeroA, zeroB, scaleA, scaleB });
  return [left, right, undefined, undefined, 'none', 'none', biased(context, bias)];
};

/** com.microsoft DynamicQuantizeMatMul: `Y = A · (B - zeroB) · scaleB + bias`, A rounded on the way */
export const dynamicQuantizeMatMul: GradientRule = (context) => {
  const [a, b, scaleB, zeroB, bias] = context.x as Inputs;
  const [left, right] = productOf(context, { a, b, zeroB, scaleB });
  return [left, right, undefined, 'none', biased(context, bias)];
};

/** `Y = round(scaleA · (A - zeroA) · (B - zeroB) · scaleB / scaleY) + zeroY` */
export const qLinearMatMul: GradientRule = (context) => {
  const [a, scaleA, zeroA, b, scaleB, zeroB, scaleY] = context.x as Inputs;
  const rounded = { ...context, dy: [throughRounding(context, scaleY!)] };
  const [left, right] = productOf(rounded, { a, b, zeroA, zeroB, scaleA, scaleB });
  return [left, undefined, 'none', right, undefined, 'none'];
};

/** com.microsoft QGemm: `Y = α · A' · B' + C` of integers, rounded where there is a scale of Y */
export const qGemm: GradientRule = (context) => {
  const { c, int, float } = context;
  const [, scaleA, , b, scaleB, zeroB, , scaleY] = context.x as Inputs;
  return [
    () => {
      const dy = scaleY ? throughRounding(context, scaleY) : context.dy[0]!;
      const transposedIf = (value: string, on: boolean) =>
        on ? c.transpose(value, [1, 0]) : value;
      const integers = transposedIf(floats(c, b), int('transB', 0) !== 0);
      const weight = c.mul(less(c, integers, zeroB), scaleB!);
      const scaled = c.scale(c.mul(dy, scaleA), float('alpha', 1));
      const product = c.matMul(scaled, c.transpose(weight, [1, 0]));
      return transposedIf(product, int('transA', 0) !== 0);
    },
    undefined,
    'none',
  ];
};

/** com.microsoft QLinearAdd: `Y = round((A + B) / scaleY) + zeroY` of the numbers that integers stand for */
export const qLinearAdd: GradientRule = (context) => {
  const { x, c } = context;
  const side = (at: number) => () => {
    const dy = throughRounding(context, x[6]!);
    return c.sumTo(c.mul(dy, floats(c, x[at + 1]!)), x[at]!);
  };
  return [side(0), undefined, 'none', side(3), undefined, 'none'];
};

/** com.microsoft QLinearMul: as QLinearAdd, of the product */
export const qLinearMul: GradientRule = (context) => {
  const { x, c } = context;
  const side = (at: number, other: number) => () => {
    const dy = c.mul(throughRounding(context, x[6]!), numbersOf(context, other));
    return c.sumTo(c.mul(dy, floats(c, x[at + 1]!)), x[at]!);
  };
  return [side(0, 3), undefined, 'none', side(3, 0), undefined, 'none'];
};

/** com.microsoft QLinearSigmoid */
export const qLinearSigmoid: GradientRule = (context) => {
  const { x, c } = context;
  return [
    () => {
      const y = c.unary('Sigmoid', numbersOf(context, 0));
      const slope = c.mul(y, c.minus(1, y));
      return c.mul(c.mul(throughRounding(context, x[3]!), slope), floats(c, x[1]!));
    },
    undefined,
    'none',
  ];
};

/** The numbers that the integers at an input mean, with the scale and zero point that follow them. */
function numbersOf({ x, c }: RuleContext, at: number): string {
  return c.mul(less(c, floats(c, x[at]!), x[at + 2]), floats(c, x[at + 1]!));
}

type Inputs = [string, string, string, string, string?, string?, string?, string?];

interface Product {
  readonly a: string;
  readonly b: string;
  readonly zeroA?: string | undefined;
  readonly zeroB?: string | undefined;
  readonly scaleA?: string | undefined;
  readonly scaleB?: string | undefined;
}

/** `dA = (dY · scaleA) · ((B - zeroB) · scaleB)ᵀ`, and the same for B. */
function productOf(context: RuleContext, { a, b, ...by }: Product): [() => string, () => string] {
  const { c, dy } = context;
  const scaled = (value: string, scale: string | undefined) =>
    scale === undefined ? value : c.mul(value, scale);
  const left = () => scaled(less(c, floats(c, a), by.zeroA), by.scaleA);
  const right = () => scaled(less(c, floats(c, b), by.zeroB), by.scaleB);
  const side = (x: [string, string], scale: string | undefined) =>
    matMul({ ...context, x, dy: [scaled(dy[0]!, scale)] });
  return [() => side([a, right()], by.scaleA)[0]!(), () => side([left(), b], by.scaleB)[1]!()];
}

function biased({ c, dy: [dy] }: RuleContext, bias: string | undefined): () => string {
  return () => c.sumTo(dy!, bias!);
}

/** The gradient of a product, from that of the integers it is rounded to; none at the ends of their type. */
function throughRounding({ y: [y], dy: [dy], c }: RuleContext, scale: string): string {
  const { dtype } = c.type(y!);
  const limits = LIMITS[dtype];
  if (!limits) throw new Refusal(`its output is ${dtype}, expected int8 or uint8`);
  const numbers = floats(c, y!);
  const isKept = (how: 'Greater' | 'Less', limit: number) =>
    c.compare(how, numbers, c.number(numbers, limit));
  const kept = c.masked(isKept('Greater', limits[0]), c.masked(isKept('Less', limits[1]), dy!));
  return c.div(kept, scale);
}

const LIMITS: Readonly<Partial<Record<DataTypeName, readonly [number, number]>>> = {
  int8: [-128, 127],
  uint8: [0, 255],
};

function floats(c: OpBuilder, value: string): string {
  return ['float32', 'float64'].includes(c.type(value).dtype) ? value : c.cast(value, 'float32');
}

function less(c: OpBuilder, value: string, zero: string | undefined): string {
  return zero ? c.sub(value, floats(c, zero)) : value;
}

/** A scale or zero point in floats: one number, or one for each place on the axis that the node names. */
function parameter({ x: [input], c, int }: RuleContext, value: string): string {
  if (value === '') return value;
  if (int('block_size', 0) !== 0) throw new Refusal('it quantizes in blocks');
  const given = floats(c, value);
  if (c.rank(value) === 0) return given;
  const behind = c.rank(input!) - 1 - c.axis(input!, int('axis', 1));
  const axes = Array.from({ length: Math.max(0, behind) }, (_, i) => i + 1);
  return c.dims(value)[0] === 1 ? given : c.unsqueeze(given, axes);
}
