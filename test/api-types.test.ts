/** Types of options and results, as programs see them: `tsc` checks this file, and running it does nothing. */
import { expectTypeOf, test } from 'vitest';
import type * as library from '../src/index.js';

/** The keys that have to be given, or are always there. */
type Required<T> = {
  [K in keyof T]-?: Record<string, never> extends Pick<T, K> ? never : K;
}[keyof T];

/** Never called: what it holds is only compiled. */
function compiled(_: (onnxLora: typeof library) => unknown): void {}

test('options that have to be given', () => {
  expectTypeOf<Required<library.TrainOptions>>().toEqualTypeOf<'data' | 'loss'>();
  expectTypeOf<Required<library.EvaluateOptions>>().toEqualTypeOf<'data' | 'loss'>();
  expectTypeOf<Required<library.GradientOptions>>().toEqualTypeOf<'data' | 'loss'>();
  expectTypeOf<Required<library.ExtractOptions>>().toEqualTypeOf<'output'>();
  expectTypeOf<Required<library.CombineOptions>>().toEqualTypeOf<'output'>();
  expectTypeOf<Required<library.FitOptions>>().toEqualTypeOf<'output'>();
  type Free =
    | Required<library.PatchOptions>
    | Required<library.ApplyOptions>
    | Required<library.MergeOptions>
    | Required<library.UnpatchOptions>
    | Required<library.InspectOptions>
    | Required<library.AdviseOptions>
    | Required<library.AddSlotsOptions>
    | Required<library.GenerateOptions>
    | Required<library.AdapterSessionOptions>
    | Required<library.OpenSessionOptions>;
  expectTypeOf<Free>().toBeNever();
});

test('an option that may be left out may be undefined, too', () => {
  const open = { rank: undefined, targets: undefined, seed: undefined, verify: undefined };
  expectTypeOf(open).toExtend<library.PatchOptions>();
  expectTypeOf({ name: undefined, tolerance: undefined }).toExtend<library.MergeOptions>();
  expectTypeOf({ lr: undefined, optimizer: undefined }).toExtend<Partial<library.TrainOptions>>();
});

test('names', () => {
  expectTypeOf<library.LossName>().toEqualTypeOf<
    'cross-entropy' | 'causal-lm' | 'mse' | 'bce' | 'ctc' | 'mnr' | 'kl' | 'focal'
  >();
  expectTypeOf<library.OptimizerName>().toEqualTypeOf<'sgd' | 'lion' | 'adamw'>();
  expectTypeOf<library.ScheduleName>().toEqualTypeOf<'constant' | 'linear' | 'cosine'>();
  expectTypeOf<library.StructureName>().toEqualTypeOf<'localized' | 'diagonal' | 'global'>();
  expectTypeOf<library.FitStructure>().toEqualTypeOf<library.StructureName | 'auto'>();
  expectTypeOf<library.KindName>().toEqualTypeOf<'lora' | 'dora' | 'hira'>();
  expectTypeOf<library.Scaling>().toEqualTypeOf<'standard' | 'rslora'>();
  expectTypeOf<library.InitName>().toEqualTypeOf<
    'kaiming' | 'gaussian' | 'zero' | 'pissa' | 'gradient'
  >();
  expectTypeOf<library.AdapterFormat>().toEqualTypeOf<'safetensors' | 'peft' | 'onnx_adapter'>();
  expectTypeOf<library.PeftType>().toEqualTypeOf<'lora' | 'gralora' | 'hira'>();
  expectTypeOf<library.CombineMethod>().toEqualTypeOf<'linear' | 'svd' | 'ties' | 'dare'>();
  expectTypeOf<library.SlotMode>().toEqualTypeOf<'required' | 'optional'>();
  expectTypeOf<library.ProviderName>().toEqualTypeOf<
    'cpu' | 'cuda' | 'webgpu' | 'directml' | 'coreml' | 'tensorrt'
  >();
});

