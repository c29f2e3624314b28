import { describe } from 'vitest';
import type { Attributes, GraphBuilder } from '../../src/graph/builder.js';
import type { Build } from './check.js';
import { add, constant, float, gradients, int, ints, type Options, scalar } from './operators.js';

const [B, S, H, D] = [2, 3, 2, 4];

interface Parts {
  q: string;
  k: string;
  v: string;
  /** Added to the scores. */
  bias?: string | undefined;
  softcap?: number;
  scale?: number;
}

/** The textbook formula in float64: q, k, v [B, H, S, D]. */
function attend(g: GraphBuilder, { q, k, v, bias, softcap, scale }: Parts): string {
  const turned = g.op('Transpose', [k], { perm: { ints: [0, 1, 3, 2] } });
  const factor = scalar(g, scale ?? 1 / Math.sqrt(D));
  let scores = g.op('Mul', [g.op('MatMul', [q, turned]), factor]);
  if (softcap) {
    const t = g.op('Tanh', [g.op('Div', [scores, scalar(g, softcap)])]);
    scores = g.op('Mul', [t, scalar(g, softcap)]);
  }
  if (bias) scores = g.op('Add', [scores, bias]);
  return g.op('MatMul', [g.op('Softmax', [scores], { axis: int(-1) }), v]);
}

function split(g: GraphBuilder, value: string, heads = H): string {
  const apart = g.op('Reshape', [value, g.integers([0, 0, heads, -1])]);
  return g.op('Transpose', [apart], { perm: { ints: [0, 2, 1, 3] } });
}

function join(g: GraphBuilder, value: string): string {
  const rows = g.op('Transpose', [value], { perm: { ints: [0, 2, 1, 3] } });
  return g.op('Reshape', [rows, g.integers([0, 0, -1])]);
}

/** Each head of k and v for several of q. */
function repeated(g: GraphBuilder, value: string, times: number): string {
  const apart = g.op('Unsqueeze', [value, g.integers([2])]);
  const wide = g.op('Expand', [apart, g.integers([1, 1, times, 1, 1])]);
  const sizes = g.op('Concat', [g.integers([0, -1]), g.op('Shape', [value], { start: int(2) })], {
    axis: int(0),
  });
  return g.op('Reshape', [wide, sizes]);
}

/** -10000, or as good as -∞, where a mask is 0. */
function masked(g: GraphBuilder, dims: number[], mask: number[], filter = -10000): string {
  return constant(
    g,
    dims,
    mask.map((m) => (m === 0 ? filter : 0)),
  );
}

const causal = [1, 0, 0, 1, 1, 0, 1, 1, 1];

describe('com.microsoft Attention', () => {
  const width = H * D;
  const shapes = [[B, S, 5], [5, 3 * width], [3 * width]];
  const operator = (
    name: string,
    mask: ((g: GraphBuilder) => string) | undefined,
    bias: ((g: GraphBuilder) => string) | undefined,
    attributes: Attributes = {},
    options: Options = {},
  ) => {
    const build: Build = (g, inputs) =>
      add(g, 'com.microsoft:Attention', [...inputs, ...(mask ? [mask(g)] : [])], {
        num_heads: int(H),
        ...attributes,
      });
    const reference: Build = (g, [x, w, b]) => {
      const packed = g.op('Add', [g.op('MatMul', [x!, w!]), b!]);
      const thirds = g.ops('Split', [packed], 3, { axis: int(-1), num_outputs: int(3) });
      const [q, k, v] = thirds.map((part) => split(g, part)) as [string, string, string];
      return join(g, attend(g, { q, k, v, bias: bias?.(g) }));
    };
    const any = { dtype: 'float32', reference, opset: 18, symbols: 'lengths', ...options } as const;
    gradients(name, build, shapes, any);
  };
  operator('without a mask', undefined, undefined);
  const mask = [1, 1, 0, 1, 1, 1];
  operator(
    'with a mask of 0 and 1 [B, T]',
    (g) => g.constant('int32', [B, S], mask),
    (g) => masked(g, [B, 1, 1, S], mask),
  );
  const full = [...causal, ...causal.map(() => 1)];
  operator(
    'with a mask of 0 and 1 [B, S, T]',
    (g) => g.constant('int32', [B, S, S], full),
    (g) => masked(g, [B, 1, S, S], full),
  );
  operator(
    'with lengths [B]',
    (g) => g.constant('int32', [B], [2, 3]),
    (g) => masked(g, [B, 1, 1, S], [1, 1, 0, 1, 1, 1]),
    {},
    { symbols: 'none' },
  );
  operator(
    'with ends and starts [2 B]',
    (g) => g.constant('int32', [2 * B], [3, 2, 1, 0]),
    (g) => masked(g, [B, 1, 1, S], [0, 1, 1, 1, 1, 0]),
    {},
    { symbols: 'none' },
  );
  operator('unidirectional', undefined, (g) => masked(g, [S, S], causal, -1e30), {
    unidirectional: int(1),
  });

  // Without a bias, ONNX Runtime's kernel ends the process.
  const narrow = [width, width, 3 * H];
  const total = 2 * width + 3 * H;
  gradients(
    'of values that are narrower, with a scale',
    (g, inputs) =>
      add(g, 'com.microsoft:Attention', inputs, {
        num_heads: int(H),
        qkv_hidden_sizes: ints(...narrow),
        scale: float(0.3),
      }),
    [[B, S, 5], [5, total], [total]],
    {
      ...{ dtype: 'float32', opset: 18, symbols: 'lengths' },
      reference: (g, [x, w, b]) => {
        const packed = g.op('Add', [g.op('MatMul', [x!, w!]), b!]);
        const parts = g.ops('Split', [packed, g.integers(narrow)], 3, { axis: int(-1) });
        const [q, k, v] = parts.map((part) => split(g, part)) as [string, string, string];
        return join(g, attend(g, { q, k, v, scale: 0.3 }));
      },
    },
  );
});

