/**
 * onnx-lora as a library: what the commands do, and the pieces that they are made of. Options are
 * those of the command line in camelCase, results are what it prints with `--json`, failures are
 * `OnnxLoraError`.
 */

export type { AdapterOptions } from './adapters/edit/new-adapters.js';
// Best fits.
export {
  type BlockDecomposition,
  capturedByRank,
  decompose,
  fitOf,
  fitStructure,
  type StructureFit,
} from './adapters/factors/fit-structure.js';
export type { AdapterFile, StoredAdapter } from './adapters/files/adapter-file.js';
export type { PeftModule, PeftOptions, PeftSummary } from './adapters/files/export-peft.js';
export { openAdapter } from './adapters/files/open-adapter.js';
export type { AdapterSummary, ParameterShare } from './adapters/kinds/summary.js';
export { findLayers, type Layer } from './adapters/model/layers.js';
export {
  type AdapterRecord,
  type ModelManifest,
  type PatchedAdapter,
  readManifests,
} from './adapters/model/manifest.js';
// ONNX Runtime.
export {
  type AdapterRunOptions,
  AdapterSession,
  type AdapterSessionOptions,
  type LoadedAdapter,
  type WeightedAdapter,
} from './adapters/slots/adapter-session.js';
export type { SlotGuardReport } from './adapters/slots/slot-guard.js';
export type { SlotSummary } from './adapters/slots/summary.js';
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
} from './adapters/structure/choices.js';
export {
  planStructure,
  type Scaling,
  type Structure,
  type StructureName,
  type StructureOptions,
  scalings,
  structures,
} from './adapters/structure/structure.js';
export {
  type Finding,
  findLinearLayers,
  type Geometry,
  type LinearLayer,
  type Weight,
} from './adapters/targets/index.js';
export { matcher, type Selectable, type Selection, select } from './adapters/targets/select.js';
// Reverse mode over graphs.
export {
  type Composite,
  type DifferentiateOptions,
  differentiate,
} from './autodiff/differentiate.js';
export type { GradientRule, RuleContext } from './autodiff/rule.js';
export { type AddSlotsOptions, type AddSlotsResult, addSlots } from './commands/add-slots.js';
export {
  type AdvisedChoice,
  type AdvisedScore,
  type AdvisedTarget,
  type AdviseOptions,
  type AdviseResult,
  advise,
  type Basis,
} from './commands/advise.js';
export { type ApplyOptions, type ApplyResult, apply } from './commands/apply.js';
export type { Skipped } from './commands/chosen-layers.js';
export {
  type EvaluateOptions,
  type EvaluateResult,
  evaluate,
} from './commands/evaluate.js';
export type { Expectation } from './commands/expectations.js';
export { type ExtractOptions, type ExtractResult, extract } from './commands/extract.js';
export {
  type FitLayer,
  type FitOptions,
  type FitRest,
  type FitResult,
  fit,
} from './commands/fit.js';
export {
  type Answer,
  type GenerateOptions,
  type GenerateResult,
  generate,
} from './commands/generate/generate.js';
export type { Finish, Generation } from './commands/generate/generation.js';
export { TextGenerator, type UsedProvider } from './commands/generate/generator.js';
export type { GeneratorOptions, SamplingOptions } from './commands/generate/options.js';
export type { Prompt } from './commands/generate/prompt.js';
export { type InspectOptions, inspect } from './commands/inspect.js';
export { type MergedWeight, type MergeResult, merge } from './commands/merge.js';
export { patch } from './commands/patch.js';
export type { PatchOptions, PatchResult } from './commands/patch-options.js';
export type { TrainResult } from './commands/train/run.js';
export { train } from './commands/train/train.js';
export type { MergeOptions } from './commands/unmerged.js';
export { type UnpatchOptions, type UnpatchResult, unpatch } from './commands/unpatch.js';
export { type VerifyOptions, verifyModels } from './commands/verify.js';
// Training.
export type { Dataset, SampleSpec } from './data/dataset.js';
export { openDataset } from './data/open-dataset.js';
export type { DataOptions, DataRequest } from './data/request.js';
export type { Message } from './data/text/messages.js';
export { type Encoding, TextTokenizer } from './data/text/tokenizer.js';
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
export type { ValueType, ValueTypes } from './graph/value-type.js';
export { type SvdOptions, truncatedSvd } from './linalg/svd.js';
export type { TruncatedSvd } from './linalg/truncated-svd.js';
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
} from './report/inspection.js';
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
export {
  openStatefulSession,
  type State,
  type StatefulSession,
  type StatefulSessionOptions,
  type StateSlot,
} from './runtime/stateful-session.js';
export { type Feeds, type TensorValue, tensorFromNumbers } from './runtime/tensor-value.js';
export type { Verification } from './runtime/verification.js';
export { buildForward, type ForwardGraph, type ForwardOptions } from './training/forward.js';
export type { GuardReport } from './training/guard/guard.js';
export { addLoss, type LossName, type LossOptions, lossNames } from './training/losses/index.js';
export {
  type OptimizerName,
  type OptimizerOptions,
  optimizerNames as optimizers,
} from './training/optimizers/index.js';
export type { TrainOptions } from './training/options.js';
export type { EvalRecord, LogRecord, StepRecord } from './training/records.js';
export { learningRate, type Schedule, type ScheduleName, schedules } from './training/schedule.js';
export { buildStepGraph, type StepGraph, type StepOptions } from './training/step-graph.js';
// What a loss wants of whole weights.
export {
  type GradientOptions,
  type RefusedGradient,
  type WeightGradient,
  weightGradients,
} from './training/weight-gradients.js';
export { version } from './version.js';
