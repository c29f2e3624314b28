/** Attention on packed inputs and of one token, against ONNX Runtime's kernels on the parts. */
import { expect, test } from 'vitest';
import { decompose } from '../../../src/autodiff/decompositions/index.js';
import { differentiate } from '../../../src/autodiff/differentiate.js';
import { OpBuilder } from '../../../src/autodiff/op-builder.js';
import { inferTypes } from '../../../src/runtime/infer-types.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { randomNumbers } from '../../support/adapters.js';
import { byKernel, byParts, graphOf, type Inputs, type MicrosoftNode, run } from './kernel.js';

const [B, S, H, D] = [2, 3, 2, 4];

function numbers(seed: number, ...dims: readonly number[]): TensorValue {
  const count = dims.reduce((a, b) => a * b, 1);
  return { dtype: 'float32', dims, data: Float32Array.from(randomNumbers(seed, count)) };
}

/** One of the parts that [B, S, H, parts, D] holds, as [B, S, H·D]. */
function partOf({ dims, data }: TensorValue, part: number): TensorValue {
  const parts = dims[3]!;
  const values = (data as Float32Array).filter((_, i) => Math.floor(i / D) % parts === part);
  return { dtype: 'float32', dims: [dims[0]!, dims[1]!, H * D], data: values };
}

const more = {
  bias: numbers(3, 3 * H * D),
  mask: { dtype: 'int32', dims: [B, S], data: Int32Array.of(0, 1, 1, 1, 1, 0) },
  attentionBias: numbers(4, 1, H, S, S),
} as const satisfies Inputs;

interface Packed {
  readonly node: MicrosoftNode;
  /** The packed input, and the inputs of the kernel for it. */
  readonly name: string;
  readonly apart: (packed: TensorValue) => MicrosoftNode;
}

function multiHead(names: string, inputs: Inputs): MicrosoftNode {
  const attributes = { num_heads: { int: H }, scale: { float: 0.4 } };
  return { opType: 'MultiHeadAttention', names, inputs, attributes, outputs: ['y'] };
}

const separate = (parts: Inputs) =>
  multiHead('q k v bias mask attentionBias', { ...parts, ...more });

const cases: Packed[] = [
  {
    node: multiHead('qkv _ _ bias mask attentionBias', { qkv: numbers(1, B, S, H, 3, D), ...more }),
    name: 'qkv',
    apart: (qkv) => separate({ q: partOf(qkv, 0), k: partOf(qkv, 1), v: partOf(qkv, 2) }),
  },
  {
    node: multiHead('q kv _ bias mask attentionBias', {
      q: numbers(2, B, S, H * D),
      kv: numbers(5, B, S, H, 2, D),
      ...more,
    }),
    name: 'kv',
    apart: (kv) => separate({ q: numbers(2, B, S, H * D), k: partOf(kv, 0), v: partOf(kv, 1) }),
  },
];

test.each(cases)(
  'MultiHeadAttention on a packed input with left and right padding: $name',
  async (one) => {
    const { node, name, apart } = one;
    const packed = node.inputs[name]!;
    const [expected] = await byKernel(apart(packed));
    const [found] = await byParts(node);
    for (const [i, y] of expected!.entries()) expect(found![i]).toBeCloseTo(y, 5);

    const graph = graphOf(node);
    const loss = graph.op('ReduceSumSquare', ['y'], { keepdims: { int: 0 } });
    const gradients = differentiate(graph, await inferTypes(graph), loss, [name]);
    const [gradient] = await run(graph, node.inputs, [...gradients.values()]);
    const direction = randomNumbers(6, gradient!.length);
    const lossAt = async (by: number) => {
      const data = (packed.data as Float32Array).map((x, i) => x + by * direction[i]!);
      const [y] = await byKernel(apart({ ...packed, data } as TensorValue));
      return y!.reduce((sum, value) => sum + value * value, 0);
    };
    const [h, near, far] = [0.01, await difference(lossAt, 0.01), await difference(lossAt, 0.02)];
    const slope = gradient!.reduce((sum, g, i) => sum + g * direction[i]!, 0);
    expect(slope).toBeCloseTo((8 * near - far) / (12 * h), 2);
  },
);

async function difference(at: (by: number) => Promise<number>, h: number): Promise<number> {
  return (await at(h)) - (await at(-h));
}

test('DecoderMaskedMultiHeadAttention attends to given keys, without a cache', async () => {
  const inputs = {
    q: numbers(1, B, 1, H * D),
    k: numbers(2, B, H, 5, D),
    v: numbers(3, B, H, 5, D),
  };
  const attributes = { num_heads: { int: H } };
  const node = {
    opType: 'DecoderMaskedMultiHeadAttention',
    names: 'q k v',
    ...{ inputs, attributes, outputs: ['y'] },
  };
  const [expected] = await byKernel(node);
  const [found] = await byParts(node);
  for (const [i, y] of expected!.entries()) expect(found![i]).toBeCloseTo(y, 5);
});

test('PagedAttention is refused with its reason', () => {
  const names = 'q k v keys values starts lengths blocks';
  const node = { opType: 'PagedAttention', names, inputs: {}, attributes: {}, outputs: ['y'] };
  const graph = graphOf(node);
  expect(() => decompose(graph.nodes[0]!, new OpBuilder(graph, new Map()))).toThrow(
    'a cache of pages that the runtime keeps',
  );
});