describe('com.microsoft MultiHeadAttention', () => {
  const width = H * D;
  const shapes = [
    [B, S, width],
    [B, S + 1, width],
    [B, S + 1, width],
  ];
  const build =
    (more: (g: GraphBuilder) => string[], attributes: Attributes = {}): Build =>
    (g, [q, k, v, ...rest]) =>
      add(
        g,
        'com.microsoft:MultiHeadAttention',
        [q!, k!, v!, ...(rest.length ? rest : ['']), ...more(g)],
        {
          num_heads: int(H),
          ...attributes,
        },
      );
  const reference =
    (bias?: (g: GraphBuilder) => string): Build =>
    (g, [q, k, v, b]) => {
      const biases = b ? g.ops('Split', [b], 3, { axis: int(0), num_outputs: int(3) }) : [];
      const heads = [q!, k!, v!].map((part, i) =>
        split(g, biases[i] ? g.op('Add', [part, biases[i]]) : part),
      );
      return join(g, attend(g, { q: heads[0]!, k: heads[1]!, v: heads[2]!, bias: bias?.(g) }));
    };
  const float32 = { dtype: 'float32', opset: 18, symbols: 'lengths' } as const;
  gradients(
    'as it is',
    build(() => []),
    shapes,
    { ...float32, reference: reference() },
  );
  gradients(
    'with a bias',
    build(() => []),
    [...shapes, [3 * width]],
    {
      ...float32,
      reference: reference(),
    },
  );
  const keys = [1, 1, 0, 1, 1, 1, 1, 0];
  gradients(
    'with a padding mask',
    build((g) => [g.constant('int32', [B, S + 1], keys)]),
    shapes,
    { ...float32, reference: reference((g) => masked(g, [B, 1, 1, S + 1], keys)) },
  );
  const positions = Array.from({ length: S * (S + 1) }, (_, i) => Math.sin(i));
  gradients(
    'with an attention bias',
    build((g) => ['', constant(g, [1, 1, S, S + 1], positions)]),
    shapes,
    { ...float32, reference: reference((g) => constant(g, [1, 1, S, S + 1], positions)) },
  );
});

