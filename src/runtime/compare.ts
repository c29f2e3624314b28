/** Do two models compute the same? */
import { OnnxLoraError } from '../errors.js';
import type { Model } from '../onnx/model.js';
import { openModel, parseModel } from '../onnx/parse.js';
import { MemorySource } from '../onnx/source.js';
import type { WorkOptions } from '../onnx/write.js';
import { comparedOutputs, Differences, type OutputDifference, type Outputs } from './difference.js';
import type { ProviderName } from './provider-names.js';
import { openSession, type Session } from './session.js';
import type { Feeds, TensorValue } from './tensor-value.js';
import { defaultTolerance } from './tolerance.js';

/**
 * A model in a file, or its bytes and the folder of its external data; with what to feed to inputs that
 * the other one does not have.
 */
export type ModelSource = (
  | { readonly path: string }
  | { readonly bytes: Uint8Array; readonly externalFolder?: string | undefined }
) & { readonly ownFeeds?: Feeds | undefined };

export interface CompareOptions extends WorkOptions {
  /** Share of the greatest output (of 1 where that is less). Default: see {@link defaultTolerance}. */
  readonly tolerance?: number | undefined;
  /** Default `cpu`. */
  readonly provider?: ProviderName | undefined;
}

/** What a comparison found. */
export interface Verification {
  /** Batches of inputs that both models ran with. */
  readonly samples: number;
  /** Over all outputs, samples and elements; infinite where one model gives NaN and the other not. */
  readonly maxAbsDiff: number;
  /** The same as a share of the greatest element of the reference's output, over all outputs. */
  readonly maxRelDiff: number;
  readonly tolerance: number;
  /** For every output: greatest difference <= tolerance * max(1, greatest element). */
  readonly passed: boolean;
  /** The output that is worst by that measure. */
  readonly output?: string;
}

/**
 * Runs both models on the same inputs, one after the other, so that only one is in memory.
 * Outputs of integers count only where no output is of floats.
 * @param feeds one batch each; see `findWorkingInputs` and `loadSamples`
 * @throws OnnxLoraError `verification` where the outputs cannot be compared (names or shapes
 * differ), `runtime`, `provider`, `aborted`
 */
export async function compareModels(
  reference: ModelSource,
  candidate: ModelSource,
  feeds: readonly Feeds[],
  options: CompareOptions = {},
): Promise<Verification> {
  const progress = progressOf(2 * feeds.length, options);
  const expected: Outputs[] = [];
  await runAll(reference, feeds, options, progress, (outputs) => expected.push(outputs));
  const names = expected[0] ? comparedOutputs(expected[0]) : [];
  const differences = new Differences();
  await runAll(candidate, feeds, options, progress, (outputs, i) => {
    for (const name of names) {
      const value = expected[i]!.get(name)!;
      differences.add(name, value, counterpart(name, value, outputs));
    }
  });
  const tolerance = options.tolerance ?? toleranceFor(reference, candidate, expected[0], names);
  return verdict(feeds.length, differences.outputs, tolerance);
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

function openSource(source: ModelSource, provider: ProviderName | undefined): Promise<Session> {
  if ('path' in source) return openSession(source.path, { provider });
  const { externalFolder } = source;
  return openSession(source.bytes, { provider, externalFolder });
}

function progressOf(total: number, { signal, onProgress }: WorkOptions): () => void {
  let done = 0;
  const check = () => {
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted while comparing');
  };
  check();
  return () => {
    check();
    done++;
    onProgress?.({ phase: 'verifying', done, total, unit: 'runs' });
  };
}

function counterpart(name: string, expected: TensorValue, outputs: Outputs): TensorValue {
  const found = outputs.get(name);
  if (!found) throw incomparable(`the second one has no output ${name}`);
  if (found.dims.join() === expected.dims.join()) return found;
  throw incomparable(
    `output ${name} has shape [${expected.dims.join(', ')}] in the first, [${found.dims.join(', ')}] in the second`,
  );
}

function incomparable(problem: string): OnnxLoraError {
  return new OnnxLoraError('verification', `the models cannot be compared: ${problem}`, {
    hint: 'Are these two versions of the same model?',
  });
}

function toleranceFor(
  reference: ModelSource,
  candidate: ModelSource,
  outputs: Outputs | undefined,
  names: readonly string[],
): number {
  const models: Model[] = [];
  try {
    for (const source of [reference, candidate]) models.push(parseSource(source));
    return defaultTolerance(
      models,
      names.map((name) => outputs!.get(name)!.dtype),
    );
  } finally {
    for (const model of models) model.close();
  }
}

function parseSource(source: ModelSource): Model {
  return 'path' in source ? openModel(source.path) : parseModel(new MemorySource(source.bytes));
}

function verdict(
  samples: number,
  outputs: readonly OutputDifference[],
  tolerance: number,
): Verification {
  // Written so that a NaN anywhere fails.
  const share = ({ maxAbsDiff, magnitude }: OutputDifference) =>
    maxAbsDiff / Math.max(1, magnitude);
  const [worst] = [...outputs].sort((a, b) => share(b) - share(a));
  return {
    samples,
    maxAbsDiff: Math.max(0, ...outputs.map(({ maxAbsDiff }) => maxAbsDiff)),
    maxRelDiff: Math.max(0, ...outputs.map(relative)),
    tolerance,
    passed: outputs.length > 0 && outputs.every((output) => share(output) <= tolerance),
    ...(worst ? { output: worst.name } : {}),
  };
}

function relative({ maxAbsDiff, magnitude }: OutputDifference): number {
  return maxAbsDiff / (magnitude || 1);
}
