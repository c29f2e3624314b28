/** The whole list: which rule differentiates which operator. */
import type { NewNode } from '../../onnx/encode.js';
import type { GradientRule } from '../rule.js';
import * as activations from './activations.js';
import * as arithmetic from './arithmetic.js';
import { matMulBnb4 } from './bnb4.js';
import * as channels from './channels.js';
import { controlFlow } from './control-flow.js';
import * as convolution from './convolution.js';
import { einsum } from './einsum.js';
import * as fused from './fused.js';
import * as indexing from './indexing.js';
import * as layout from './layout.js';
import * as matrix from './matrix.js';
import { moved } from './movement.js';
import * as normalization from './normalization.js';
import * as pooling from './pooling.js';
import * as quantization from './quantization.js';
import * as rearrangement from './rearrangement.js';
import * as reduction from './reduction.js';
import { resize } from './resize.js';
import * as rotary from './rotary.js';
import * as slice from './slice.js';
import * as trigonometry from './trigonometry.js';

/** By operator, with its domain where it is not the standard one. */
export const rules: Readonly<Record<string, GradientRule>> = {
  // Matrices
  Einsum: einsum,
  Gemm: matrix.gemm,
  MatMul: matrix.matMul,
  'com.microsoft:FusedMatMul': matrix.fusedMatMul,
  'com.microsoft:MatMulBnb4': matMulBnb4,
  'com.microsoft:MatMulNBits': matrix.matMulNBits,

  // Windows
  AveragePool: pooling.averagePool,
  Conv: convolution.conv,
  ConvTranspose: convolution.convTranspose,
  GlobalAveragePool: pooling.globalAveragePool,
  GlobalMaxPool: pooling.globalMaxPool,
  MaxPool: pooling.maxPool,
  Resize: resize,

  // Arithmetic
  Add: arithmetic.add,
  Div: arithmetic.div,
  Max: arithmetic.max,
  Mean: arithmetic.mean,
  Min: arithmetic.min,
  Mul: arithmetic.mul,
  Pow: arithmetic.pow,
  Sub: arithmetic.sub,
  Sum: arithmetic.sum,

  // Functions of one number
  Abs: activations.abs,
  Acos: trigonometry.acos,
  Acosh: trigonometry.acosh,
  Asin: trigonometry.asin,
  Asinh: trigonometry.asinh,
  Atan: trigonometry.atan,
  Atanh: trigonometry.atanh,
  Celu: activations.celu,
  Cos: trigonometry.cos,
  Cosh: trigonometry.cosh,
  Elu: activations.elu,
  Erf: activations.erf,
  Exp: activations.exp,
  Gelu: activations.gelu,
  HardSigmoid: activations.hardSigmoid,
  HardSwish: activations.hardSwish,
  Identity: activations.identity,
  LeakyRelu: activations.leakyRelu,
  Log: activations.log,
  Mish: activations.mish,
  Neg: activations.neg,
  PRelu: channels.prelu,
  Reciprocal: activations.reciprocal,
  Relu: activations.relu,
  Selu: activations.selu,
  Shrink: activations.shrink,
  Sigmoid: activations.sigmoid,
  Sin: trigonometry.sin,
  Sinh: trigonometry.sinh,
  Softplus: activations.softplus,
  Softsign: activations.softsign,
  Sqrt: activations.sqrt,
  Swish: activations.swish,
  Tan: trigonometry.tan,
  Tanh: activations.tanh,
  ThresholdedRelu: activations.thresholdedRelu,
  'com.microsoft:BiasGelu': fused.biasGelu,
  'com.microsoft:FastGelu': fused.fastGelu,
  'com.microsoft:Gelu': activations.gelu,
  'com.microsoft:QuickGelu': activations.quickGelu,

  // Normalization
  BatchNormalization: channels.batchNormalization,
  GroupNormalization: channels.groupNormalization,
  InstanceNormalization: channels.instanceNormalization,
  LayerNormalization: normalization.layerNormalization,
  LogSoftmax: normalization.logSoftmax,
  LpNormalization: channels.lpNormalization,
  RMSNormalization: normalization.rmsNormalization,
  SimplifiedLayerNormalization: normalization.rmsNormalization,
  Softmax: normalization.softmax,
  'com.microsoft:SkipLayerNormalization': fused.skipLayerNormalization,
  'com.microsoft:SkipSimplifiedLayerNormalization': fused.skipSimplifiedLayerNormalization,

  // Reductions
  CumSum: rearrangement.cumSum,
  ReduceL1: reduction.reduceL1,
  ReduceL2: reduction.reduceL2,
  ReduceLogSum: reduction.reduceLogSum,
  ReduceLogSumExp: reduction.reduceLogSumExp,
  ReduceMax: reduction.reduceMax,
  ReduceMean: reduction.reduceMean,
  ReduceMin: reduction.reduceMin,
  ReduceProd: reduction.reduceProd,
  ReduceSum: reduction.reduceSum,
  ReduceSumSquare: reduction.reduceSumSquare,

  // Layout
  Cast: layout.cast,
  CastLike: layout.cast,
  Clip: layout.clip,
  Concat: layout.concat,
  DepthToSpace: rearrangement.depthToSpace,
  Dropout: layout.dropout,
  Expand: layout.expand,
  Flatten: layout.reshape,
  Pad: slice.pad,
  Reshape: layout.reshape,
  ReverseSequence: moved,
  RotaryEmbedding: rotary.rotaryEmbedding,
  Slice: slice.slice,
  SpaceToDepth: rearrangement.spaceToDepth,
  Split: layout.split,
  Squeeze: layout.reshape,
  Tile: rearrangement.tile,
  Transpose: layout.transpose,
  Trilu: rearrangement.trilu,
  Unsqueeze: layout.reshape,
  Where: layout.where,
  'com.microsoft:RotaryEmbedding': rotary.microsoftRotaryEmbedding,

  // Indices
  Compress: moved,
  Gather: indexing.gather,
  GatherElements: indexing.gatherElements,
  GatherND: indexing.gatherND,
  OneHot: indexing.oneHot,
  ScatterElements: indexing.scatterElements,
  ScatterND: indexing.scatterND,
  TopK: indexing.topK,

  // Activations in integers
  DequantizeLinear: quantization.dequantizeLinear,
  DynamicQuantizeLinear: quantization.dynamicQuantizeLinear,
  MatMulInteger: quantization.matMulInteger,
  QLinearMatMul: quantization.qLinearMatMul,
  QuantizeLinear: quantization.quantizeLinear,
  'com.microsoft:DequantizeLinear': quantization.dequantizeLinear,
  'com.microsoft:DynamicQuantizeMatMul': quantization.dynamicQuantizeMatMul,
  'com.microsoft:MatMulIntegerToFloat': quantization.matMulIntegerToFloat,
  'com.microsoft:QGemm': quantization.qGemm,
  'com.microsoft:QLinearAdd': quantization.qLinearAdd,
  'com.microsoft:QLinearMul': quantization.qLinearMul,
  'com.microsoft:QLinearSigmoid': quantization.qLinearSigmoid,
  'com.microsoft:QuantizeLinear': quantization.quantizeLinear,

  // Refused with a reason of their own
  ConvInteger: quantization.quantizedConv,
  If: controlFlow,
  Loop: controlFlow,
  QLinearConv: quantization.quantizedConv,
  Scan: controlFlow,
};

/** The rule of a node's operator. */
export function ruleFor({ opType, domain = '' }: NewNode): GradientRule | undefined {
  const name = domain === '' ? opType : `${domain}:${opType}`;
  return Object.hasOwn(rules, name) ? rules[name] : undefined;
}
