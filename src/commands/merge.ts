import { basename } from 'node:path';
import { originalPlaces, originalsOf, settleTensors } from '../adapters/edit/replaced.js';
import { readFactors } from '../adapters/factors/factors.js';
import type { FoldNorms } from '../adapters/fold/folded-weight.js';
import { Folding, type FoldKind, type FoldSite } from '../adapters/fold/folding.js';
import { kindOf } from '../adapters/kinds/index.js';
import { ownNumbers } from '../adapters/kinds/tensors.js';
import { keepHeadOutputs } from '../adapters/model/head-outputs.js';
import { keepLabels } from '../adapters/model/labels.js';
import { findLayers } from '../adapters/model/layers.js';
import { invalidManifest, type ModelManifest } from '../adapters/model/manifest.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { layerColumns } from '../adapters/structure/structure.js';
import type { LinearLayer } from '../adapters/targets/index.js';
import { NameAuthority } from '../graph/names.js';
import { NewDataFile } from '../onnx/data-file.js';
import type { FloatName } from '../onnx/dtype.js';
import { MessageEdit } from '../onnx/edit.js';
import { nodeLabel } from '../onnx/model.js';
import type { TensorReader } from '../onnx/tensor.js';
import { resolveOptions } from '../options/resolve.js';
import type { Verification } from '../runtime/verification.js';
import { onModel } from './model-folder.js';
import { mergeOptions } from './options/merge.js';
import { defaultOutput, writeWithData } from './output.js';
import { type MergeOptions, type Unmerged, withUnmerged } from './unmerged.js';
import { removeAdapters } from './unpatch.js';

/** A weight that adapters were folded into. */
export interface MergedWeight {
  /** The first node that uses the weight. */
  readonly node: string;
  /** The nodes that read it. */
  readonly nodes: readonly string[];
  /** Path of the module. */
  readonly module: string;
  /** Name of the tensor. */
  readonly weight: string;
  /** The way it was folded. */
  readonly kind: FoldKind;
  /** Frobenius norms of ΔW and of the weight before. */
  readonly deltaNorm: number;
  /** |W| before, the Frobenius norm. */
  readonly weightNorm: number;
  /**
   * |Q(W + ΔW) - W - ΔW| / |ΔW| of a sum that is rounded to integers again: 0 if all of ΔW survived, 1 if
   * as much was lost as was added.
   */
  readonly lost?: number;
  /**
   * If the scale is negative: the weight is at most this far (Frobenius) from what it was before the
   * fold that this one undoes.
   */
  readonly undoneWithin?: number;
}

/** The result of `merge`. */
export interface MergeResult {
  /** Path of the folded model. */
  readonly output: string;
  /** One for each weight. */
  readonly merged: readonly MergedWeight[];
  /** Tensors of the model that came with the adapters and took the places of its own. */
  readonly replaced: readonly string[];
  /** Names that the model has no place for, where that is allowed; with `adapter`. */
  readonly unmatched?: readonly string[];
  /** The comparison with the model before, unless that was left out. */
  readonly verification?: Verification;
}

/**
 * Folds adapters into the weights of the model at `path`: `W + s·A·B`, added up in float64 and
 * rounded once to the weight's type. The result has the base model's graph; only bytes of weights
 * differ, except where a weight had to be split off or dequantized (`kind`). Then runs the model
 * with its adapters and the merged one on the same inputs, unless told not to.
 * @throws OnnxLoraError `no-adapter`, `invalid-adapter`, `adapter-mismatch`, `unsupported`, and
 * those of reading and writing. A failed verification is in the result.
 * @example
 * ```ts
 * import { merge } from 'onnx-lora';
 *
 * const { output, verification } = await merge('model.lora.onnx');
 * if (!verification?.passed) throw new Error(`${output}: ${verification?.reason}`);
 * ```
 */
export async function merge(path: string, given: MergeOptions = {}): Promise<MergeResult> {
  const options = resolveOptions(mergeOptions, given, 'merge');
  return await onModel(path, options, 'merged', ({ file }, options) => mergeFile(file, options));
}

async function mergeFile(path: string, options: MergeOptions): Promise<MergeResult> {
  return await withUnmerged(path, options, async (unmerged) => {
    const result = await fold(unmerged, path, options);
    if (options.verify === false) return result;
    const { verifyMerged } = await import('./references.js');
    const lost = lostShare(result.merged);
    const verification = await verifyMerged(unmerged, path, result.output, { ...options, lost });
    return { ...result, verification };
  });
}

/**
 * The change by rounding folded weights to integers again, as a share of the outputs: every such layer is off by
 * e = |Q(W + ΔW) - W - ΔW| of its weight's norm, in directions that have nothing to do with each other, so that
 * the errors of L layers add up like their squares: √(Σ e²).
 */
