/** Evaluates a model on a dataset: its loss, and the measures that fit the loss. */
import { setImmediate } from 'node:timers/promises';
import { labelsOf } from '../adapters/model/labels.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import type { Dataset } from '../data/dataset.js';
import { modelInputs } from '../data/model-inputs.js';
import { openDataset } from '../data/open-dataset.js';
import { dataRequest } from '../data/request.js';
import { OnnxLoraError } from '../errors.js';
import { checkOutput, type WorkOptions, writeFiles } from '../onnx/write.js';
import { DEFAULT_SEED } from '../options/common.js';
import { resolveOptions } from '../options/resolve.js';
import { type EvaluationReport, evaluationPage } from '../report/evaluation-page.js';
import type { ProviderName } from '../runtime/provider-names.js';
import { resolveProvider } from '../runtime/providers.js';
import { Batches } from '../training/batches.js';
import { Evaluator } from '../training/evaluator.js';
import { guardFirstBatch } from '../training/guard/first-batch.js';
import type { GuardReport } from '../training/guard/guard.js';
import { batchShapes, symbolSizes } from '../training/layers/data-shapes.js';
import { buildLossGraph } from '../training/loss-graph.js';
import { lossOptions } from '../training/loss-settings.js';
import { labelRequest, metricsFor } from '../training/losses/index.js';
import { PAIR } from '../training/losses/pairs.js';
import type { Metrics } from '../training/metrics/metric.js';
import { apart, runsApart } from './apart.js';
import { checkExpectations, type Expectation, parseExpectations } from './expectations.js';
import { filesOfModel, inputsOf } from './inputs.js';
import { locateModel, withTokenizer } from './model-folder.js';
import {
  type EvaluateOptions,
  evalOptions,
  type ResolvedEvaluateOptions as Options,
} from './options/eval.js';

export type { EvaluateOptions };

/** The measures are beside the loss, under their names. */
export type EvaluateResult = Metrics & {
  /** Path of the model. */
  readonly model: string;
  /** Number of samples. */
  readonly samples: number;
  /** Rows of the data that are not samples because something is wrong with them. */
  readonly skippedRows?: number;
  /** Things that are likely not what the user meant, as texts for people. */
  readonly warnings?: readonly string[];
  /** The mean over everything that counts in the loss. */
  readonly loss: number;
  /** One for each of `expect`. */
  readonly expectations?: readonly Expectation[];
  /** The comparison of the measured graph with the file on the first batch, unless left out. */
  readonly guard?: GuardReport;
  /** The execution provider. */
  readonly provider: {
    /** As asked for. */
    readonly requested: ProviderName | 'auto';
    /** The one that ran the model. */
    readonly used: ProviderName;
  };
  /** Time of the evaluation. */
  readonly seconds: number;
};

/**
 * The loss and the measures of the model at `path`, with or without adapters, over all samples.
 * Expectations that are not met do not throw: they are in the result.
 * @throws OnnxLoraError `invalid-argument`, `invalid-data`, `unsupported`, `provider`, `runtime`,
 * `verification` where the guard finds another model, `aborted`, and those of reading
 * @example
 * ```ts
 * import { evaluate } from 'onnx-lora';
 *
 * const { loss, accuracy, expectations } = await evaluate('model.lora.onnx', {
 *   data: 'test.safetensors',
 *   loss: 'cross-entropy',
 *   expect: ['accuracy>=0.9'],
 * });
 * console.log({ loss, accuracy, reached: expectations?.every(({ passed }) => passed) });
 * ```
 */
export async function evaluate(path: string, given: EvaluateOptions): Promise<EvaluateResult> {
  const options = resolveOptions(evalOptions, given, 'evaluate');
  const located = locateModel(path, options.onNote);
  return await evaluateFile(located.file, withTokenizer(options, located));
}

async function evaluateFile(path: string, options: Options): Promise<EvaluateResult> {
  if (!runsApart(path)) return await evaluateHere(path, options);
  return await apart({
    work: 'evaluate',
    paths: [path],
    options,
    label: `the evaluation of ${path}`,
    advice: () => 'Then evaluate again.',
    stop: 'ask',
  });
}

/** As `evaluate`, in this process. */
export async function evaluateHere(path: string, options: Options): Promise<EvaluateResult> {
  const start = performance.now();
  const { loss, expect = [], html } = options;
  const inputs = html === undefined ? [] : [...filesOfModel(path), ...inputsOf(options)];
  if (html !== undefined) checkOutput(html, inputs, options.force, 'html');
  const names = Object.keys(metricsFor(loss).result());
  const wanted = parseExpectations(expect, ['loss', ...names]);
  const measured = await measure(path, options);
  const { measures, provider, samples, skippedRows, warnings, guarded } = measured;
  const result = {
    ...{ model: path, samples },
    ...(skippedRows === undefined ? {} : { skippedRows }),
    ...(warnings.length > 0 ? { warnings } : {}),
    ...measures,
    ...(wanted.length > 0 ? { expectations: checkExpectations(wanted, measures) } : {}),
    ...(guarded === undefined ? {} : { guard: guarded }),
    ...{ provider, seconds: (performance.now() - start) / 1000 },
  };
  if (html !== undefined) await writePage(html, result, measured, options, inputs);
  return result;
}

