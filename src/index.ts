/**
 * onnx-lora as a library: what the commands do, and the pieces that they are made of. Options are
 * those of the command line in camelCase, results are what it prints with `--json`, failures are
 * `OnnxLoraError`.
 */

// Best fits.
export {
  type BlockDecomposition,
  capturedByRank,
  decompose,
  fitOf,
  fitStructure,
  type StructureFit,
} from './analysis/fit-structure.js';
export { type SvdOptions, truncatedSvd } from './analysis/svd.js';
export type { TruncatedSvd } from './analysis/truncated-svd.js';

// What a loss wants of whole weights.
export {
  type GradientOptions,
  type RefusedGradient,
  type WeightGradient,
  weightGradients,
} from './analysis/weight-gradients.js';

// Reverse mode over graphs.
export {
  type Composite,
  type DifferentiateOptions,
  differentiate,
} from './autodiff/differentiate.js';
export type { GradientRule, RuleContext } from './autodiff/rule.js';
export type { ValueType, ValueTypes } from './autodiff/value.js';

// The errors.
export { type ErrorCode, type ErrorDetails, OnnxLoraError } from './errors.js';

// Adapter files.
export { openSafetensors, type SafetensorsFile } from './formats/safetensors.js';

// The graph.
export { type Attributes, GraphBuilder, type ValueSpec } from './graph/builder.js';
export { type Constant, traceConstant } from './graph/constants.js';
export { loadGraph } from './graph/load.js';
export { prune } from './graph/prune.js';
export { type Use, type Value, ValueIndex } from './graph/uses.js';
export {
  type AdvisedChoice,
  type AdvisedScore,
  type AdvisedTarget,
  type AdviseOptions,
  type AdviseResult,
  advise,
  type Basis,
} from './lora/advise.js';
export { type ApplyOptions, type ApplyResult, apply } from './lora/apply.js';
// The commands, and how layers and structures are chosen.
export {
  type AdapterFormat,
  adapterFormats,
  type FitStructure,
  fitStructures,
  type InitName,
  inits,
  type SlotMode,
  slotModes,
} from './lora/choices.js';
export { type ExtractOptions, type ExtractResult, extract } from './lora/extract.js';
export type { AdapterFile, StoredAdapter } from './lora/files/adapter-file.js';
export type { PeftModule, PeftOptions, PeftSummary } from './lora/files/export-peft.js';
export { openAdapter } from './lora/files/open-adapter.js';
export { type FitLayer, type FitOptions, type FitRest, type FitResult, fit } from './lora/fit.js';
export { type InspectOptions, inspect } from './lora/inspect.js';
export type {
  InspectedHead,
  InspectedSet,
  InspectedSlots,
  InspectedTarget,
  InspectedValue,
  InspectedWeight,
  InspectResult,
  InspectSummary,
  ModelFacts,
} from './lora/inspection.js';
export { findLayers, type Layer } from './lora/layers.js';
export {
  type AdapterRecord,
  type ModelManifest,
  type PatchedAdapter,
  readManifests,
} from './lora/manifest.js';
export { type MergedWeight, type MergeResult, merge } from './lora/merge.js';
export type { AdapterOptions } from './lora/new-adapters.js';
export { patch } from './lora/patch.js';
export type { PatchOptions, PatchResult, Skipped } from './lora/patch-options.js';
export type { AdapterSummary, ParameterShare } from './lora/report.js';
export { matcher, type Selectable, type Selection, select } from './lora/select.js';
export type { SlotSummary } from './lora/slots/summary.js';
export {
  planStructure,
  type Scaling,
  type Structure,
  type StructureName,
  type StructureOptions,
  scalings,
  structures,
} from './lora/structure.js';
export {
  type Finding,
  findLinearLayers,
  type Geometry,
  type LinearLayer,
  type Weight,
} from './lora/targets/index.js';
export type { MergeOptions } from './lora/unmerged.js';
export { type UnpatchOptions, type UnpatchResult, unpatch } from './lora/unpatch.js';
export { type VerifyOptions, verifyModels } from './lora/verify.js';
export type { ByteSource } from './onnx/byte-source.js';
// The file.
export type { DataTypeName, FloatName } from './onnx/dtype.js';
export { ExternalFiles } from './onnx/external.js';
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
export type { Progress, WorkOptions, WriteOptions } from './onnx/write.js';

// ONNX Runtime.
export {
  type AdapterRunOptions,
  AdapterSession,
  type AdapterSessionOptions,
  type LoadedAdapter,
  type WeightedAdapter,
} from './runtime/adapter-session.js';
export { type CompareOptions, compareModels, type ModelSource } from './runtime/compare.js';
export type { GivenFeeds, RuntimeTensor } from './runtime/given-feeds.js';
export { inferTypes } from './runtime/infer-types.js';
export type { PlacedNode, Placement } from './runtime/placement.js';
export {
  type OperatorTime,
  type Profile,
  type ProfileOptions,
  profileModel,
} from './runtime/profile.js';
export { type ProviderName, providerNames } from './runtime/provider-names.js';
export {
  listProviders,
  type ProviderChoice,
  type ProviderInfo,
  resolveProvider,
} from './runtime/providers.js';
export { type OpenSessionOptions, openSession, type Session } from './runtime/session.js';
export type { SlotGuardReport } from './runtime/slot-guard.js';
export {
  openStatefulSession,
  type State,
  type StatefulSession,
  type StatefulSessionOptions,
  type StateSlot,
} from './runtime/stateful-session.js';
export { type Feeds, type TensorValue, tensorFromNumbers } from './runtime/tensor-value.js';
export type { Verification } from './runtime/verification.js';
// Training.
export type { Dataset, SampleSpec } from './training/data/dataset.js';
export { openDataset } from './training/data/open-dataset.js';
export type { DataOptions, DataRequest } from './training/data/request.js';
export { type Encoding, TextTokenizer } from './training/data/text/tokenizer.js';
export {
  type EvaluateOptions,
  type EvaluateResult,
  evaluate,
} from './training/evaluate.js';
export type { Expectation } from './training/expectations.js';
export { buildForward, type ForwardGraph, type ForwardOptions } from './training/forward.js';
export type { GuardReport } from './training/guard/guard.js';
export { addLoss, type LossName, type LossOptions, lossNames } from './training/losses/index.js';
export { type OptimizerName, type OptimizerOptions, optimizers } from './training/optimizer.js';
export type { TrainOptions } from './training/options.js';
export type { EvalRecord, LogRecord, StepRecord } from './training/records.js';
export type { TrainResult } from './training/run.js';
export { learningRate, type Schedule, type ScheduleName, schedules } from './training/schedule.js';
export { buildStepGraph, type StepGraph, type StepOptions } from './training/step-graph.js';
export { train } from './training/train.js';
export { version } from './version.js';
