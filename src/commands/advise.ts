/** Which structure, grid and rank each layer of a model should get, and how sure that is. */

import type { Layer } from '../adapters/model/layers.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import type { StructureName } from '../adapters/structure/structure.js';
import type { Selection } from '../adapters/targets/select.js';
import { type AdvisedLayer, adviseLayers } from '../fitting/advise/advise-layers.js';
import type { Verdict } from '../fitting/advise/choice.js';
import {
  gradientEvidence,
  type LayerEvidence,
  tunedEvidence,
  weightEvidence,
} from '../fitting/advise/evidence.js';
import type { PatchAdvice } from '../fitting/advise/patch-options.js';
import type { Grid } from '../fitting/fit/candidates.js';
import { checkWithoutAdapters } from '../fitting/fit/without-adapters.js';
import { checkOutput, writeFiles } from '../onnx/write.js';
import type { ResolvedOf } from '../options/option.js';
import { resolveOptions } from '../options/resolve.js';
import type { GuardReport } from '../training/guard/guard.js';
import type { GuardListener } from '../training/weight-gradients.js';
import { apart, runsApart } from './apart.js';
import { chooseLayers, type Skipped } from './chosen-layers.js';
import { filesOfModel, inputFiles, inputsOf } from './inputs.js';
import { type AdviseOptions, adviseOptions } from './options/advise.js';

export type { AdviseOptions };

type Options = ResolvedOf<typeof adviseOptions>;

/** The evidence that advice is based on, the best first. */
export type Basis = 'tuned' | 'gradient' | 'weights';

/** The share of a layer's matrix that one structure captures. */
export interface AdvisedScore {
  /** The structure: how the weight is divided into blocks. */
  readonly structure: StructureName;
  /** K, the most blocks along a dimension. */
  readonly blocks: number;
  /** Blocks along the inputs and along the outputs. */
  readonly grid: readonly [number, number];
  /** Numbers in such an adapter. */
  readonly parameters: number;
  /** |matrix - fit| / |matrix|; with `heldOut` of fits to the other half of the data. */
  readonly error: number;
  /** The share of |matrix|² that is captured: 1 - error². */
  readonly share: number;
  /** The shares in both halves of the data. */
  readonly heldOut?: readonly [number, number];
}

/** The advice on one layer. */
export interface AdvisedTarget {
  /** Path of the module. */
  readonly module: string;
  /** The nodes that read the weight. */
  readonly nodes: readonly string[];
  /** The weight's [in, out]. */
  readonly shape: readonly [number, number];
  /** The norm of the matrix that the advice is about. */
  readonly norm: number;
  /** R, at which structures are compared. */
  readonly rank: number;
  /** One for each structure that was tried. */
  readonly scores: readonly AdvisedScore[];
  /** The cosine between the gradients on two halves of the data. */
  readonly agreement?: number;
  /** The structure that the layer should get. */
  readonly choice: AdvisedChoice;
}

/** A structure that came out best. */
export interface AdvisedStructure extends Grid {
  /** The clarity of the choice. */
  readonly verdict: Verdict;
  /** The best of another structure, which the verdict compares with. */
  readonly runnerUp?: Grid;
}

/** The structure that a layer should get. */
export interface AdvisedChoice extends AdvisedStructure {
  /** 0 for a layer that is to get no adapter. */
  readonly rank: number;
  /** Numbers in the adapter. */
  readonly parameters: number;
}

/** The advice on a model. */
export interface AdviseResult {
  /** Path of the model. */
  readonly model: string;
  /** The evidence that the advice is based on. */
  readonly basis: Basis;
  /** The choice for most layers. */
  readonly overall: AdvisedStructure;
  /** One for each chosen layer. */
  readonly layers: readonly AdvisedTarget[];
  /** Nodes that were chosen and take no adapter, and why. */
  readonly skipped: readonly Skipped[];
  /** Of all adapters together. */
  readonly parameters: number;
  /** The options of `patch` that follow. */
  readonly patch: PatchAdvice;
  /** The comparison of the graph of the gradients with the file; with `data`. */
  readonly guard?: GuardReport;
  /** Path of the file with the options, where one was asked for. */
  readonly config?: string;
}