test('lists of names have their types', () => {
  type Names<K extends keyof typeof library> = (typeof library)[K] extends readonly (infer N)[]
    ? N
    : never;
  expectTypeOf<Names<'lossNames'>>().toEqualTypeOf<library.LossName>();
  expectTypeOf<Names<'optimizers'>>().toEqualTypeOf<library.OptimizerName>();
  expectTypeOf<Names<'schedules'>>().toEqualTypeOf<library.ScheduleName>();
  expectTypeOf<Names<'structures'>>().toEqualTypeOf<library.StructureName>();
  expectTypeOf<Names<'fitStructures'>>().toEqualTypeOf<library.FitStructure>();
  expectTypeOf<Names<'kindNames'>>().toEqualTypeOf<library.KindName>();
  expectTypeOf<Names<'scalings'>>().toEqualTypeOf<library.Scaling>();
  expectTypeOf<Names<'inits'>>().toEqualTypeOf<library.InitName>();
  expectTypeOf<Names<'adapterFormats'>>().toEqualTypeOf<library.AdapterFormat>();
  expectTypeOf<Names<'peftTypes'>>().toEqualTypeOf<library.PeftType>();
  expectTypeOf<Names<'combineMethods'>>().toEqualTypeOf<library.CombineMethod>();
  expectTypeOf<Names<'slotModes'>>().toEqualTypeOf<library.SlotMode>();
  expectTypeOf<Names<'providerNames'>>().toEqualTypeOf<library.ProviderName>();
});

test('options take the names', () => {
  type Given<T, K extends keyof T> = NonNullable<T[K]>;
  expectTypeOf<library.TrainOptions['loss']>().toEqualTypeOf<library.LossName>();
  expectTypeOf<Given<library.TrainOptions, 'optimizer'>>().toEqualTypeOf<library.OptimizerName>();
  expectTypeOf<Given<library.TrainOptions, 'schedule'>>().toEqualTypeOf<library.ScheduleName>();
  type Provider = library.ProviderName | 'auto';
  expectTypeOf<Given<library.TrainOptions, 'provider'>>().toEqualTypeOf<Provider>();
  expectTypeOf<Given<library.EvaluateOptions, 'provider'>>().toEqualTypeOf<Provider>();
  expectTypeOf<Given<library.GenerateOptions, 'provider'>>().toEqualTypeOf<Provider>();
  expectTypeOf<Given<library.PatchOptions, 'kind'>>().toEqualTypeOf<library.KindName>();
  expectTypeOf<Given<library.PatchOptions, 'init'>>().toEqualTypeOf<library.InitName>();
  expectTypeOf<Given<library.PatchOptions, 'targets'>>().toEqualTypeOf<readonly string[]>();
  expectTypeOf<Given<library.ExtractOptions, 'format'>>().toEqualTypeOf<library.AdapterFormat>();
  expectTypeOf<Given<library.CombineOptions, 'method'>>().toEqualTypeOf<library.CombineMethod>();
  expectTypeOf<Given<library.FitOptions, 'structure'>>().toEqualTypeOf<library.FitStructure>();
  expectTypeOf<Given<library.AddSlotsOptions, 'mode'>>().toEqualTypeOf<library.SlotMode>();
});

test('what functions resolve to', () => {
  type Result<K extends keyof typeof library> = (typeof library)[K] extends (
    ...args: never
  ) => infer R
    ? Awaited<R>
    : never;
  expectTypeOf<Result<'patch'>>().toEqualTypeOf<library.PatchResult>();
  expectTypeOf<Result<'train'>>().toEqualTypeOf<library.TrainResult>();
  expectTypeOf<Result<'evaluate'>>().toEqualTypeOf<library.EvaluateResult>();
  expectTypeOf<Result<'merge'>>().toEqualTypeOf<library.MergeResult>();
  expectTypeOf<Result<'unpatch'>>().toEqualTypeOf<library.UnpatchResult>();
  expectTypeOf<Result<'apply'>>().toEqualTypeOf<library.ApplyResult>();
  expectTypeOf<Result<'extract'>>().toEqualTypeOf<library.ExtractResult>();
  expectTypeOf<Result<'combine'>>().toEqualTypeOf<library.CombineResult>();
  expectTypeOf<Result<'fit'>>().toEqualTypeOf<library.FitResult>();
  expectTypeOf<Result<'advise'>>().toEqualTypeOf<library.AdviseResult>();
  expectTypeOf<Result<'inspect'>>().toEqualTypeOf<library.InspectResult>();
  expectTypeOf<Result<'addSlots'>>().toEqualTypeOf<library.AddSlotsResult>();
  expectTypeOf<Result<'generate'>>().toEqualTypeOf<library.GenerateResult>();
  expectTypeOf<Result<'verifyModels'>>().toEqualTypeOf<library.Verification>();
});

