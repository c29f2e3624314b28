/** Every rule: an input or output that it has no gradient for is refused, and never counts as zero. */
import { describe, expect, test } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { rules } from '../../src/autodiff/rules/index.js';
import { OnnxLoraError } from '../../src/errors.js';
import { type Attributes, GraphBuilder } from '../../src/graph/builder.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { int, ints, text } from './operators.js';

/** A shape is an input that gradients are asked of; others are constants. */
type Input = readonly number[] | ((graph: GraphBuilder) => string);

interface Sample {
  readonly inputs: readonly Input[];
  readonly attributes?: Attributes;
  readonly outputs?: number;
  readonly opset?: number;
}

const integers =
  (...values: number[]): Input =>
  (g) =>
    g.integers(values);
const index =
  (dims: number[], ...values: number[]): Input =>
  (g) =>
    g.constant('int64', dims, values);
const bytes =
  (dims: number[], ...values: number[]): Input =>
  (g) =>
    g.constant('bool', dims, values);
const number =
  (value: number): Input =>
  (g) =>
    g.scalar('int64', value);

const coded =
  (dims: number[]): Input =>
  (g) =>
    g.constant('uint8', dims, Array(dims.reduce((a, b) => a * b, 1)).fill(7));

const image = [2, 4, 6, 6];
const channel = [4];
const one: Sample = { inputs: [[2, 3]] };
const two: Sample = { inputs: [[2, 3], [3]] };
const reduced: Sample = { inputs: [[2, 3], integers(1)], opset: 18 };
const pooled: Sample = { inputs: [image], attributes: { kernel_shape: ints(2, 2) } };
const kernels: Sample = { inputs: [image, [4, 4, 3, 3], channel] };
const skip = { inputs: [[1, 2, 8], [1, 2, 8], [8]] };

/** Codes, a scale and a zero point. */
const quantized = (dims: number[]): readonly Input[] => [coded(dims), [], coded([])];