async function writePage(
  html: string,
  { model, samples, provider, seconds, expectations = [] }: EvaluateResult,
  {
    measures,
    confusion,
    classNames,
  }: Pick<EvaluationReport, 'measures' | 'confusion' | 'classNames'>,
  { data, loss, force }: Options,
  inputs: readonly string[],
): Promise<void> {
  const facts = { data, loss, provider: provider.used };
  const page = evaluationPage({
    ...{ model, samples, seconds, measures, confusion, classNames, facts },
    expectations: expectations.map(({ measure, comparison, limit, passed }) => ({
      ...{ measure, passed },
      condition: `${comparison} ${limit}`,
    })),
  });
  await writeFiles([{ path: html, pieces: [Buffer.from(page)] }], inputs, { force });
}

function measure(path: string, options: Options) {
  return withModel(path, async (opened) => {
    const { model, patched } = opened;
    const classes = labelsOf(patched);
    const request = { ...modelInputs(model), ...labelRequest(options.loss), classes };
    const data = await openDataset(options.data, dataRequest({ ...options, ...request }));
    try {
      return await measureOn(data, opened, options);
    } finally {
      data.close();
    }
  });
}

async function measureOn(data: Dataset, opened: OpenedModel, options: Options) {
  const { model } = opened;
  const { graph, batches } = await prepare(opened, data, options);
  // Checking the data may have left some out.
  const { size: samples, skipped: skippedRows } = data;
  const { provider: requested, threads, onNote } = options;
  const { used, reason } = await resolveProvider(requested);
  if (requested === 'auto') onNote?.(`provider auto: ${used} (${reason})`);
  const built = { model, graph: graph.graph, forward: graph, batches };
  const guarded = await guardFirstBatch(built, { ...options, provider: used });
  const optimization = guarded?.optimization;
  const evaluator = await Evaluator.open(model, graph, { provider: used, threads, optimization });
  try {
    const onBatch = (done: number, total: number) => breathe(done, total, options);
    const metrics = metricsFor(options.loss, { ...options, group: Math.max(PAIR, batches.group) });
    const { measures, leftOut, warnings, problem } = await evaluator.run(
      batches,
      metrics,
      undefined,
      onBatch,
    );
    if (problem) throw notFinite(data, problem);
    for (const warning of warnings) onNote?.(`warning: ${warning}`);
    for (const [name, value] of Object.entries(leftOut)) {
      onNote?.(`${name} is ${value}, which is not a number to compare: it is left out`);
    }
    const { confusion } = metrics;
    const found = { measures, confusion, classNames: data.classes };
    const more = { warnings, guarded, samples, skippedRows };
    return { ...found, ...more, provider: { requested, used } };
  } finally {
    await evaluator.release();
  }
}

async function prepare({ model, patched, reader }: OpenedModel, data: Dataset, options: Options) {
  const graph = await buildLossGraph(patched, reader, {
    loss: options.loss,
    modelOutput: options.modelOutput,
    sizes: symbolSizes(model.graph.inputs, data, options.batchSize),
    inputShapes: batchShapes(model.graph.inputs, data, options.batchSize, false),
    lossOptions: lossOptions(options, model.graph.inputs, data),
  });
  const inOrder = { ...options, shuffle: false, seed: DEFAULT_SEED };
  const batches = await Batches.of(data, model, graph, inOrder, options);
  if (batches.unused.length > 0) {
    options.onNote?.(`${data.label}: nothing reads ${batches.unused.join(', ')}`);
  }
  return { graph, batches };
}

function notFinite({ label }: Dataset, problem: string): OnnxLoraError {
  return new OnnxLoraError('diverged', `${label}: ${problem}`, {
    hint: 'The model overflows on these inputs, its numbers are damaged, or none of the labels is one that the loss counts.',
  });
}

/** Signals get their turn, for a run blocks the thread. */
async function breathe(done: number, total: number, { signal, onProgress }: WorkOptions) {
  onProgress?.({ phase: 'evaluating', done, total, unit: 'runs' });
  await setImmediate();
  if (signal?.aborted) throw new OnnxLoraError('aborted', `interrupted at run ${done} of ${total}`);
}