test('what results always have', () => {
  expectTypeOf<Required<library.PatchResult>>().toEqualTypeOf<
    'output' | 'adapters' | 'skipped' | 'parameters'
  >();
  expectTypeOf<Required<library.TrainResult>>().toEqualTypeOf<
    'output' | 'steps' | 'seconds' | 'peakMemoryBytes'
  >();
  expectTypeOf<Required<library.EvaluateResult>>().toEqualTypeOf<
    'model' | 'samples' | 'loss' | 'provider' | 'seconds'
  >();
  expectTypeOf<Required<library.MergeResult>>().toEqualTypeOf<'output' | 'merged' | 'replaced'>();
  expectTypeOf<Required<library.ApplyResult>>().toEqualTypeOf<
    'output' | 'adapters' | 'parameters' | 'replaced' | 'unmatched'
  >();
  expectTypeOf<Required<library.ExtractResult>>().toEqualTypeOf<
    'output' | 'format' | 'set' | 'adapters' | 'parameters'
  >();
  expectTypeOf<Required<library.FitResult>>().toEqualTypeOf<
    'output' | 'format' | 'set' | 'layers' | 'rest' | 'unchanged' | 'parameters' | 'error'
  >();
  expectTypeOf<Required<library.InspectResult>>().toEqualTypeOf<
    'model' | 'inputs' | 'outputs' | 'targets' | 'summary' | 'sets' | 'slots'
  >();
});

test('advice is what patch takes', () => {
  expectTypeOf<library.PatchAdvice>().toExtend<library.PatchOptions>();
});

test('mistakes do not compile', () => {
  const data = { data: 'train.safetensors' };
  compiled(({ patch }) => patch('model.onnx', { rank: 8, targets: ['query'] }));
  // @ts-expect-error an option of no command
  compiled(({ patch }) => patch('model.onnx', { ranks: 8 }));
  // @ts-expect-error a text for a number
  compiled(({ patch }) => patch('model.onnx', { rank: '8' }));
  // @ts-expect-error one pattern instead of a list
  compiled(({ patch }) => patch('model.onnx', { targets: 'query' }));
  // @ts-expect-error a kind that does not exist
  compiled(({ patch }) => patch('model.onnx', { kind: 'qlora' }));
  compiled(({ train }) => train('model.lora.onnx', { ...data, loss: 'mse' }));
  // @ts-expect-error no loss function
  compiled(({ train }) => train('model.lora.onnx', data));
  // @ts-expect-error a loss function that does not exist
  compiled(({ train }) => train('model.lora.onnx', { ...data, loss: 'hinge' }));
  // @ts-expect-error an optimizer that does not exist
  compiled(({ train }) => train('model.lora.onnx', { ...data, loss: 'mse', optimizer: 'adam' }));
  // @ts-expect-error an option of training
  compiled(({ evaluate }) => evaluate('model.onnx', { ...data, loss: 'mse', lr: 0.1 }));
  // @ts-expect-error no output
  compiled(({ extract }) => extract('model.lora.onnx', { format: 'peft' }));
  // @ts-expect-error one file instead of a list
  compiled(({ combine }) => combine('a.safetensors', { output: 'b.safetensors' }));
  // @ts-expect-error no path
  compiled(({ inspect }) => inspect());
  // @ts-expect-error results are not to be changed
  compiled(({ merge }) => merge('model.lora.onnx').then((result) => (result.output = '')));
});