/** Operators of one input without further ones are not listed. */
const samples: Readonly<Record<string, Sample>> = {
  AveragePool: pooled,
  BatchNormalization: { inputs: [image, channel, channel, channel, channel] },
  CastLike: two,
  Cast: { ...one, attributes: { to: int(11) } },
  Clip: { inputs: [[2, 3], [], []] },
  Compress: { inputs: [[2, 3], bytes([2], 1, 0)], attributes: { axis: int(0) } },
  Concat: {
    inputs: [
      [2, 3],
      [2, 1],
    ],
    attributes: { axis: int(1) },
  },
  Conv: kernels,
  ConvTranspose: kernels,
  CumSum: { inputs: [[2, 3], number(1)] },
  DepthToSpace: { inputs: [image], attributes: { blocksize: int(2) } },
  DequantizeLinear: { inputs: quantized([2, 3]) },
  Dropout: { inputs: [[2, 3], [], (g) => g.constant('bool', [], [1])], outputs: 2 },
  DynamicQuantizeLinear: { ...one, outputs: 3 },
  Einsum: {
    inputs: [
      [2, 3],
      [3, 4],
    ],
    attributes: { equation: text('ij,jk->ik') },
  },
  Expand: { inputs: [[3], integers(2, 3)] },
  Gather: { inputs: [[2, 3], index([2], 1, 0)] },
  GatherElements: { inputs: [[2, 3], index([1, 3], 1, 0, 1)] },
  GatherND: { inputs: [[2, 3], index([1, 1], 1)] },
  Gelu: { ...one, opset: 20 },
  Gemm: { inputs: [[2, 3], [3, 4], [4]] },
  GlobalAveragePool: { inputs: [image] },
  GlobalMaxPool: { inputs: [image] },
  GroupNormalization: {
    inputs: [image, channel, channel],
    attributes: { num_groups: int(2) },
    opset: 21,
  },
  InstanceNormalization: { inputs: [image, channel, channel] },
  LayerNormalization: { inputs: [[2, 3], [3], [3]], outputs: 3 },
  MatMul: {
    inputs: [
      [2, 3],
      [3, 4],
    ],
  },
  MatMulInteger: { inputs: [coded([2, 3]), coded([3, 4])] },
  MaxPool: { ...pooled, outputs: 2 },
  Mish: { ...one, opset: 18 },
  OneHot: { inputs: [[2], [], [2]] },
  Pad: { inputs: [[2, 3], integers(0, 1, 0, 0), []] },
  Pow: { inputs: [[2, 3], []] },
  PRelu: two,
  Resize: {
    inputs: [image, [8], (g) => g.constant('float32', [4], [1, 1, 2, 2])],
    attributes: { coordinate_transformation_mode: text('tf_crop_and_resize') },
  },
  QLinearMatMul: { inputs: [...quantized([2, 3]), ...quantized([3, 4]), [], coded([])] },
  QuantizeLinear: { inputs: [[2, 3], [], coded([])] },
  Reshape: { inputs: [[2, 3], integers(3, 2)] },
  ReverseSequence: { inputs: [[2, 3], index([3], 1, 2, 1)] },
  RMSNormalization: { inputs: [[2, 3], [3]], opset: 23 },
  RotaryEmbedding: {
    inputs: [
      [1, 2, 3, 4],
      [1, 3, 2],
      [1, 3, 2],
    ],
    opset: 23,
  },
  ScatterElements: { inputs: [[2, 3], index([1, 3], 1, 0, 1), [1, 3]] },
  ScatterND: { inputs: [[2, 3], index([1, 1], 1), [1, 3]] },
  SimplifiedLayerNormalization: { inputs: [[2, 3], [3]], outputs: 2 },
  Slice: { inputs: [[2, 3], integers(0), integers(1)] },
  SpaceToDepth: { inputs: [image], attributes: { blocksize: int(2) } },
  Split: { inputs: [[2, 4], integers(1, 3)], attributes: { axis: int(1) }, outputs: 2 },
  Squeeze: { inputs: [[2, 1], integers(1)] },
  Swish: { ...one, opset: 24 },
  Tile: { inputs: [[2, 3], integers(1, 2)] },
  TopK: { inputs: [[2, 3], integers(2)], outputs: 2 },
  Trilu: { inputs: [[3, 3], number(0)] },
  Unsqueeze: { inputs: [[2, 3], integers(0)] },
  Where: { inputs: [bytes([3], 1, 0, 1), [2, 3], [3]] },
  'com.microsoft:BiasGelu': two,
  'com.microsoft:DequantizeLinear': { inputs: quantized([2, 3]) },
  'com.microsoft:DynamicQuantizeMatMul': { inputs: [[2, 3], coded([3, 4]), [], coded([]), [4]] },
  'com.microsoft:FastGelu': two,
  'com.microsoft:FusedMatMul': {
    inputs: [
      [2, 3],
      [3, 4],
    ],
  },
  'com.microsoft:MatMulBnb4': {
    inputs: [[2, 32], coded([64]), [4]],
    attributes: {
      ...{ K: int(32), N: int(4), block_size: int(32) },
      ...{ quant_type: int(1), transB: int(1) },
    },
  },
  'com.microsoft:MatMulIntegerToFloat': {
    inputs: [coded([2, 3]), coded([3, 4]), [], [], coded([]), coded([]), [4]],
  },
  'com.microsoft:MatMulNBits': {
    inputs: [
      [2, 32],
      (g) => g.op('Cast', [g.constant('int32', [4, 1, 16], Array(64).fill(3))], { to: int(2) }),
      [4],
    ],
    attributes: { K: int(32), N: int(4), bits: int(4), block_size: int(32) },
  },
  'com.microsoft:QGemm': {
    inputs: [
      ...quantized([2, 3]),
      ...quantized([3, 4]),
      (g) => g.constant('int32', [4], [1, 2, 3, 4]),
    ],
  },
  'com.microsoft:QLinearAdd': {
    inputs: [...quantized([2, 3]), ...quantized([2, 3]), [], coded([])],
  },
  'com.microsoft:QLinearMul': {
    inputs: [...quantized([2, 3]), ...quantized([2, 3]), [], coded([])],
  },
  'com.microsoft:QLinearSigmoid': { inputs: [...quantized([2, 3]), [], coded([])] },
  'com.microsoft:QuantizeLinear': { inputs: [[2, 3], [], coded([])] },
  'com.microsoft:RotaryEmbedding': {
    inputs: [[1, 2, 3, 4], index([1], 0), [3, 2], [3, 2]],
  },
  'com.microsoft:SkipLayerNormalization': { inputs: [...skip.inputs, [8], [8]], outputs: 4 },
  'com.microsoft:SkipSimplifiedLayerNormalization': {
    inputs: [...skip.inputs, [8]],
    outputs: 4,
  },
};