describe('Attention of opset 23', () => {
  const float32 = { dtype: 'float32', opset: 23, symbols: 'lengths' } as const;
  const heads = [
    [B, H, S, D],
    [B, H, S, D],
    [B, H, S, D],
  ];
  const build =
    (more: (g: GraphBuilder) => string[], attributes: Attributes = {}): Build =>
    (g, inputs) =>
      add(g, 'Attention', [...inputs, ...more(g)], attributes);
  const reference =
    (parts: (g: GraphBuilder) => Partial<Parts> = () => ({})): Build =>
    (g, [q, k, v]) =>
      attend(g, { q: q!, k: k!, v: v!, ...parts(g) });
  gradients(
    'of heads',
    build(() => []),
    heads,
    { ...float32, reference: reference() },
  );
  gradients(
    'with a scale',
    build(() => [], { scale: float(0.25) }),
    heads,
    {
      ...float32,
      reference: reference(() => ({ scale: 0.25 })),
    },
  );
  gradients(
    'causal',
    build(() => [], { is_causal: int(1) }),
    heads,
    {
      ...float32,
      reference: reference((g) => ({ bias: masked(g, [S, S], causal, -1e30) })),
    },
  );
  gradients(
    'with a boolean mask',
    build((g) => [g.constant('bool', [S, S], causal)]),
    heads,
    { ...float32, reference: reference((g) => ({ bias: masked(g, [S, S], causal, -1e30) })) },
  );
  const positions = Array.from({ length: S * S }, (_, i) => Math.sin(i));
  gradients(
    'with a mask of numbers',
    build((g) => [constant(g, [S, S], positions)]),
    heads,
    { ...float32, reference: reference((g) => ({ bias: constant(g, [S, S], positions) })) },
  );
  gradients(
    'with a soft cap',
    build(() => [], { softcap: float(0.5) }),
    heads,
    {
      ...float32,
      reference: reference(() => ({ softcap: 0.5 })),
    },
  );
  gradients(
    'behind a cache, which it hands on',
    (g, [q, k, v, pastK, pastV]) => {
      const outputs = ['y', 'present_k', 'present_v'];
      g.add({
        name: 'attention',
        opType: 'Attention',
        inputs: [q!, k!, v!, '', pastK!, pastV!],
        outputs,
      });
      const keys = g.op('ReduceSum', ['present_k', g.integers([2])]);
      return g.op('Mul', ['y', keys]);
    },
    [...heads, [B, H, 2, D], [B, H, 2, D]],
    {
      ...float32,
      reference: (g, [q, k, v, pastK, pastV]) => {
        const along = { axis: int(2) };
        const [keys, values] = [
          g.op('Concat', [pastK!, k!], along),
          g.op('Concat', [pastV!, v!], along),
        ];
        const y = attend(g, { q: q!, k: keys, v: values });
        return g.op('Mul', [y, g.op('ReduceSum', [keys, g.integers([2])])]);
      },
    },
  );
  const shared = [
    [B, 4, S, D],
    [B, 2, S, D],
    [B, 2, S, D],
  ];
  gradients(
    'with heads of k and v shared',
    build(() => []),
    shared,
    {
      ...float32,
      reference: (g, [q, k, v]) =>
        attend(g, { q: q!, k: repeated(g, k!, 2), v: repeated(g, v!, 2) }),
    },
  );
  gradients(
    'of joined heads, shared and causal',
    build(() => [], { q_num_heads: int(4), kv_num_heads: int(2), is_causal: int(1) }),
    [
      [B, S, 4 * D],
      [B, S, 2 * D],
      [B, S, 2 * D],
    ],
    {
      ...float32,
      reference: (g, [q, k, v]) => {
        const [keys, values] = [k!, v!].map((part) => repeated(g, split(g, part, 2), 2));
        const bias = masked(g, [S, S], causal, -1e30);
        return join(g, attend(g, { q: split(g, q!, 4), k: keys!, v: values!, bias }));
      },
    },
  );
});

describe('RotaryEmbedding', () => {
  const half = D / 2;
  const angles = Array.from(
    { length: 5 * half },
    (_, i) => Math.floor(i / half) / (1 + (i % half)),
  );
  const tables = (g: GraphBuilder) =>
    [Math.cos, Math.sin].map((f) => g.constant('float32', [5, half], angles.map(f)));
  const positions = [0, 1, 2, 4, 3, 1];
  /** Pairs of numbers turned by an angle: [B, H, S, D]. */
  const turned =
    (interleaved: boolean): Build =>
    (g, [x]) => {
      const of = (f: (angle: number) => number) =>
        constant(
          g,
          [B, 1, S, half],
          positions.flatMap((p) => angles.slice(p * half, (p + 1) * half).map(f)),
        );
      const [cos, sin] = [of((a) => Math.fround(Math.cos(a))), of((a) => Math.fround(Math.sin(a)))];
      const part = (i: number) =>
        interleaved
          ? g.op('Slice', [x!, g.integers([i]), g.integers([D]), g.integers([3]), g.integers([2])])
          : g.op('Slice', [
              x!,
              g.integers([i * half]),
              g.integers([(i + 1) * half]),
              g.integers([3]),
            ]);
      const [a, b] = [part(0), part(1)];
      const mul = (p: string, q: string) => g.op('Mul', [p, q]);
      const first = g.op('Sub', [mul(a, cos), mul(b, sin)]);
      const second = g.op('Add', [mul(a, sin), mul(b, cos)]);
      if (!interleaved) return g.op('Concat', [first, second], { axis: int(3) });
      const pairs = [first, second].map((value) => g.op('Unsqueeze', [value, g.integers([-1])]));
      const beside = g.op('Concat', pairs, { axis: int(4) });
      return g.op('Reshape', [beside, g.integers([B, H, S, D])]);
    };
  for (const interleaved of [0, 1]) {
    const options = { dtype: 'float32', reference: turned(interleaved === 1) } as const;
    const attributes = { interleaved: int(interleaved) };
    gradients(
      `com.microsoft, interleaved ${interleaved}`,
      (g, [x]) => {
        const ids = g.constant('int64', [B, S], positions);
        return add(g, 'com.microsoft:RotaryEmbedding', [x!, ids, ...tables(g)], attributes);
      },
      [[B, H, S, D]],
      options,
    );
    gradients(
      `opset 23, interleaved ${interleaved}`,
      (g, [x]) => {
        const ids = g.constant('int64', [B, S], positions);
        return add(g, 'RotaryEmbedding', [x!, ...tables(g), ids], attributes);
      },
      [[B, H, S, D]],
      { ...options, opset: 23 },
    );
  }
});
