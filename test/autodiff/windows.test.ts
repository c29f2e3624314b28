import { describe } from 'vitest';
import type { Attributes } from '../../src/graph/builder.js';
import { add, gradients, int, ints, type Options, operator, text } from './operators.js';

// They are linear in each input, and have no float64 kernels.
const linear = { dtype: 'float32', polynomial: true } as const;

function windows(
  name: string,
  shapes: number[][],
  attributes: Attributes = {},
  more: Options = {},
) {
  operator(name, shapes, { ...linear, attributes, ...more });
}

describe('Conv', () => {
  // The kernel's shape is static, as weights are.
  const conv = (shapes: number[][], attributes: Attributes = {}) => {
    windows('Conv', shapes, attributes, { symbols: 'none' });
  };
  conv([[2, 3, 7], [4, 3, 3], [4]]);
  conv(
    [
      [2, 3, 8],
      [4, 3, 3],
    ],
    { strides: ints(2), pads: ints(1, 1) },
  );
  conv(
    [
      [2, 4, 9],
      [6, 2, 3],
    ],
    {
      strides: ints(2),
      dilations: ints(2),
      pads: ints(2, 1),
      group: int(2),
    },
  );
  conv([[1, 2, 5, 6], [3, 2, 3, 2], [3]], { strides: ints(2, 1), pads: ints(1, 0, 1, 1) });
  conv(
    [
      [1, 4, 5, 5],
      [4, 1, 3, 3],
    ],
    { group: int(4), auto_pad: text('SAME_UPPER') },
  );
  conv(
    [
      [1, 2, 6, 5],
      [3, 2, 3, 3],
    ],
    { strides: ints(2, 2), auto_pad: text('SAME_LOWER') },
  );
  conv(
    [
      [1, 2, 6],
      [2, 2, 3],
    ],
    { strides: ints(2), auto_pad: text('VALID') },
  );
  conv(
    [
      [1, 2, 4, 4],
      [2, 2, 1, 1],
    ],
    { strides: ints(3, 3) },
  );
  const kernel = Array.from({ length: 18 }, (_, i) => Math.sin(i));
  gradients(
    'Conv over inputs of any size',
    (g, [x]) =>
      g.op('Conv', [x!, g.constant('float32', [3, 2, 3], kernel)], {
        strides: ints(2),
        pads: ints(1, 1),
      }),
    [[2, 2, 8]],
    linear,
  );
});

describe('ConvTranspose', () => {
  const transposed = (shapes: number[][], attributes: Attributes = {}) => {
    windows('ConvTranspose', shapes, attributes, { symbols: 'none' });
  };
  transposed([
    [1, 3, 4],
    [3, 2, 3],
  ]);
  transposed([[1, 3, 4, 3], [3, 2, 3, 2], [2]], { strides: ints(2, 1), pads: ints(1, 0, 1, 0) });
  transposed(
    [
      [1, 2, 4],
      [2, 2, 3],
    ],
    {
      strides: ints(3),
      output_padding: ints(2),
      pads: ints(1, 1),
    },
  );
  transposed(
    [
      [1, 4, 3],
      [4, 1, 3],
    ],
    { group: int(2), dilations: ints(2) },
  );
});

describe('AveragePool', () => {
  const pool = (shapes: number[][], attributes: Attributes, more: Options = {}) => {
    windows('AveragePool', shapes, attributes, { opset: 19, ...more });
  };
  pool([[2, 2, 6]], { kernel_shape: ints(2), strides: ints(2) });
  for (const count_include_pad of [int(0), int(1)]) {
    pool([[1, 2, 5, 6]], {
      kernel_shape: ints(3, 2),
      strides: ints(2, 1),
      pads: ints(1, 0, 1, 1),
      count_include_pad,
    });
    pool([[1, 2, 5, 6]], {
      kernel_shape: ints(3, 3),
      strides: ints(2, 2),
      pads: ints(1, 0, 1, 0),
      ceil_mode: int(1),
      count_include_pad,
    });
  }
  pool([[1, 1, 8]], { kernel_shape: ints(3), dilations: ints(2), pads: ints(1, 1) });
  pool([[1, 2, 7]], { kernel_shape: ints(2), strides: ints(2), ceil_mode: int(1) });
  pool([[1, 2, 5]], { kernel_shape: ints(3), auto_pad: text('SAME_UPPER') });
  pool(
    [[1, 2, 6]],
    { kernel_shape: ints(3), strides: ints(2), auto_pad: text('SAME_LOWER') },
    { symbols: 'none' },
  );
  windows('GlobalAveragePool', [[2, 2, 3, 2]]);
});