/**
 * Measures, for each linear layer of the model at `path`, how well every structure says what is known
 * of the layer's change, at equal parameters: with `tuned` the change itself, with `data` the gradient,
 * else the weight, which is little to go by.
 * @throws OnnxLoraError `invalid-argument`, `no-target`, `no-match`, `invalid-data`, `model-mismatch`,
 * `unsupported`, `verification` where the guard finds another model, and those of reading and writing
 * @example
 * ```ts
 * import { advise, patch } from 'onnx-lora';
 *
 * const advice = await advise('model.onnx', { data: 'train.safetensors', loss: 'cross-entropy' });
 * for (const { module, choice } of advice.layers) {
 *   console.log(module, choice.structure, choice.verdict);
 * }
 * await patch('model.onnx', advice.patch);
 * ```
 */
export async function advise(path: string, given: AdviseOptions = {}): Promise<AdviseResult> {
  const options = resolveOptions(adviseOptions, given, 'advise');
  if (options.data === undefined || !runsApart(path)) return await adviseHere(path, options);
  return await apart({
    work: 'advise',
    paths: [path],
    options,
    label: `the run of ${path}`,
    advice: () => 'Then ask for advice again.',
    stop: 'ask',
  });
}

/** As `advise`, in this process. */
export async function adviseHere(path: string, options: Options): Promise<AdviseResult> {
  const { rank, budget, seed, signal, onProgress, tuned, writeConfig } = options;
  return await withModel(path, async (opened) => {
    checkWithoutAdapters(opened);
    const read = [
      ...inputFiles(opened.model),
      ...inputsOf(options),
      ...(tuned === undefined ? [] : filesOfModel(tuned)),
    ];
    if (writeConfig !== undefined) checkOutput(writeConfig, read, options.force, 'writeConfig');
    const { layers, skipped } = chooseLayers(opened.patched, options);
    const selection = selectionOf(options);
    const found: { guard?: GuardReport } = {};
    const onGuard = (guard: GuardReport) => Object.assign(found, { guard });
    const { basis, evidence } = evidenceFor(opened, layers, { ...options, onGuard });
    const work = { signal, onProgress };
    const how = { ...work, rank, rankOf: () => rank, budget, seed, selection };
    const advice = await adviseLayers(layers, evidence, how);
    const refused = advice.refused.map(({ layer, refusal }) => ({
      node: layer.nodeNames[0]!,
      reason: refusal,
    }));
    const result = {
      ...{ model: path, basis, overall: withoutUndefined(advice.overall) },
      layers: advice.layers.map(targetOf),
      skipped: [...skipped, ...refused],
      parameters: advice.layers.reduce((sum, { choice }) => sum + choice.parameters, 0),
      patch: advice.patch,
      ...found,
    };
    if (writeConfig === undefined) return result;
    const pieces = [Buffer.from(`${JSON.stringify(advice.patch, null, 2)}\n`)];
    await writeFiles([{ path: writeConfig, pieces }], read, options);
    return { ...result, config: writeConfig };
  });
}

function selectionOf({ targets, exclude, layers }: Selection): Selection {
  return { targets, exclude, layers };
}

function evidenceFor(
  opened: OpenedModel,
  layers: readonly Layer[],
  options: Options & GuardListener,
): { basis: Basis; evidence: AsyncIterable<LayerEvidence> } {
  const { tuned, data, loss } = options;
  const { patched, reader } = opened;
  if (tuned !== undefined) {
    const evidence = tunedEvidence(opened, tuned, layers, selectionOf(options), options);
    return { basis: 'tuned', evidence };
  }
  if (data === undefined || loss === undefined) {
    return { basis: 'weights', evidence: weightEvidence(reader, layers, options) };
  }
  const evidence = gradientEvidence(patched, reader, layers, { ...options, data, loss });
  return { basis: 'gradient', evidence };
}

function targetOf({ layer, energy, rank, scores, agreement, choice }: AdvisedLayer): AdvisedTarget {
  const { weight } = layer.linear[0]!;
  return {
    module: layer.module,
    nodes: layer.nodeNames,
    shape: [weight.in, weight.out],
    norm: Math.sqrt(energy),
    rank,
    scores: scores.map(({ plan, ...score }) => ({ ...score, grid: plan.grid })),
    ...(agreement === undefined ? {} : { agreement }),
    choice: { ...withoutUndefined(choice), rank: choice.rank, parameters: choice.parameters },
  };
}

function withoutUndefined({
  structure,
  blocks,
  verdict,
  runnerUp,
}: Pick<AdvisedLayer['choice'], 'structure' | 'blocks' | 'verdict' | 'runnerUp'>) {
  return { structure, blocks, verdict, ...(runnerUp ? { runnerUp } : {}) };
}
