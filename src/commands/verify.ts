/** Proof that two models compute the same: both are run on the same inputs. */
import { withModel } from '../adapters/model/opened.js';
import { OnnxLoraError } from '../errors.js';
import type { Model } from '../onnx/model.js';
import type { WorkOptions } from '../onnx/write.js';
import {
  type CompareOptions,
  compareModels,
  type ModelSource,
  openSource,
} from '../runtime/compare.js';
import { loadSamples } from '../runtime/load-samples.js';
import type { ProviderName } from '../runtime/provider-names.js';
import { resolveProvider } from '../runtime/providers.js';
import { findWorkingInputs } from '../runtime/samples.js';
import type { Feeds } from '../runtime/tensor-value.js';
import type { Verification } from '../runtime/verification.js';
import type { VerifyOptions } from './options/check.js';

export type { VerifyOptions };

/** The change by the adapters of the two models, and how their rounding may be known. */
export type AdapterRuns = Pick<CompareOptions, 'base' | 'nudged'>;

/**
 * Runs `reference` and `candidate` and compares their outputs.
 * @param path the file of the reference, or of the model that it was made of
 * @throws OnnxLoraError `verification` where no inputs can be made, `runtime`, `provider`
 * @example
 * ```ts
 * import { verifyModels } from 'onnx-lora';
 *
 * const reference = { path: 'model.lora.onnx' };
 * const candidate = { path: 'model.tuned.onnx' };
 * const { passed, maxRelDiff } = await verifyModels(reference.path, reference, candidate, {});
 * console.log(passed, maxRelDiff);
 * ```
 */
export async function verifyModels(
  path: string,
  reference: ModelSource,
  candidate: ModelSource,
  options: VerifyOptions & WorkOptions & AdapterRuns,
): Promise<Verification> {
  return await withModel(path, ({ model }) => verifyOn(model, reference, candidate, options));
}

/** As {@link verifyModels}, for a model that is open. */
export async function verifyOn(
  model: Model,
  reference: ModelSource,
  candidate: ModelSource,
  options: VerifyOptions & WorkOptions & AdapterRuns,
): Promise<Verification> {
  const { tolerance } = options;
  if (tolerance !== undefined && !(tolerance >= 0 && tolerance < Number.POSITIVE_INFINITY)) {
    const problem = `tolerance is ${tolerance}, expected a share of 0 or more`;
    throw new OnnxLoraError('invalid-argument', problem);
  }
  const provider = (await resolveProvider(options.provider ?? 'cpu')).used;
  const feeds = await inputsFor(model, reference, provider, options);
  return compareModels(reference, candidate, feeds, { ...options, provider });
}

const RANDOM_BATCHES = 3;

async function inputsFor(
  model: Model,
  reference: ModelSource,
  provider: ProviderName,
  options: VerifyOptions & WorkOptions,
): Promise<Feeds[]> {
  const session = await openSource(reference, provider);
  try {
    if (options.samples !== undefined) return [loadSamples(options.samples, session.inputs)];
    return await findWorkingInputs(session, model, options.seed ?? 0, RANDOM_BATCHES, options);
  } finally {
    await session.release();
  }
}
