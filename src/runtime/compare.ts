/** Do two models compute the same? */
import { join } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import type { DataTypeName } from '../onnx/dtype.js';
import type { Model } from '../onnx/model.js';
import { openModel, parseModel } from '../onnx/parse.js';
import { MemorySource } from '../onnx/source.js';
import { type WorkOptions, workOptions } from '../onnx/write-options.js';
import { handler, type OptionsOf } from '../options/option.js';
import { resolveOptions } from '../options/resolve.js';
import { callback, choice, notNegative, object } from '../options/schemas.js';
import { comparedOutputs, type Outputs } from './difference.js';
import { Findings, type Rounding } from './findings.js';
import { type ProviderName, providerNames } from './provider-names.js';
import { folderOf, runnableForm } from './runnable-form.js';
import { openSession, type Session } from './session.js';
import type { Feeds } from './tensor-value.js';
import { defaultTolerance, roundingLevel } from './tolerance.js';
import type { Verification } from './verification.js';

/**
 * A model in a file, or its bytes and the folder of its external data; with what to feed to inputs that
 * the other one does not have.
 */
export type ModelSource = (
  | {
      /** Path of the model. */
      readonly path: string;
    }
  | {
      /** The model itself. */
      readonly bytes: Uint8Array;
      /** The folder of its external data. */
      readonly externalFolder?: string | undefined;
    }
) & {
  /** Inputs that only this model has. */
  readonly ownFeeds?: Feeds | undefined;
};

/** The change by the adapters of the two models, and how their rounding may be known. */
export const adapterRuns = {
  /** The model without the adapters that `candidate` is to hold: what they move is compared too. */
  base: handler(object<ModelSource>('a model, as { path } or { bytes }')),
  /**
   * The reference with adapters a little stronger, so that all its roundings fall otherwise. Only run
   * where the rest leaves a doubt.
   */
  nudged: handler(callback<() => Promise<ModelSource | undefined>>()),
};

export const compareOptions = {
  ...workOptions,
  ...adapterRuns,
  /** Share of the greatest element of an output. Default: by the types that the models store and compute in. */
  tolerance: handler(notNegative),
  /** Default `cpu`. */
  provider: handler(choice(providerNames)),
};

/** Options of `compareModels`. */
export interface CompareOptions
  extends OptionsOf<typeof adapterRuns>,
    OptionsOf<typeof compareOptions> {}

/**
 * Runs the models on the same inputs, one after the other, so that only one is in memory.
 * Outputs of integers count only where no output is of floats.
 * @param feeds one batch each; see `findWorkingInputs` and `loadSamples`
 * @throws OnnxLoraError `verification` where the outputs cannot be compared (names or shapes
 * differ), or the candidate does not run on what the reference ran on; `runtime`, `provider`, `aborted`
 * @example
 * ```ts
 * import { compareModels, openDataset } from 'onnx-lora';
 *
 * const data = await openDataset('test.safetensors');
 * const feeds = await data.batch([0, 1, 2, 3], ['input_ids', 'attention_mask']);
 * const { maxAbsDiff } = await compareModels(
 *   { path: 'model.lora.onnx' },
 *   { path: 'model.tuned.onnx' },
 *   [feeds],
 * );
 * console.log(maxAbsDiff);
 * data.close();
 * ```
 */
export async function compareModels(
  reference: ModelSource,
  candidate: ModelSource,
  feeds: readonly Feeds[],
  given: CompareOptions = {},
): Promise<Verification> {
  const options = resolveOptions(compareOptions, given, 'compareModels');
  const { base } = options;
  const progress = progressOf((base ? 3 : 2) * feeds.length, options);
  const expected = await outputsOf(reference, feeds, options, progress);
  const bases = base && (await ranWithout(base, feeds, options, progress));
  const names = expected[0] ? comparedOutputs(expected[0]) : [];
  const findings = new Findings(names, expected, bases);
  await runCandidate(candidate, feeds, options, progress, (outputs, i) => findings.add(outputs, i));
  const dtypes = names.map((name) => expected[0]!.get(name)!.dtype);
  const rounding = roundingBetween(reference, candidate, dtypes, options);
  const first = findings.verdict(rounding);
  if (!bases || !(await findings.addNudged(first, rounding, nudgedRun(feeds, options))))
    return first;
  return findings.verdict(rounding);
}

