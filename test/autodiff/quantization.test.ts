/**
 * Gradients through activations that are rounded to integers: straight through the rounding, so that a
 * product passes on `dY · Wᵀ` of the weight that its integers stand for, and 0 where the rounding cuts off.
 */
import { describe, expect, test } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { loadGraph } from '../../src/graph/load.js';
import { collect } from '../../src/onnx/edit.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';
import { randomNumbers } from '../support/adapters.js';
import { IN, integerForms, integerModel, OUT, ROWS } from '../support/integers.js';
import { maxDifference } from '../support/run.js';
import { add } from './operators.js';

/** dL/dx of L = Σ dy · y. */
async function gradientOf(
  graph: GraphBuilder,
  x: { dims: number[]; data: ArrayLike<number> },
  dy: Float32Array,
  output = 'y',
): Promise<Float32Array> {
  const shape = (await inferTypes(graph)).get(output)!.shape;
  graph.outputs.length = 0;
  graph.inputs.push({ name: 'dy', dtype: 'float32', shape });
  const product = graph.op('Mul', [output, 'dy']);
  const loss = graph.op('ReduceSum', [product], { keepdims: { int: 0 } });
  const gradient = differentiate(graph, await inferTypes(graph), loss, ['x']).get('x')!;
  graph.outputs.push({ name: gradient, dtype: 'float32', shape: null });
  const session = await openSession(await collect(graph.modelPieces()));
  try {
    const dims = [
      ...x.dims.slice(0, -1),
      dy.length / x.dims.slice(0, -1).reduce((a, b) => a * b, 1),
    ];
    const feeds = new Map([
      ['x', { dtype: 'float32', dims: x.dims, data: Float32Array.from(x.data) }],
      ['dy', { dtype: 'float32', dims, data: dy }],
    ] as const);
    return (await session.run(feeds)).get(gradient)!.data as Float32Array;
  } finally {
    await session.release();
  }
}

describe('a product of integers passes on dY · Wᵀ', () => {
  const cases = integerForms.flatMap((form) =>
    [false, true].map((perColumn) => ({ form, perColumn: perColumn && !form.startsWith('Q') })),
  );
  test.each(cases)('$form, a scale for each column: $perColumn', async ({ form, perColumn }) => {
    const dtype = perColumn ? 'uint8' : 'int8';
    const { bytes, x, weight } = integerModel({ form, dtype, perColumn, seed: 3 });
    const model = parseModel(new MemorySource(bytes));
    const graph = loadGraph(model, new TensorReader(model, new ExternalFiles(model)));
    const dy = Float32Array.from(randomNumbers(9, ROWS * OUT));
    const found = await gradientOf(graph, { dims: [ROWS, IN], data: x }, dy);
    const expected = new Float64Array(ROWS * IN).map((_, i) => {
      let sum = 0;
      for (let j = 0; j < OUT; j++) {
        sum += dy[Math.floor(i / IN) * OUT + j]! * weight[(i % IN) * OUT + j]!;
      }
      return sum;
    });
    expect(maxDifference(found, expected)).toBeLessThan(2e-6);
  });
});

function graphOf(build: (graph: GraphBuilder) => string, shape: number[]): GraphBuilder {
  const graph = new GraphBuilder([
    { domain: '', version: 17 },
    { domain: 'com.microsoft', version: 1 },
  ]);
  graph.reserve('x');
  graph.inputs.push({ name: 'x', dtype: 'float32', shape });
  const value = build(graph);
  graph.add({ name: 'y', opType: 'Identity', inputs: [value], outputs: ['y'] });
  return graph;
}