const pairwise = ['Add', 'Sub', 'Mul', 'Div', 'Min', 'Max', 'Sum', 'Mean'];

function sampleOf(name: string): Sample {
  if (pairwise.includes(name)) return two;
  if (name.startsWith('Reduce')) return reduced;
  return samples[name] ?? one;
}

/** Inputs that the output does not depend on; a scale that is found from the input counts as given. */
const without = new Set(['CastLike 1', 'OneHot 0', 'OneHot 1', 'DynamicQuantizeLinear 0']);

/** Those that give no gradient, or not of all that they read and give: why is in their message. */
const refusing = /is not supported|cannot be trained|depends on data|rounds activations|training/;

async function outcome(name: string, input: number, output: number): Promise<string> {
  const { inputs, attributes = {}, outputs = 1, opset = 17 } = sampleOf(name);
  const opsets = [
    { domain: '', version: opset },
    { domain: 'com.microsoft', version: 1 },
  ];
  const graph = new GraphBuilder(opsets, 10);
  const names = inputs.map((one, i) => {
    if (typeof one === 'function') return one(graph);
    graph.reserve(`x${i}`);
    graph.inputs.push({ name: `x${i}`, dtype: 'float32', shape: one });
    return graph.op('Mul', [`x${i}`, graph.scalar('float32', 2)]);
  });
  const [domain, opType] = name.includes(':') ? name.split(':') : ['', name];
  const made = Array.from({ length: outputs }, (_, i) => `output${i}`);
  graph.add({ name, opType: opType!, domain: domain!, inputs: names, outputs: made, attributes });
  const wide = graph.op('Cast', [made[output]!], { to: int(1) });
  const loss = graph.op('ReduceSum', [wide], { keepdims: int(0) });
  const types = await inferTypes(graph);
  if (!types.get(made[output]!)?.dtype.startsWith('float')) return 'integer';
  const before = graph.nodes.length;
  try {
    const gradient = differentiate(graph, types, loss, [`x${input}`]).get(`x${input}`)!;
    // A gradient passes the Mul in front; zeros do not.
    const last = graph.nodes.slice(before).find(({ outputs: [value] }) => value === gradient);
    return last?.opType === 'Mul' ? 'gradient' : 'none';
  } catch (error) {
    if (error instanceof OnnxLoraError && error.code === 'unsupported') return error.message;
    throw error;
  }
}

/** Refused whatever they read; a sample of them would be long. */
const alwaysRefused = Object.entries(rules)
  .filter(([, rule]) => {
    try {
      rule({} as never);
      return false;
    } catch (error) {
      return (error as Error).name === 'Refusal';
    }
  })
  .map(([name]) => name);

describe('each float input and output of a rule has a gradient, or is refused', () => {
  test.each(Object.keys(rules).filter((name) => !alwaysRefused.includes(name)))(
    '%s',
    async (name) => {
      const { inputs, outputs = 1 } = sampleOf(name);
      for (const input of inputs.keys()) {
        if (typeof inputs[input] === 'function') continue;
        for (let output = 0; output < outputs; output++) {
          const found = await outcome(name, input, output);
          if (found === 'integer') continue;
          if (without.has(`${name} ${input}`)) expect(found).toBe('none');
          else if (found !== 'gradient') expect(found).toMatch(refusing);
        }
      }
    },
  );
});
