/** One adapter set of several. */

import { setImmediate } from 'node:timers/promises';
import { type Combination, combineLayer } from '../adapters/combine/combine-layer.js';
import {
  type CombinedLayer,
  checkKinds,
  checkSummable,
  combinedLayers,
} from '../adapters/combine/layers.js';
import {
  type AdapterContents,
  contentsOfFile,
  type OutgoingAdapter,
} from '../adapters/files/adapter-contents.js';
import type { AdapterFile } from '../adapters/files/adapter-file.js';
import {
  type AdapterOutput,
  checkAdapterOutput,
  filesOf,
  writeAdapters,
} from '../adapters/files/adapter-output.js';
import { openAdapter } from '../adapters/files/open-adapter.js';
import { storedPieces } from '../adapters/files/stored-pieces.js';
import type { CombineMethod } from '../adapters/structure/choices.js';
import type { StructureName } from '../adapters/structure/structure.js';
import { OnnxLoraError } from '../errors.js';
import type { WorkOptions } from '../onnx/write.js';
import { resolveOptions } from '../options/resolve.js';
import { type CombineOptions, combineOptions } from './options/combine.js';

export { type CombineMethod, combineMethods } from '../adapters/structure/choices.js';
export type { CombineOptions };

/** The combination of a layer's adapters. */
export interface CombinedAdapter {
  /** Name of the adapter. */
  readonly name: string;
  /** Which of the sets adapt the layer, counted from 0. */
  readonly inputs: readonly number[];
  /** The structure: how the weight is divided into blocks. */
  readonly structure: StructureName;
  /** Blocks along the inputs and along the outputs. */
  readonly grid: readonly [number, number];
  /** R, the LoRA-equivalent rank. */
  readonly rank: number;
  /** |ΔW wanted - ΔW written| / |ΔW wanted|, before rounding to float32. */
  readonly error: number;
}

/** The result of `combine`. */
export interface CombineResult extends AdapterOutput {
  /** Name of the new adapter set. */
  readonly set: string;
  /** The way the sets were combined. */
  readonly method: CombineMethod;
  /** The factor of each set. */
  readonly weights: readonly number[];
  /** One for each layer. */
  readonly adapters: readonly CombinedAdapter[];
}

/**
 * Combines adapter sets of one model, of any format, to one.
 * @throws OnnxLoraError `invalid-argument`, `adapter-mismatch`, `unsupported`, and those of reading and
 * writing
 * @example
 * ```ts
 * import { combine } from 'onnx-lora';
 *
 * const { adapters } = await combine(['german.safetensors', 'formal.safetensors'], {
 *   weights: [0.7, 0.3],
 *   method: 'svd',
 *   rank: 8,
 *   output: 'both.safetensors',
 * });
 * console.log(Math.max(...adapters.map(({ error }) => error)));
 * ```
 */
export async function combine(
  paths: readonly string[],
  given: CombineOptions,
): Promise<CombineResult> {
  const options = resolveOptions(combineOptions, given, 'combine');
  const { method, weights = paths.map(() => 1) } = options;
  checkCounts(paths, weights);
  checkDensity(options);
  const files: AdapterFile[] = [];
  const inputs = paths.flatMap(filesOf);
  try {
    for (const path of paths) files.push(openAdapter(path));
    checkAdapterOutput(options, inputs);
    const sets = files.map(contentsOfFile);
    const isCopy = method === 'linear' && weights.every((weight) => weight === 1) && !sets[1];
    if (!isCopy) {
      sets.forEach(checkSummable);
      checkKinds(sets, method);
    }
    const layers = combinedLayers(sets, weights);
    const made: Combination[] = [];
    for (const layer of layers) {
      await nextLayer(layer, made.length, layers.length, options);
      made.push(await combineLayer(layer, method, options));
    }
    const contents: AdapterContents = {
      ...{ label: paths.join(' + '), set: options.name ?? (isCopy ? sets[0]!.set : 'combined') },
      adapters: made.map(({ adapter }, i) => named(adapter, layers[i]!.name)),
      trained: isCopy ? sets[0]!.trained : [],
      hasHead: isCopy && sets[0]!.hasHead,
    };
    const written = await writeAdapters(contents, () => storedPieces(contents), inputs, options);
    const adapters = layers.map((layer, i) => describe(layer, made[i]!));
    return { ...written, set: contents.set, method, weights, adapters };
  } finally {
    for (const file of files) file.close();
  }
}

function checkCounts(paths: readonly string[], weights: readonly number[]): void {
  if (paths.length === 0) throw invalid('there is no adapter set to combine');
  if (weights.length === paths.length) return;
  throw invalid(`${weights.length} weights for ${paths.length} adapter sets, expected one each`);
}

function checkDensity({ method, density }: CombineOptions): void {
  if (density !== undefined || (method !== 'ties' && method !== 'dare')) return;
  const hint = 'For example 0.2 for ties, 0.5 for dare.';
  throw invalid(`\`density\` is missing: the share of each change that ${method} keeps`, hint);
}

function invalid(problem: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', problem, { hint });
}

/** A set may begin its paths in another way than those before it. */
function named(adapter: OutgoingAdapter, name: string): OutgoingAdapter {
  return { ...adapter, record: { ...adapter.record, name } };
}

function describe(
  { name, parts }: CombinedLayer,
  { adapter, error }: Combination,
): CombinedAdapter {
  const { structure, grid, rank } = adapter.record;
  return { name, inputs: parts.map(({ input }) => input), structure, grid, rank, error };
}

/** Signals get their turn, for the arithmetic blocks the thread. */
async function nextLayer(
  { name }: CombinedLayer,
  done: number,
  total: number,
  { signal, onProgress }: WorkOptions,
): Promise<void> {
  onProgress?.({ phase: 'combining', done, total, unit: 'weights', detail: name });
  await setImmediate();
  if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted; nothing was written');
}
