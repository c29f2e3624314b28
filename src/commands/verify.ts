/** Proof that two models compute the same: both are run on the same inputs. */
import { withModel } from '../adapters/model/opened.js';
import type { Model } from '../onnx/model.js';
import { type WorkOptions, workOptions } from '../onnx/write-options.js';
import { DEFAULT_SEED } from '../options/common.js';
import type { OptionsOf } from '../options/option.js';
import { pickOptions, resolveOptions } from '../options/resolve.js';
import {
  adapterRuns,
  compareModels,
  compareOptions,
  type ModelSource,
  openSource,
} from '../runtime/compare.js';
import { loadSamples } from '../runtime/load-samples.js';
import { CHECK_PROVIDER } from '../runtime/options.js';
import type { ProviderName } from '../runtime/provider-names.js';
import { resolveProvider } from '../runtime/providers.js';
import { findWorkingInputs } from '../runtime/samples.js';
import type { Feeds } from '../runtime/tensor-value.js';
import type { Verification } from '../runtime/verification.js';
import { checkOptions, toleranceOption, type VerifyOptions } from './options/check.js';

export type { VerifyOptions };

/** The change by the adapters of the two models, and how their rounding may be known. */
export interface AdapterRuns extends OptionsOf<typeof adapterRuns> {}

const verifyOptions = { ...checkOptions, ...toleranceOption, ...workOptions, ...adapterRuns };

/**
 * Runs `reference` and `candidate` and compares their outputs.
 * @param path the file of the reference, or of the model that it was made of
 * @throws OnnxLoraError `invalid-argument` naming the option; `verification` where no inputs can be made, `runtime`, `provider`
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
  const checked = resolveOptions(verifyOptions, options, 'verifyModels');
  return await withModel(path, ({ model }) => verifyOn(model, reference, candidate, checked));
}

/** As {@link verifyModels}, for a model that is open; other options of a command may be among them. */
export async function verifyOn(
  model: Model,
  reference: ModelSource,
  candidate: ModelSource,
  options: VerifyOptions & WorkOptions & AdapterRuns,
): Promise<Verification> {
  const provider = (await resolveProvider(options.provider ?? CHECK_PROVIDER)).used;
  const feeds = await inputsFor(model, reference, provider, options);
  const how = pickOptions(compareOptions, { ...options, provider });
  return compareModels(reference, candidate, feeds, how);
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
    return await findWorkingInputs(
      session,
      model,
      options.seed ?? DEFAULT_SEED,
      RANDOM_BATCHES,
      options,
    );
  } finally {
    await session.release();
  }
}
