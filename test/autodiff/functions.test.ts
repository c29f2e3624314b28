import { describe } from 'vitest';
import { erf, gelu } from './erf.js';
import { add, float, gradients, int, operator, scalar, text } from './operators.js';

const positive = (z: number) => Math.abs(z) + 0.3;
const between = (z: number) => Math.tanh(z) * 0.9;
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const softplus = (x: number) => Math.log1p(Math.exp(x));
const tanhGelu = (x: number) =>
  (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

describe('arithmetic', () => {
  for (const name of ['Add', 'Sub', 'Mul', 'Div', 'Min', 'Max', 'Pow']) {
    const options = { domain: positive, opset: 18 };
    operator(
      name,
      [
        [2, 3],
        [2, 3],
      ],
      options,
    );
    operator(name, [[2, 3], [3]], options);
    operator(
      name,
      [
        [1, 3],
        [2, 1],
      ],
      options,
    );
    operator(name, [[], [2, 2]], options);
    operator(
      name,
      [
        [2, 1, 2],
        [3, 1],
      ],
      options,
    );
  }
  for (const exponent of [0.5, 2, 3, -1.5]) {
    gradients(
      `Pow with the exponent ${exponent}`,
      (g, [x]) => g.op('Pow', [x!, scalar(g, exponent)]),
      [[2, 3]],
      { domain: positive },
    );
  }
  gradients(
    'Pow of 0 with the exponent 0',
    (g, [x]) => g.op('Pow', [g.op('Mul', [x!, scalar(g, 0)]), scalar(g, 0)]),
    [[2]],
    { symbols: 'none' },
  );
  gradients('Pow of negative numbers', (g, [x]) => g.op('Pow', [x!, scalar(g, 2)]), [[2, 3]]);
  operator('Min', [[2, 3], [3], [2, 1]]);
  operator('Sum', [[2, 3], [3], [1, 1]], { dtype: 'float32', polynomial: true });
  operator('Mean', [[2, 3], [3]], { dtype: 'float32', polynomial: true });
  gradients('a value used twice', (g, [x]) => g.op('Mul', [x!, g.op('Add', [x!, x!])]), [[2, 3]]);
});

describe('functions of one number', () => {
  for (const name of ['Abs', 'Cos', 'Exp', 'Identity', 'Neg', 'Relu', 'Sigmoid', 'Sin', 'Tanh']) {
    operator(name, [[2, 3]]);
  }
  for (const name of ['Log', 'Reciprocal', 'Sqrt']) operator(name, [[2, 3]], { domain: positive });
  const functions: [string, (x: number) => number, ((z: number) => number)?][] = [
    ['Acos', Math.acos, between],
    ['Acosh', Math.acosh, (z) => Math.abs(z) + 1.2],
    ['Asin', Math.asin, between],
    ['Asinh', Math.asinh],
    ['Atan', Math.atan],
    ['Atanh', Math.atanh, between],
    ['Celu', (x) => (x > 0 ? x : Math.expm1(x))],
    ['Cosh', Math.cosh],
    ['Elu', (x) => (x > 0 ? x : Math.expm1(x))],
    ['Erf', erf],
    ['HardSigmoid', (x) => Math.min(1, Math.max(0, 0.2 * x + 0.5)), (z) => 2 * z],
    ['HardSwish', (x) => x * Math.min(1, Math.max(0, x / 6 + 0.5)), (z) => 3 * z],
    ['LeakyRelu', (x) => (x < 0 ? 0.01 * x : x)],
    ['Mish', (x) => x * Math.tanh(softplus(x))],
    ['Selu', (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x))],
    ['Shrink', (x) => (Math.abs(x) > 0.5 ? x : 0)],
    ['Sinh', Math.sinh],
    ['Softplus', softplus],
    ['Softsign', (x) => x / (1 + Math.abs(x))],
    ['Tan', Math.tan, between],
    ['ThresholdedRelu', (x) => (x > 1 ? x : 0)],
    ['com.microsoft:Gelu', gelu],
    ['com.microsoft:FastGelu', tanhGelu],
    ['com.microsoft:QuickGelu', (x) => x * sigmoid(1.702 * x)],
  ];
  for (const [name, scalar, domain = (z: number) => z] of functions) {
    operator(name, [[3, 5]], { dtype: 'float32', scalar, opset: 18, domain });
  }
  const float32 = { dtype: 'float32', opset: 20 } as const;
  operator('Gelu', [[3, 5]], { ...float32, scalar: gelu });
  operator('Gelu', [[3, 5]], {
    ...float32,
    scalar: tanhGelu,
    attributes: { approximate: text('tanh') },
  });
  operator('Swish', [[3, 5]], {
    dtype: 'float32',
    opset: 24,
    scalar: (x) => x * sigmoid(1.5 * x),
    attributes: { alpha: float(1.5) },
  });
  operator('Elu', [[3, 5]], {
    ...float32,
    scalar: (x) => (x > 0 ? x : 0.7 * Math.expm1(x)),
    attributes: { alpha: float(0.7) },
  });
  operator('Celu', [[3, 5]], {
    ...float32,
    scalar: (x) => (x > 0 ? x : 0.7 * Math.expm1(x / 0.7)),
    attributes: { alpha: float(0.7) },
  });
  operator('LeakyRelu', [[3, 5]], {
    ...float32,
    scalar: (x) => (x > 0 ? x : 0.3 * x),
    attributes: { alpha: float(0.3) },
  });
  operator('Shrink', [[3, 5]], {
    ...float32,
    scalar: (x) => (Math.abs(x) > 0.25 ? x - Math.sign(x) * 0.125 : 0),
    attributes: { lambd: float(0.25), bias: float(0.125) },
  });
  operator('com.microsoft:QuickGelu', [[3, 5]], {
    dtype: 'float32',
    scalar: (x) => x * sigmoid(x),
    attributes: { alpha: float(1) },
  });
});

