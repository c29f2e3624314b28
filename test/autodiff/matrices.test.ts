import { describe } from 'vitest';
import type { GraphBuilder } from '../../src/graph/builder.js';
import type { Build } from './check.js';
import { add, float, gradients, int, operator, text } from './operators.js';

describe('MatMul', () => {
  operator('MatMul', [
    [2, 3],
    [3, 4],
  ]);
  operator('MatMul', [
    [2, 2, 3],
    [3, 4],
  ]);
  operator('MatMul', [
    [2, 2, 3],
    [2, 3, 4],
  ]);
  operator('MatMul', [
    [2, 1, 2, 3],
    [2, 3, 4],
  ]);
  operator('MatMul', [
    [1, 2, 3],
    [2, 3, 1],
  ]);
  operator('MatMul', [
    [2, 3],
    [2, 3, 4],
  ]);
  operator('MatMul', [[3], [3, 4]]);
  operator('MatMul', [[2, 3], [3]]);
  operator('MatMul', [[3], [3]]);
  operator('MatMul', [[2, 2, 3], [3]]);
  operator('MatMul', [[3], [2, 3, 4]]);
  gradients(
    'of a transpose, which takes no second transpose back',
    (g, [q, k]) => g.op('MatMul', [q!, g.op('Transpose', [k!], { perm: { ints: [0, 2, 1] } })]),
    [
      [2, 3, 4],
      [2, 5, 4],
    ],
  );
});

describe('Gemm', () => {
  for (const transA of [0, 1]) {
    for (const transB of [0, 1]) {
      const attributes = {
        transA: int(transA),
        transB: int(transB),
        alpha: float(0.5),
        beta: float(2),
      };
      const matrices = [transA ? [3, 2] : [2, 3], transB ? [4, 3] : [3, 4]];
      operator('Gemm', [...matrices, [4]], { attributes });
      operator('Gemm', matrices, { attributes });
    }
  }
  operator('Gemm', [
    [2, 3],
    [3, 4],
    [2, 1],
  ]);
  operator('Gemm', [[2, 3], [3, 4], []]);
});

describe('com.microsoft FusedMatMul', () => {
  const float32 = { dtype: 'float32', polynomial: true } as const;
  const fused = (shapes: number[][], attributes: Record<string, number>) => {
    const entries = Object.entries(attributes).map(([name, value]) => [name, int(value)]);
    operator('com.microsoft:FusedMatMul', shapes, {
      ...float32,
      attributes: { ...Object.fromEntries(entries), alpha: float(0.5) },
    });
  };
  fused(
    [
      [2, 3, 2],
      [2, 3, 4],
    ],
    { transA: 1 },
  );
  fused(
    [
      [2, 2, 3],
      [2, 4, 3],
    ],
    { transB: 1 },
  );
  fused(
    [
      [2, 3, 2],
      [4, 3],
    ],
    { transA: 1, transB: 1 },
  );
  fused(
    [
      [2, 3, 4],
      [3, 4, 5],
    ],
    { transBatchA: 1 },
  );
  fused(
    [
      [3, 2, 4],
      [4, 3, 5],
    ],
    { transBatchB: 1 },
  );
  fused(
    [
      [2, 3, 4],
      [2, 3, 5],
    ],
    { transBatchA: 1, transA: 1, transBatchB: 1 },
  );
});

describe('Einsum', () => {
  const einsum = (equation: string, shapes: number[][]) =>
    operator('Einsum', shapes, { attributes: { equation: text(equation) } });
  einsum('ij,jk->ik', [
    [2, 3],
    [3, 4],
  ]);
  einsum('ij,jk', [
    [2, 3],
    [3, 4],
  ]);
  einsum('bhid, bhjd -> bhij', [
    [2, 2, 3, 2],
    [2, 2, 4, 2],
  ]);
  einsum('ij->ji', [[2, 3]]);
  einsum('ba', [[2, 3]]);
  einsum('ij->j', [[2, 3]]);
  einsum('ij->', [[2, 3]]);
  einsum('ij,kl->il', [
    [2, 3],
    [4, 2],
  ]);
  einsum('i,j->ij', [[2], [3]]);
  einsum('...ij,...jk->...ik', [
    [2, 2, 3],
    [2, 3, 2],
  ]);
  einsum('...ij,jk->...ik', [
    [2, 2, 3],
    [3, 2],
  ]);
  einsum('i,ij,j->', [[2], [2, 3], [3]]);
  operator(
    'Einsum',
    [
      [1, 2, 3],
      [2, 3, 2],
    ],
    {
      attributes: { equation: text('...ij,...jk->...ik') },
      symbols: 'none',
    },
  );
});

