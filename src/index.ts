/**
 * onnx-lora as a library: one function a command, a session that switches adapters, and the readers of
 * data. Options are those of the command line in camelCase, results are the JSON that it
 * prints, failures are {@link OnnxLoraError}.
 *
 * The exports of this entry are stable. The pieces that the commands are made of are in `onnx-lora/graph`.
 *
 * @packageDocumentation
 */

export type { BindOptions } from './adapters/binding/bind-options.js';
export type { MethodOptions } from './adapters/combine/combine-layer.js';
export type { AdapterOptions } from './adapters/edit/new-adapters.js';
export type { AdapterOutput, AdapterOutputOptions } from './adapters/files/adapter-output.js';
export type { PeftModule, PeftOptions, PeftSummary } from './adapters/files/export-peft.js';
export type { FoldKind } from './adapters/fold/folding.js';
export type { AdapterSummary, ParameterShare } from './adapters/kinds/summary.js';
export type { Head, Site } from './adapters/model/manifest.js';
export type { Slot } from './adapters/model/slot-manifest.js';
export {
  type AdapterRunOptions,
  AdapterSession,
  type AdapterSessionOptions,
  type LoadedAdapter,
  type WeightedAdapter,
} from './adapters/slots/adapter-session.js';
export type { SlotGuardReport } from './adapters/slots/slot-guard.js';
export type { SlotSummary } from './adapters/slots/summary.js';
export {
  type AdapterFormat,
  adapterFormats,
  type CombineMethod,
  combineMethods,
  type FitStructure,
  fitStructures,
  type InitName,
  inits,
  type KindName,
  kindNames,
  type PeftType,
  peftTypes,
  type SlotMode,
  slotModes,
} from './adapters/structure/choices.js';
export {
  type LayerPart,
  type Scaling,
  type StructureName,
  scalings,
  structures,
} from './adapters/structure/structure.js';
export type { Selection } from './adapters/targets/select.js';
export { type AddSlotsOptions, type AddSlotsResult, addSlots } from './commands/add-slots.js';
export {
  type AdvisedChoice,
  type AdvisedScore,
  type AdvisedStructure,
  type AdvisedTarget,
  type AdviseOptions,
  type AdviseResult,
  advise,
  type Basis,
} from './commands/advise.js';
export { type ApplyOptions, type ApplyResult, apply } from './commands/apply.js';
export type { Skipped } from './commands/chosen-layers.js';
export {
  type CombinedAdapter,
  type CombineOptions,
  type CombineResult,
  combine,
} from './commands/combine.js';
export type { QuantizedWeight } from './commands/converted.js';
export { type EvaluateOptions, type EvaluateResult, evaluate } from './commands/evaluate.js';
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
export {
  type CompleteOptions,
  TextGenerator,
  type UsedProvider,
} from './commands/generate/generator.js';
export type { GeneratorOptions, SamplingOptions } from './commands/generate/options.js';
export type { Prompt } from './commands/generate/prompt.js';
export { type InspectOptions, inspect } from './commands/inspect.js';
export {
  type MergedWeight,
  type MergeResult,
  merge,
  type QuantizedResult,
} from './commands/merge.js';
export type { TrainOptions } from './commands/options/train.js';
export { type PatchOptions, patch } from './commands/patch.js';
export type { PatchResult } from './commands/patch-result.js';
export type { TrainResult } from './commands/train/result.js';
export { train } from './commands/train/train.js';
export type { MergeOptions } from './commands/unmerged.js';
export { type UnpatchOptions, type UnpatchResult, unpatch } from './commands/unpatch.js';
export { type AdapterRuns, type VerifyOptions, verifyModels } from './commands/verify.js';
export type { DataOptions } from './data/data-options.js';
export type { Dataset, SampleSpec } from './data/dataset.js';
export type { ChannelOrder, Fit, Kernel } from './data/images/choices.js';
export type { ImageOptions } from './data/images/options.js';
export type { LabelKind, LabelRequest } from './data/label-kind.js';
export { openDataset } from './data/open-dataset.js';
export type { DataRequest } from './data/request.js';
export type { RowOptions } from './data/rows/row-options.js';
export type { Message } from './data/text/messages.js';
export type { TextOptions } from './data/text/options.js';
export type { EncodeOptions } from './data/text/tokenizer.js';
export { type Encoding, TextTokenizer } from './data/text/tokenizer.js';
export type { ChatTemplate, TokenizerConfig, TokenizerFiles } from './data/text/tokenizer-files.js';
export { type ErrorCode, type ErrorDetails, OnnxLoraError } from './errors.js';
export type { Verdict } from './fitting/advise/choice.js';
export type { PatchAdvice } from './fitting/advise/patch-options.js';
export type { Grid } from './fitting/fit/candidates.js';
export type { Comparison } from './fitting/fit/fit-layers.js';
export { openSafetensors, type SafetensorsFile } from './formats/safetensors.js';
export type { SafetensorsEntry } from './formats/safetensors-header.js';
export type { DataTypeName, DataTypeNumber, FloatName, IntegerArray } from './onnx/dtype.js';
export type { Dim, Entry, ValueInfo } from './onnx/model.js';
export type { Field, Range } from './onnx/wire.js';
export type { Progress, WorkOptions, WriteOptions } from './onnx/write.js';
export type { OutputOptions } from './onnx/write-options.js';
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
export type { GivenFeeds, GivenTensor, RuntimeTensor } from './runtime/given-feeds.js';
export type { ValueMeta } from './runtime/native.js';
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
export type { TensorArray } from './runtime/tensor-value.js';
export { type Feeds, type TensorValue, tensorFromNumbers } from './runtime/tensor-value.js';
export type { Verification } from './runtime/verification.js';
export type { GradientOptions } from './training/gradient-options.js';
export type { GuardReport } from './training/guard/guard.js';
export type { GuardSetting, LossSettings } from './training/loss-settings.js';
export { type LossName, type LossOptions, lossNames } from './training/losses/index.js';
export type { LossData } from './training/losses/loss.js';
export type { MetricName, Metrics } from './training/metrics/metric.js';
export {
  type Hyperparameters,
  type OptimizerName,
  type OptimizerOptions,
  optimizerNames as optimizers,
} from './training/optimizers/index.js';
export type {
  EvalRecord,
  LogRecord,
  SampleRecord,
  StepRecord,
  WrittenSample,
} from './training/records.js';
export { type Schedule, type ScheduleName, schedules } from './training/schedule.js';
export { version } from './version.js';