describe('piecewise functions with bounds', () => {
  gradients('Clip', (g, [x]) => g.op('Clip', [x!, scalar(g, -0.5), scalar(g, 0.7)]), [[3, 4]]);
  gradients('Clip from below', (g, [x]) => g.op('Clip', [x!, scalar(g, -0.5)]), [[3, 4]]);
  gradients('Clip by bounds in the wrong order', (g, x) => g.op('Clip', x), [[3, 4], [], []], {
    domain: (z, input) => (input === 0 ? z : [0.5, -0.4][input - 1]!),
  });
  gradients('Clip by computed bounds', (g, x) => g.op('Clip', x), [[3, 4], [], []], {
    domain: (z, input) => [z, -0.5 + z / 10, 0.5 + z / 10][input]!,
  });
  operator(
    'PRelu',
    [
      [2, 3, 2],
      [3, 1],
    ],
    {
      dtype: 'float32',
      reference: (g, [x, slope]) => {
        const negative = g.op('Less', [x!, scalar(g, 0)]);
        return g.op('Where', [negative, g.op('Mul', [x!, slope!]), x!]);
      },
    },
  );
  gradients('Where', (g, [a, b]) => g.op('Where', [g.op('Greater', [a!, scalar(g, 0)]), a!, b!]), [
    [2, 3],
    [3],
  ]);
  gradients(
    'Where between a constant and a value, as attention masks are',
    (g, [x]) => {
      const mask = g.constant('bool', [3], [1, 0, 1]);
      return g.op('Where', [mask, x!, scalar(g, -10)]);
    },
    [[2, 3]],
  );
});

describe('constants on the way', () => {
  gradients(
    'Floor, Sign and the like have no gradient',
    (g, [x]) => g.op('Mul', [x!, g.op('Add', [g.op('Floor', [x!]), g.op('Sign', [x!])])]),
    [[2, 3]],
  );
  gradients(
    'a guard against rows of NaN keeps them out of the gradient',
    (g, [x]) => {
      // The second row attends to nothing.
      const mask = g.constant('bool', [2, 3], [1, 1, 0, 0, 0, 0]);
      const scores = g.op('Where', [mask, x!, scalar(g, Number.NEGATIVE_INFINITY)]);
      const weights = g.op('Softmax', [scores], { axis: int(-1) });
      return g.op('Where', [g.op('IsNaN', [weights]), scalar(g, 0), weights]);
    },
    [[2, 3]],
  );
  gradients(
    'Cast to float32 and back',
    (g, [x]) => {
      const narrow = add(g, 'Cast', [x!], { to: int(1) });
      return g.op('CastLike', [g.op('Mul', [narrow, narrow]), x!]);
    },
    [[2, 3]],
    { dtype: 'float32', reference: (g, [x]) => g.op('Mul', [x!, x!]) },
  );
});