describe('rounding', () => {
  const rounded = (
    g: GraphBuilder,
    between: (codes: string) => string = (codes) => codes,
    domain = '',
  ) => {
    const [scale, zero] = [
      g.constant('float32', [2], [0.5, 0.25]),
      g.constant('int8', [2], [0, 3]),
    ];
    const prefix = domain === '' ? '' : `${domain}:`;
    const axis = { axis: { int: 1 } };
    const codes = add(g, `${prefix}QuantizeLinear`, ['x', scale, zero], axis);
    return add(g, `${prefix}DequantizeLinear`, [between(codes), scale, zero], axis);
  };
  // The columns hold ±64 and, from -131 / 4, up to 124 / 4.
  const x = [1.3, 31.2, 63.7, -0.1, -200, 31.9, 64.5, -33];

  test.each(['', 'com.microsoft'])(
    'lets the gradient through, but where it cuts off (%s)',
    async (domain) => {
      const dy = Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8]);
      const graph = graphOf((g) => rounded(g, undefined, domain), [4, 2]);
      const found = await gradientOf(graph, { dims: [4, 2], data: x }, dy);
      expect([...found]).toEqual([1, 0, 3, 4, 0, 0, 0, 0]);
    },
  );

  test('by an operator without a rule is refused, and does not count as the end of a way', async () => {
    const graph = graphOf(
      (g) => {
        const [scale, zero] = [g.scalar('float32', 0.5), g.constant('uint8', [], [100])];
        const codes = add(g, 'com.microsoft:QuantizeLinear', ['x', scale, zero]);
        const given = [codes, scale, zero, scale, zero];
        const softened = add(g, 'com.microsoft:QLinearLeakyRelu', given, { alpha: { float: 0.1 } });
        return g.op('Add', ['x', g.op('DequantizeLinear', [softened, scale, zero])]);
      },
      [4, 2],
    );
    const found = gradientOf(graph, { dims: [4, 2], data: x }, new Float32Array(8));
    await expect(found).rejects.toThrow(/QLinearLeakyRelu\) cannot be differentiated/);
  });

  test('is followed through what moves the integers', async () => {
    const graph = graphOf(
      (g) => {
        const twice = (codes: string) =>
          g.op('Reshape', [g.op('Reshape', [codes, g.integers([2, 4])]), g.integers([4, 2])]);
        return rounded(g, twice);
      },
      [4, 2],
    );
    const dy = Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8]);
    expect([...(await gradientOf(graph, { dims: [4, 2], data: x }, dy))].slice(0, 4)).toEqual([
      1, 0, 3, 4,
    ]);
  });

  test('of both operands of a product passes both gradients on', async () => {
    // y = x · xᵀ in integers: dx = (dY + dYᵀ) · x, but for the rounding of x.
    const graph = graphOf(
      (g) => {
        const [codes, scale, zero] = g.ops('DynamicQuantizeLinear', ['x'], 3);
        const turned = g.op('Transpose', [codes!], { perm: { ints: [1, 0] } });
        const sums = g.op('MatMulInteger', [codes!, turned, zero!, zero!]);
        const numbers = g.op('Cast', [sums], { to: { int: 1 } });
        return g.op('Mul', [numbers, g.op('Mul', [scale!, scale!])]);
      },
      [3, 4],
    );
    const data = randomNumbers(4, 12);
    const dy = Float32Array.from(randomNumbers(5, 9));
    const found = await gradientOf(graph, { dims: [3, 4], data }, dy);
    const expected = new Float64Array(12).map((_, i) => {
      const [row, column] = [Math.floor(i / 4), i % 4];
      let sum = 0;
      for (let j = 0; j < 3; j++)
        sum += (dy[row * 3 + j]! + dy[j * 3 + row]!) * data[j * 4 + column]!;
      return sum;
    });
    expect(maxDifference(found, expected)).toBeLessThan((6 * 2) / 255);
    expect(maxDifference(found, expected)).toBeGreaterThan(0);
  });
});

describe('MatMulBnb4', () => {
  test.each([
    ['NF4', 1],
    ['FP4', 0],
  ])('%s passes on dY · Wᵀ of the weight that it multiplies with', async (_, type) => {
    const [K, N] = [32, 6];
    const product = (g: GraphBuilder, input: string) => {
      const bytes = Array.from(randomNumbers(1, (K * N) / 2, 127), (v) => Math.round(v + 128));
      const codes = g.constant('uint8', [bytes.length], bytes);
      const greatest = g.constant('float32', [(K * N) / 16], [...randomNumbers(2, (K * N) / 16)]);
      const sizes = { K: { int: K }, N: { int: N }, block_size: { int: 16 } };
      const [name, output] = ['bnb', 'product'];
      const node = { name, opType: 'MatMulBnb4', domain: 'com.microsoft' };
      const attributes = { ...sizes, quant_type: { int: type } };
      g.add({ ...node, inputs: [input, codes, greatest], outputs: [output], attributes });
      return output;
    };
    const dy = Float32Array.from(randomNumbers(3, 4 * N));
    const x = { dims: [2, 2, K], data: randomNumbers(4, 4 * K) };
    const found = await gradientOf(
      graphOf((g) => product(g, 'x'), x.dims),
      x,
      dy,
    );
    // The operator's answer to the identity.
    const graph = graphOf((g) => product(g, 'x'), [K, K]);
    graph.outputs.push({ name: 'y', dtype: 'float32', shape: null });
    const session = await openSession(await collect(graph.modelPieces()));
    const data = Float32Array.from({ length: K * K }, (_, i) => Number(i % (K + 1) === 0));
    const feeds = new Map([['x', { dtype: 'float32', dims: [K, K], data }]] as const);
    const weight = (await session.run(feeds)).get('y')!.data as Float32Array;
    await session.release();
    const expected = new Float64Array(4 * K).map((_, i) => {
      let sum = 0;
      for (let j = 0; j < N; j++) sum += dy[Math.floor(i / K) * N + j]! * weight[(i % K) * N + j]!;
      return sum;
    });
    expect(maxDifference(found, expected)).toBeLessThan(2e-6);
  });
});
