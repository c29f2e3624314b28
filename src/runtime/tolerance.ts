/** The difference that rounding alone makes between two models that are otherwise the same. */
import { type DataTypeName, findDataType } from '../onnx/dtype.js';
import { allTensors } from '../onnx/external.js';
import { allGraphs, type Graph, type Model } from '../onnx/model.js';

/**
 * The difference that rounding explains, as a share of the greatest output.
 *
 * Folding rounds every weight once, so an output of a model in half precision is off by about the
 * distance `eps` between 1 and the next number: rounding errors of single weights average out, those
 * of layers add up like their square root. In float32 and float64 the order of summation counts for
 * more than the rounding of weights, and grows with the root of the layers' width.
 *
 * Measured over the zoo (2 to 3 layers) with random adapters of 1 to 100 % of the weights' norm: at
 * most 1.5 eps for float16 and bfloat16, 11 eps for float32. Eight eps leave room for some 50 layers.
 * For float32, 1e-4 is 840 eps: room for that depth, for layers a thousand times as wide, and for
 * the sums of GPUs.
 *
 * Leaving out adapters of 1 % moved the outputs by 1 to 3 %: 100 times the tolerance for float32,
 * twice that for float16, but below it for bfloat16 and 8-bit activations, whose own noise is as
 * large.
 */
const BY_DTYPE: readonly (readonly [DataTypeName, number])[] = [
  ['bfloat16', 6e-2],
  ['float16', 8e-3],
  ['float32', 1e-4],
  ['float64', 1e-12],
];

/**
 * If activations are rounded to 8 bits while the model runs, the smallest change moves some of
 * them by a whole step of 1/127 of their range: 2.7 % of the outputs in the zoo's llama-q4.
 */
const QUANTIZED_ACTIVATIONS = 5e-2;

/**
 * The change by rounding on the whole, in the Euclidean norm: of right folds in the zoo 0.7 eps for float16,
 * 4 eps for float32, and 1.7 % where a fold does away with the rounding of activations to 8 bits.
 */
const LEVELS: Readonly<Partial<Record<DataTypeName, number>>> = {
  bfloat16: 5e-3,
  float16: 7e-4,
  float32: 5e-7,
  float64: 1e-15,
};
const QUANTIZED_LEVEL = 1.8e-2;
const STEP_LEVEL = 3e-3;

/** The smallest number above 0, which is the distance between the smallest. */
const SMALLEST: Readonly<Partial<Record<DataTypeName, number>>> = {
  bfloat16: 2 ** -133,
  float16: 2 ** -24,
  float32: 2 ** -149,
};

/** For models without any float, whose outputs are integers. */
const NO_FLOATS = 1e-4;

/**
 * The tolerance for comparing models: that of the least precise of them.
 * @param outputs types of the outputs that are compared
 */
export function defaultTolerance(
  models: readonly Model[],
  outputs: readonly DataTypeName[],
): number {
  const [, rounding = NO_FLOATS] = leastPrecise(models, outputs) ?? [];
  return models.some(quantizesActivations) ? Math.max(rounding, QUANTIZED_ACTIVATIONS) : rounding;
}

/** The change by the rounding of a model and its fold, as a share of the outputs' norm. */
export interface RoundingLevel {
  readonly level: number;
  /** Whether activations are rounded to a few steps: then two runs may agree by chance. */
  readonly inSteps: boolean;
}

/** The rounding to expect between a model and its fold. */
export function roundingLevel(
  reference: Model,
  candidate: Model,
  outputs: readonly DataTypeName[],
): RoundingLevel {
  const [dtype] = leastPrecise([reference, candidate], outputs) ?? [];
  const level = (dtype && LEVELS[dtype]) ?? NO_FLOATS;
  const [before, after] = [reference, candidate].map(countQuantizing) as [number, number];
  if (before !== after) return { level: QUANTIZED_LEVEL, inSteps: true };
  return before > 0
    ? { level: Math.max(level, STEP_LEVEL), inSteps: true }
    : { level, inSteps: false };
}

/** The distance between the smallest numbers of a type, which no rounding is finer than. */
export function smallestStep(dtype: DataTypeName): number {
  return SMALLEST[dtype] ?? 0;
}

function leastPrecise(models: readonly Model[], outputs: readonly DataTypeName[]) {
  const dtypes = new Set<DataTypeName | undefined>([...outputs, ...models.flatMap(weightTypes)]);
  return BY_DTYPE.find(([dtype]) => dtypes.has(dtype));
}

/** Types of the matrices: scalars and biases are often kept in another precision. */
function weightTypes(model: Model): (DataTypeName | undefined)[] {
  const matrices = [...allTensors(model)].filter(({ tensor }) => tensor.dims.length >= 2);
  return [...new Set(matrices.map(({ tensor }) => findDataType(tensor.dataType)))];
}

const QUANTIZING = new Set([
  'DynamicQuantizeLinear',
  'DynamicQuantizeLSTM',
  'DynamicQuantizeMatMul',
  'QuantizeLinear',
]);

function quantizesActivations(model: Model): boolean {
  return countQuantizing(model) > 0;
}

function countQuantizing(model: Model): number {
  const graphs = [model.graph, ...model.functions.map((f) => f.body)];
  const nodes = graphs.flatMap((root) => [...allGraphs(root)].flatMap((graph) => graph.nodes));
  return nodes.filter(
    ({ opType, attributes }) =>
      QUANTIZING.has(opType) ||
      (opType === 'MatMulNBits' && attributes.get('accuracy_level')?.i === 4),
  ).length;
}

/**
 * The difference allowed between a model and the same with adapters that start at zero: none, but beside
 * MatMulNBits of float16. Its kernel for CPUs computes in float32, and whether its output is rounded to float16
 * before the next node hangs on what that node is.
 */
export function startTolerance(model: Model): number {
  const graphs = [model.graph, ...model.functions.map((f) => f.body)];
  const roots = graphs.flatMap((root) => [...allGraphs(root)]);
  return roots.some(hasHalfBlocks) ? HALF_START : 0;
}

const HALF_START = 8e-3;

function hasHalfBlocks({ nodes, initializers }: Graph): boolean {
  const dtypeOf = (name?: string) => findDataType(initializers.get(name ?? '')?.dataType ?? 0);
  return nodes.some((n) => n.opType === 'MatMulNBits' && dtypeOf(n.inputs[2]) === 'float16');
}
