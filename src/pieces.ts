/**
 * The pieces that the commands are made of: ONNX files and their tensors, graphs and passes over them, layers
 * that can take an adapter, reverse mode, training steps, sessions of ONNX Runtime.
 *
 * Before 1.0 a minor version may change this entry. What the commands do is stable in `onnx-lora`.
 *
 * @packageDocumentation
 */

export type { NewBias } from './adapters/edit/added-bias.js';
export type { HeadPlan, NewHead } from './adapters/edit/head.js';
export type { Extras } from './adapters/edit/insert.js';
export type { ReplacingTensor, SharedTensor } from './adapters/edit/replaced.js';
export type { FactorName, NewAdapter, OwnNumbers } from './adapters/factors/factors.js';
export {
  type BlockDecomposition,
  capturedByRank,
  decompose,
  fitOf,
  fitStructure,
  type StructureFit,
} from './adapters/factors/fit-structure.js';
export type { AdapterFile, StoredAdapter, StoredBias } from './adapters/files/adapter-file.js';
export type { ModuleParameter } from './adapters/files/module-parameter.js';
export { openAdapter } from './adapters/files/open-adapter.js';
export { findLayers, type Layer, type LayerColumns } from './adapters/model/layers.js';
export type {
  AdapterShape,
  AddedBias,
  Head,
  Replacement,
  Share,
  Site,
  TensorReference,
} from './adapters/model/manifest.js';
export {
  type AdapterRecord,
  type ModelManifest,
  type PatchedAdapter,
  readManifests,
} from './adapters/model/manifest.js';
export { OpenedModel, withModel } from './adapters/model/opened.js';
export type { AttachedNodes, AttachedSite } from './adapters/model/patched.js';
export { PatchedModel } from './adapters/model/patched.js';
export type { Slot, SlotManifest } from './adapters/model/slot-manifest.js';
export type { LayerPart, OwnTensorName, StructureName } from './adapters/structure/structure.js';
export {
  planStructure,
  type Structure,
  type StructureOptions,
} from './adapters/structure/structure.js';
export {
  type Addend,
  type Finding,
  findLinearLayers,
  type Geometry,
  type IntegerProduct,
  type LinearLayer,
  type RefusedNode,
  type Weight,
} from './adapters/targets/index.js';
export { matcher, type Selectable, type Selection, select } from './adapters/targets/select.js';
export {
  type Composite,
  type DifferentiateOptions,
  differentiate,
  type GradientSeed,
} from './autodiff/differentiate.js';
export type { OpBuilder, Operator } from './autodiff/op-builder.js';
export type { GradientRule, InputGradient, NodeContext, RuleContext } from './autodiff/rule.js';
export type { DataOptions } from './data/data-options.js';
export type { ChannelOrder, Fit, Kernel } from './data/images/choices.js';
export type { ImageOptions } from './data/images/options.js';
export type { ModelOutput } from './data/needs.js';
export type { RowOptions } from './data/rows/row-options.js';
export type { TextOptions } from './data/text/options.js';
export { type Attributes, GraphBuilder, type ValueSpec } from './graph/builder.js';
export { type Constant, traceConstant } from './graph/constants.js';
export { type FixedInput, loadGraph } from './graph/load.js';
export { prune } from './graph/prune.js';
export { type Use, type Value, ValueIndex } from './graph/uses.js';
export type { ValueType, ValueTypes } from './graph/value-type.js';
export type { Floats } from './linalg/products.js';
export { type SvdOptions, truncatedSvd } from './linalg/svd.js';
export type { TruncatedSvd } from './linalg/truncated-svd.js';
export type { ByteSource, FilePlace } from './onnx/byte-source.js';
export type { DataTypeName, DataTypeNumber, FloatName, IntegerArray } from './onnx/dtype.js';
export type { Computed, MessageEdit, Piece, Span } from './onnx/edit.js';
export type { AttributeValue, Integer, NewNode, NewTensor } from './onnx/encode.js';
export type { TensorPlace } from './onnx/external.js';
export { ExternalFiles } from './onnx/external.js';
export type { Attribute, Entry, FunctionDef, OpsetImport, TensorData } from './onnx/model.js';
export {
  allGraphs,
  type Dim,
  type Graph,
  type Model,
  type Node,
  nodeLabel,
  type Tensor,
  type ValueInfo,
} from './onnx/model.js';
export { openModel, parseModel } from './onnx/parse.js';
export { FileSource, MemorySource } from './onnx/source.js';
export { TensorReader } from './onnx/tensor.js';
export type { Field, Range } from './onnx/wire.js';
export type { Progress, WorkOptions } from './onnx/write.js';
export type { Outputs } from './runtime/difference.js';
export { inferTypes } from './runtime/infer-types.js';
export type { ValueMeta } from './runtime/native.js';
export type { PlacedNode, Placement } from './runtime/placement.js';
export type { ProviderName } from './runtime/provider-names.js';
export { type OpenSessionOptions, openSession, type Session } from './runtime/session.js';
export type { SizeProbe } from './runtime/size-probe.js';
export {
  openStatefulSession,
  type State,
  type StatefulSession,
  type StatefulSessionOptions,
  type StateSlot,
} from './runtime/stateful-session.js';
export type { TensorArray } from './runtime/tensor-value.js';
export { type Feeds, type TensorValue, tensorFromNumbers } from './runtime/tensor-value.js';
export { buildForward, type ForwardGraph, type ForwardOptions } from './training/forward.js';
export type { GradientOptions } from './training/gradient-options.js';
export type { GuardReport } from './training/guard/guard.js';
export type { Renamed } from './training/input-names.js';
export type { Noise } from './training/layers/dropout.js';
export type { AllowedOperators } from './training/layers/factor-gradients.js';
export type { LossGraph, LossGraphOptions, LossOutput } from './training/loss-graph.js';
export type { GuardSetting, LossSettings } from './training/loss-settings.js';
export type { LossName, LossOptions } from './training/losses/index.js';
export { addLoss } from './training/losses/index.js';
export type { RowFilter } from './training/losses/labelled-rows.js';
export type { Doubt, KeptRows, LossData, LossInGraph } from './training/losses/loss.js';
export type {
  Hyperparameters,
  OptimizerName,
  OptimizerOptions,
  StateUpdate,
} from './training/optimizers/index.js';
export type { Parameter } from './training/parameters.js';
export type { ScheduleName } from './training/schedule.js';
export { learningRate, type Schedule } from './training/schedule.js';
export { buildStepGraph, type StepGraph, type StepOptions } from './training/step-graph.js';
export type { Trainable } from './training/trainable.js';
export {
  type GuardListener,
  type RefusedGradient,
  type WeightGradient,
  weightGradients,
} from './training/weight-gradients.js';