describe('com.microsoft MatMulNBits', () => {
  const [K, N, block] = [32, 3, 16];
  const codes = Array.from({ length: N * K }, (_, i) => (i * 7 + 3) % 16);
  const scales = Array.from({ length: (N * K) / block }, (_, i) => 0.25 + i / 8);
  // W [N, K]: (code - 8) · scale of its block
  const numbers = codes.map((code, i) => (code - 8) * scales[Math.floor(i / block)]!);
  const bytes = Uint8Array.from({ length: (N * K) / 2 }, (_, i) => {
    return codes[2 * i]! + 16 * codes[2 * i + 1]!;
  });
  const build = (accuracy: number) => (g: GraphBuilder, inputs: readonly string[]) => {
    const packed = { name: 'codes', dtype: 'uint8', dims: [N, K / block, block / 2] } as const;
    g.addInitializer({ ...packed, data: bytes });
    const [x, ...bias] = inputs;
    const given = [x!, 'codes', g.constant('float32', [scales.length], scales)];
    return add(
      g,
      'com.microsoft:MatMulNBits',
      bias.length > 0 ? [...given, '', '', ...bias] : given,
      {
        K: int(K),
        N: int(N),
        bits: int(4),
        block_size: int(block),
        accuracy_level: int(accuracy),
      },
    );
  };
  const reference = (g: GraphBuilder, [x, bias]: readonly string[]) => {
    const weight = g.constant('float64', [N, K], numbers);
    const product = g.op('MatMul', [x!, g.op('Transpose', [weight])]);
    return bias ? g.op('Add', [product, bias]) : product;
  };
  const options = { dtype: 'float32', reference } as const;
  gradients('MatMulNBits', build(0), [[2, 2, K]], options);
  gradients('MatMulNBits with a bias', build(0), [[2, K], [N]], {
    ...options,
    symbols: 'none',
  });
  const [k, n] = [20, 2];
  const packed = Uint8Array.from({ length: n * block }, (_, i) => (i * 37) % 256);
  const zeros = [3, 9, 12, 6];
  const code = (i: number) => (packed[i >> 1]! >> (4 * (i & 1))) & 15;
  // Of the second block of a row, its first four codes count.
  const weight = Array.from({ length: n * k }, (_, i) => {
    const [row, at] = [Math.floor(i / k), i % k];
    const inBlock = 2 * row + Math.floor(at / block);
    return (code(2 * block * row + at) - zeros[inBlock]!) * scales[inBlock]!;
  });
  const padded: Build = (g, [x]) => {
    g.addInitializer({ name: 'q', dtype: 'uint8', dims: [n, 2, block / 2], data: packed });
    const points = Uint8Array.of(zeros[0]! + 16 * zeros[1]!, zeros[2]! + 16 * zeros[3]!);
    g.addInitializer({ name: 'z', dtype: 'uint8', dims: [n], data: points });
    const s = g.constant('float32', [4], scales.slice(0, 4));
    const sizes = { K: int(k), N: int(n), bits: int(4), block_size: int(block) };
    return add(g, 'com.microsoft:MatMulNBits', [x!, 'q', s, 'z'], sizes);
  };
  gradients('MatMulNBits with a padded last block and zero points', padded, [[3, k]], {
    ...{ dtype: 'float32', symbols: 'none' },
    reference: (g, [x]) =>
      g.op('MatMul', [x!, g.op('Transpose', [g.constant('float64', [n, k], weight)])]),
  });
});

describe('com.microsoft products with an activation', () => {
  const activation = text('LeakyRelu');
  operator('com.microsoft:FusedGemm', [[2, 3], [4, 3], [4]], {
    dtype: 'float32',
    attributes: { transB: int(1), activation, activation_alpha: float(0.25) },
    reference: (g, x) => {
      const y = g.op('Gemm', x, { transB: int(1) });
      // LeakyRelu has no float64 kernel.
      const negative = g.op('Less', [y, g.scalar('float64', 0)]);
      return g.op('Where', [negative, g.op('Mul', [y, g.scalar('float64', 0.25)]), y]);
    },
  });
  operator('com.microsoft:FusedConv', [[1, 2, 4, 4], [3, 2, 1, 1], [3]], {
    dtype: 'float32',
    symbols: 'none',
    attributes: { activation: text('Relu') },
    reference: (g, [x, w, b]) => {
      const rows = g.op('Reshape', [w!, g.integers([3, 2])]);
      const places = g.op('Reshape', [x!, g.integers([2, 16])]);
      const column = g.op('Reshape', [b!, g.integers([3, 1])]);
      const y = g.op('Relu', [g.op('Add', [g.op('MatMul', [rows, places]), column])]);
      return g.op('Reshape', [y, g.integers([1, 3, 4, 4])]);
    },
  });
});