describe('MaxPool', () => {
  const pool = (shapes: number[][], attributes: Attributes) => {
    operator('MaxPool', shapes, { attributes, opset: 16 });
  };
  pool([[1, 2, 6]], { kernel_shape: ints(2), strides: ints(2) });
  pool([[2, 2, 6, 5]], { kernel_shape: ints(3, 2), strides: ints(2, 1), pads: ints(1, 0, 1, 1) });
  pool([[1, 2, 7]], { kernel_shape: ints(2), strides: ints(2), ceil_mode: int(1) });
  pool([[1, 1, 8]], { kernel_shape: ints(3), dilations: ints(2) });
  pool([[1, 2, 5]], { kernel_shape: ints(3), auto_pad: text('SAME_UPPER') });
  gradients('GlobalMaxPool', (g, [x]) => g.op('GlobalMaxPool', [x!]), [[2, 2, 3]], {
    dtype: 'float32',
    reference: (g, [x]) => g.op('ReduceMax', [x!], { axes: ints(2) }),
  });
});

describe('Resize', () => {
  const modes = ['half_pixel', 'asymmetric', 'align_corners', 'pytorch_half_pixel'];
  const resize = (
    name: string,
    shape: number[],
    attributes: Attributes,
    size: { scales: number[] } | { sizes: number[] },
  ) => {
    gradients(
      `Resize ${name} ${JSON.stringify(size)}`,
      (g, [x]) => {
        const given =
          'scales' in size
            ? [g.constant('float32', [size.scales.length], size.scales)]
            : ['', g.integers(size.sizes)];
        return add(g, 'Resize', [x!, '', ...given], attributes);
      },
      [shape],
      { ...linear, opset: 18 },
    );
  };
  for (const mode of modes) {
    const linearly = { mode: text('linear'), coordinate_transformation_mode: text(mode) };
    resize(`linear ${mode}`, [1, 2, 3, 2], linearly, { scales: [1, 1, 2, 1.5] });
    resize(`linear ${mode}`, [1, 2, 6, 4], linearly, { sizes: [1, 2, 3, 2] });
    const nearest = { mode: text('nearest'), coordinate_transformation_mode: text(mode) };
    resize(`nearest ${mode}`, [1, 2, 3, 2], nearest, { scales: [1, 1, 2, 2] });
    resize(`nearest ${mode}`, [1, 2, 5, 4], nearest, { sizes: [1, 2, 3, 2] });
  }
  resize('cubic', [1, 1, 4, 3], { mode: text('cubic') }, { scales: [1, 1, 2, 2] });
  resize(
    'nearest floor',
    [1, 2, 3],
    { mode: text('nearest'), nearest_mode: text('floor') },
    {
      scales: [1, 1, 2],
    },
  );
  resize(
    'linear of the last two axes',
    [1, 2, 3, 2],
    { mode: text('linear'), axes: ints(2, 3) },
    { sizes: [5, 4] },
  );
  gradients(
    'Resize of a batch of any size',
    (g, [x]) => {
      const fixed = g.op('Reshape', [x!, g.integers([-1, 2, 3, 2])]);
      const scales = g.constant('float32', [4], [1, 1, 2, 2]);
      return add(g, 'Resize', [fixed, '', scales], { mode: text('linear') });
    },
    [[2, 12]],
    { ...linear, opset: 18 },
  );
});