async function outputsOf(
  source: ModelSource,
  feeds: readonly Feeds[],
  options: CompareOptions,
  progress: () => void,
): Promise<Outputs[]> {
  const all: Outputs[] = [];
  await runAll(source, feeds, options, progress, (outputs) => all.push(outputs));
  return all;
}

/** The outputs of the model without adapters; undefined where it does not run. */
async function ranWithout(
  base: ModelSource,
  feeds: readonly Feeds[],
  options: CompareOptions,
  progress: () => void,
): Promise<Outputs[] | undefined> {
  try {
    return await outputsOf(base, feeds, options, progress);
  } catch (error) {
    if (error instanceof OnnxLoraError && error.code === 'runtime') return undefined;
    throw error;
  }
}

/** Runs the nudged reference, if there is one. */
function nudgedRun(feeds: readonly Feeds[], options: CompareOptions) {
  return async (): Promise<Outputs[] | undefined> => {
    const nudged = await options.nudged?.();
    return nudged && (await ranWithout(nudged, feeds, options, stopper(options.signal)));
  };
}

async function runCandidate(
  candidate: ModelSource,
  feeds: readonly Feeds[],
  options: CompareOptions,
  progress: () => void,
  take: (outputs: Outputs, index: number) => void,
): Promise<void> {
  try {
    await runAll(candidate, feeds, options, progress, take);
  } catch (error) {
    if (!(error instanceof OnnxLoraError) || error.code !== 'runtime') throw error;
    throw new OnnxLoraError(
      'verification',
      `the second model does not run on inputs that the first one ran on: ${error.message}`,
      { node: error.node, hint: 'Do not use the second model.', cause: error },
    );
  }
}

async function runAll(
  source: ModelSource,
  feeds: readonly Feeds[],
  { provider }: CompareOptions,
  progress: () => void,
  take: (outputs: Outputs, index: number) => void,
): Promise<void> {
  const session = await openSource(source, provider);
  try {
    for (const [i, batch] of feeds.entries()) {
      take(await session.run(new Map([...batch, ...(source.ownFeeds ?? [])])), i);
      progress();
    }
  } finally {
    await session.release();
  }
}

/** A session of the model. */
export async function openSource(
  source: ModelSource,
  provider: ProviderName | undefined,
): Promise<Session> {
  const form = await formOf(source, provider ?? 'cpu');
  if (form) return openSession(form.bytes, { provider, externalFolder: form.externalFolder });
  if ('path' in source) return openSession(source.path, { provider });
  const { externalFolder } = source;
  return openSession(source.bytes, { provider, externalFolder });
}

/** The form in which a model runs here, if it is another one. */
async function formOf(source: ModelSource, provider: ProviderName) {
  const model = parseSource(source);
  try {
    const externalFolder = folderOf(model);
    const bytes = await runnableForm(model, provider, externalFolder);
    return bytes && { bytes, externalFolder };
  } finally {
    model.close();
  }
}

function progressOf(total: number, { signal, onProgress }: WorkOptions): () => void {
  let done = 0;
  const check = stopper(signal);
  check();
  return () => {
    check();
    done++;
    onProgress?.({ phase: 'verifying', done, total, unit: 'runs' });
  };
}

function stopper(signal: AbortSignal | undefined): () => void {
  return () => {
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted while comparing');
  };
}

function roundingBetween(
  reference: ModelSource,
  candidate: ModelSource,
  outputs: readonly DataTypeName[],
  { tolerance }: CompareOptions,
): Rounding {
  const models: Model[] = [];
  try {
    for (const source of [reference, candidate]) models.push(parseSource(source));
    const [before, after] = models as [Model, Model];
    const byDefault = tolerance ?? defaultTolerance(models, outputs);
    const isGiven = tolerance !== undefined;
    const level = roundingLevel(before, after, outputs);
    return { tolerance: byDefault, isGiven, ...level };
  } finally {
    for (const model of models) model.close();
  }
}

function parseSource(source: ModelSource): Model {
  if ('path' in source) return openModel(source.path);
  const { bytes, externalFolder } = source;
  const path = externalFolder === undefined ? undefined : join(externalFolder, 'model.onnx');
  return parseModel(new MemorySource(bytes, undefined, path));
}