function lostShare(merged: readonly MergedWeight[]): number {
  const shares = merged.map(({ lost = 0, deltaNorm, weightNorm }) =>
    weightNorm > 0 ? (lost * deltaNorm) / weightNorm : 0,
  );
  return Math.hypot(...shares);
}

/** The fold alone, which makes floats of quantized weights where nothing else is said. */
export async function foldAdapters(path: string, options: MergeOptions = {}): Promise<MergeResult> {
  return await withUnmerged(path, options, (unmerged) => fold(unmerged, path, options));
}

async function fold(
  { opened, name, unmatched }: Unmerged,
  path: string,
  options: MergeOptions,
): Promise<MergeResult> {
  const { model, files, patched, reader } = opened;
  const output = options.output ?? defaultOutput(path, 'merged');
  const edit = new MessageEdit(model.source, model.range);
  const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
  const sets = patched.chosenSets(name);
  const context = { model, values: patched.values, reader };
  const leaving = {
    nodes: patched.sites.filter(({ set }) => sets.includes(set)).flatMap(({ nodes }) => nodes),
    places: originalPlaces(patched, sets),
    originals: originalsOf(patched, sets),
  };
  const { quantized = 'dequantize' } = options;
  const names = new NameAuthority(model);
  const folding = new Folding(context, edit, dataFile, names, leaving, quantized);
  removeAdapters(patched, sets, edit);
  keepLabels(edit, model, sets);
  keepHeadOutputs(edit, model, sets);
  folding.plan(sitesOf(patched, sets, reader));
  const added = sets.flatMap(({ biases = [] }) => biases.map(({ tensor }) => tensor));
  const replaced = [...settleTensors(patched, sets, edit, reader, folding), ...added];
  const naming = sets.length === patched.sets.length ? 'forget' : 'remember';
  await writeWithData(model, edit, output, options, dataFile, naming);
  const isUndoing = (options.scale ?? 1) < 0;
  const merged = folding.folded.map((one) => describe(one, isUndoing));
  return { output, merged, replaced, ...(unmatched ? { unmatched } : {}) };
}

function describe(
  { sites, weight, kind, norms }: Folding['folded'][number],
  isUndoing: boolean,
): MergedWeight {
  const nodes = sites.map(({ layer }) => nodeLabel(layer.node));
  const { module, layer } = sites[0]!;
  const { storedDtype, dtype } = layer.weight;
  const type = kind === 'dequantized' ? dtype : (storedDtype as FloatName);
  return {
    node: nodes[0]!,
    nodes,
    module,
    weight,
    kind,
    deltaNorm: norms.delta,
    weightNorm: norms.weight,
    ...(norms.lost === undefined ? {} : { lost: norms.delta > 0 ? norms.lost / norms.delta : 0 }),
    ...(isUndoing && norms.lost === undefined ? { undoneWithin: undoneWithin(norms, type) } : {}),
  };
}

/** Half the distance from 1 to the next number: rounding moves a number by at most this share of it. */
const ROUNDOFF: Readonly<Record<FloatName, number>> = {
  bfloat16: 2 ** -8,
  float16: 2 ** -11,
  float32: 2 ** -24,
  float64: 2 ** -53,
};

/** Two roundings: of W + ΔW, the weight now, when it was folded, and of W, at most |W + ΔW| + |ΔW|. */
function undoneWithin({ weight, delta }: FoldNorms, dtype: FloatName): number {
  return ROUNDOFF[dtype] * (weight + (weight + delta));
}

/** Every adapted layer of the model with the adapters to fold. */
function sitesOf(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  reader: TensorReader,
): FoldSite[] {
  const { model } = patched;
  const layers = new Map<unknown, { layer: LinearLayer; module: string }>();
  for (const { linear, module } of findLayers(patched)) {
    for (const layer of linear) layers.set(layer.node, { layer, module });
  }
  const sites = new Map<unknown, FoldSite & { deltas: FoldSite['deltas'][number][] }>();
  for (const { set, adapter, target } of patched.sites) {
    if (!sets.includes(set)) continue;
    const found = layers.get(target);
    const { weight } = found?.layer ?? {};
    if (!found || weight?.in !== adapter.in || weight.out !== layerColumns(adapter)) {
      const problem = `${nodeLabel(target)} is not a layer of ${adapter.in} to ${layerColumns(adapter)} features`;
      throw invalidManifest(model.source.label, problem);
    }
    const site = sites.get(target) ?? { ...found, deltas: [] };
    site.deltas.push({
      id: `${set.set}/${adapter.name}`,
      record: adapter,
      factors: () => readFactors(patched, reader, adapter),
      own: ownNumbers(patched, reader, adapter),
      fold: kindOf(adapter).fold,
    });
    sites.set(target, site);
  }
  return [...sites.values()];
}
