/** The whole list: which rule differentiates which operator. */
import type { NewNode } from '../../onnx/encode.js';
import type { GradientRule } from '../rule.js';
import * as activations from './activations.js';
import * as arithmetic from './arithmetic.js';
import * as channels from './channels.js';
import * as convolution from './convolution.js';
import * as fused from './fused.js';
import * as indexing from './indexing.js';
import * as layout from './layout.js';
import * as matrix from './matrix.js';
import * as normalization from './normalization.js';
import * as pooling from './pooling.js';
import * as rearrangement from './rearrangement.js';
import * as reduction from './reduction.js';

const rules: Readonly<Record<string, GradientRule>> = {
  // Matrices
  MatMul: matrix.matMul,
  Gemm: matrix.gemm,
  'com.microsoft:FusedMatMul': matrix.fusedMatMul,

  // Convolution
  Conv: convolution.conv,
  ConvTranspose: convolution.convTranspose,
  GlobalAveragePool: pooling.globalAveragePool,
  GlobalMaxPool: pooling.globalMaxPool,
  MaxPool: pooling.maxPool,

  // Arithmetic
  Add: arithmetic.add,
  Sub: arithmetic.sub,
  Mul: arithmetic.mul,
  Div: arithmetic.div,
  Pow: arithmetic.pow,
  Min: arithmetic.min,
  Max: arithmetic.max,
  Sum: arithmetic.sum,
  Mean: arithmetic.mean,

  // Functions of one number
  Abs: activations.abs,
  Cos: activations.cos,
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
  Sigmoid: activations.sigmoid,
  Sin: activations.sin,
  Softplus: activations.softplus,
  Softsign: activations.softsign,
  Sqrt: activations.sqrt,
  Swish: activations.swish,
  Tanh: activations.tanh,
  'com.microsoft:BiasGelu': fused.biasGelu,
  'com.microsoft:FastGelu': fused.fastGelu,
  'com.microsoft:Gelu': activations.gelu,
  'com.microsoft:QuickGelu': activations.quickGelu,

  // Normalization
  BatchNormalization: channels.batchNormalization,
  InstanceNormalization: channels.instanceNormalization,
  LayerNormalization: normalization.layerNormalization,
  LpNormalization: channels.lpNormalization,
  LogSoftmax: normalization.logSoftmax,
  RMSNormalization: normalization.rmsNormalization,
  SimplifiedLayerNormalization: normalization.rmsNormalization,
  Softmax: normalization.softmax,

  'com.microsoft:SkipLayerNormalization': fused.skipLayerNormalization,
  'com.microsoft:SkipSimplifiedLayerNormalization': fused.skipSimplifiedLayerNormalization,

  // Reductions
  ReduceL1: reduction.reduceL1,
  ReduceL2: reduction.reduceL2,
  ReduceLogSum: reduction.reduceLogSum,
  ReduceLogSumExp: reduction.reduceLogSumExp,
  ReduceMax: reduction.reduceMax,
  ReduceMean: reduction.reduceMean,
  ReduceMin: reduction.reduceMin,
  ReduceSum: reduction.reduceSum,
  ReduceSumSquare: reduction.reduceSumSquare,

  // Layout
  Cast: layout.cast,
  Clip: layout.clip,
  Concat: layout.concat,
  CumSum: rearrangement.cumSum,
  DepthToSpace: rearrangement.depthToSpace,
  Expand: layout.expand,
  Flatten: layout.reshape,
  Gather: indexing.gather,
  GatherElements: indexing.gatherElements,
  GatherND: indexing.gatherND,
  Pad: rearrangement.pad,
  Reshape: layout.reshape,
  ScatterElements: rearrangement.scatterElements,
  ScatterND: rearrangement.scatterND,
  Slice: indexing.slice,
  SpaceToDepth: rearrangement.spaceToDepth,
  Split: layout.split,
  Squeeze: layout.reshape,
  Tile: rearrangement.tile,
  TopK: rearrangement.topK,
  Transpose: layout.transpose,
  Trilu: rearrangement.trilu,
  Unsqueeze: layout.reshape,
  Where: layout.where,
};

/** The rule of a node's operator. */
export function ruleFor({ opType, domain = '' }: NewNode): GradientRule | undefined {
  const name = domain === '' ? opType : `${domain}:${opType}`;
  return Object.hasOwn(rules, name) ? rules[name] : undefined;
}
