import { basename } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import { NameAuthority } from '../graph/names.js';
import { NewDataFile } from '../onnx/data-file.js';
import type { FloatName } from '../onnx/dtype.js';
import { MessageEdit } from '../onnx/edit.js';
import { editedModel } from '../onnx/edited-model.js';
import { ExternalFiles } from '../onnx/external.js';
import { type Model, nodeLabel } from '../onnx/model.js';
import { openModel } from '../onnx/parse.js';
import { setTensorData } from '../onnx/rewrite.js';
import { floatTypeOf, TensorReader } from '../onnx/tensor.js';
import type { WriteOptions } from '../onnx/write.js';
import type { Verification } from '../runtime/compare.js';
import { type BindOptions, checkNoBindOptions } from './binding/bind-options.js';
import { magnitudeOf, readFactors } from './factors/factors.js';
import type { AdapterFile } from './files/adapter-file.js';
import { finiteBytes } from './finite.js';
import type { FoldNorms } from './fold/folded-weight.js';
import { Folding, type FoldKind, type FoldSite } from './fold/folding.js';
import { keepHeadOutputs } from './head-outputs.js';
import { keepLabels } from './labels.js';
import { findLayers } from './layers.js';
import {
  invalidManifest,
  type ModelManifest,
  type PatchedAdapter,
  replaceManifest,
} from './manifest.js';
import { defaultOutput, writeWithData } from './output.js';
import { PatchedModel } from './patched.js';
import { interpolateTensors, originalPlaces, scaleBiases, settleTensors } from './replaced.js';
import type { LinearLayer } from './targets/index.js';
import { removeAdapters } from './unpatch.js';
import type { VerifyOptions } from './verify.js';

export interface MergeOptions extends WriteOptions, VerifyOptions, BindOptions {
  /** Default `<model>.merged.onnx` beside the model. */
  readonly output?: string | undefined;
  /** Folds the adapters of this file instead of those in the model. */
  readonly adapter?: string | undefined;
  /** The adapter set to fold. Default: all. */
  readonly name?: string | undefined;
  /** Multiplies every ΔW, and the difference of every tensor that was replaced. Default 1. */
  readonly scale?: number | undefined;
  /** Run both models and compare. Default true. */
  readonly verify?: boolean | undefined;
}

export interface MergedWeight {
  /** The first node that uses the weight. */
  readonly node: string;
  readonly nodes: readonly string[];
  readonly module: string;
  readonly weight: string;
  readonly kind: FoldKind;
  /** Frobenius norms of ΔW and of the weight before. */
  readonly deltaNorm: number;
  readonly weightNorm: number;
  /**
   * Where the scale is negative: the weight is at most this far (Frobenius) from what it was before the
   * fold that this one undoes.
   */
  readonly undoneWithin?: number;
}

export interface MergeResult {
  readonly output: string;
  readonly merged: readonly MergedWeight[];
  /** Tensors of the model that came with the adapters and took the places of its own. */
  readonly replaced: readonly string[];
  /** What the model has no place for, where that is allowed; with `adapter`. */
  readonly unmatched?: readonly string[];
  readonly verification?: Verification;
}

/**
 * Folds adapters into the weights of the model at `path`: `W + s·A·B`, added up in float64 and
 * rounded once to the weight's type. The result has the base model's graph; only bytes of weights
 * differ, except where a weight had to be split off or dequantized (`kind`). Then runs the model
 * with its adapters and the merged one on the same inputs, unless told not to.
 * @throws OnnxLoraError `no-adapter`, `invalid-adapter`, `adapter-mismatch`, `unsupported`, and
 * those of reading and writing. A failed verification is in the result.
 */
export async function merge(path: string, options: MergeOptions = {}): Promise<MergeResult> {
  const result = await foldAdapters(path, options);
  if (options.verify === false) return result;
  const { verifyMerged } = await import('./references.js');
  const verification = await verifyMerged(path, result.output, options);
  return { ...result, verification };
}

/** The fold alone. */
export async function foldAdapters(path: string, options: MergeOptions = {}): Promise<MergeResult> {
  const { model, name, unmatched } = await openUnmerged(path, options);
  const files = new ExternalFiles(model);
  const output = options.output ?? defaultOutput(path, 'merged');
  const edit = new MessageEdit(model.source, model.range);
  const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
  try {
    const patched = new PatchedModel(model);
    const sets = patched.chosenSets(name);
    const reader = new TensorReader(model, files);
    const context = { model, values: patched.values, reader };
    const leaving = {
      nodes: patched.sites.filter(({ set }) => sets.includes(set)).flatMap(({ nodes }) => nodes),
      places: originalPlaces(patched, sets),
    };
    const folding = new Folding(context, edit, dataFile, new NameAuthority(model), leaving);
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
  } finally {
    files.close();
    model.close();
  }
}

export interface Unmerged {
  readonly model: Model;
  readonly name: string | undefined;
  readonly unmatched?: readonly string[] | undefined;
}

/**
 * The model with what is to be folded beside its weights, scaled as the fold is to be, and the adapter
 * set that it is; undefined for all.
 */
export async function openUnmerged(path: string, options: MergeOptions): Promise<Unmerged> {
  const { adapter, name, scale = 1 } = options;
  if (adapter !== undefined && name !== undefined) {
    throw new OnnxLoraError(
      'invalid-argument',
      'merge folds the adapters of a file (--adapter) or a set of the model (--name), not both',
    );
  }
  if (!Number.isFinite(Math.fround(scale))) {
    const problem = `scale is ${scale}, expected a finite number that float32 holds, up to 3.4e38`;
    throw new OnnxLoraError('invalid-argument', problem);
  }
  if (adapter === undefined) checkNoBindOptions(options);
  let model = openModel(path);
  try {
    let unmerged: Unmerged = { model, name };
    if (adapter !== undefined) {
      const { withoutSlots } = await import('./slots/remove.js');
      model = await withoutSlots(model);
      unmerged = await withAdapters(model, adapter, options);
    }
    ({ model } = unmerged);
    if (scale !== 1) model = await rescaled(model, unmerged.name, scale);
    return { ...unmerged, model };
  } catch (error) {
    model.close();
    throw error;
  }
}

/** The model with the adapters of a file, and the name of their set. */
async function withAdapters(model: Model, path: string, options: MergeOptions): Promise<Unmerged> {
  const { insertFile } = await import('./apply.js');
  const { openAdapter } = await import('./files/open-adapter.js');
  const file = openAdapter(path);
  try {
    if ((options.scale ?? 1) < 0) checkUndoable(file);
    const patched = new PatchedModel(model);
    const name = unusedSet(patched, file.set);
    const { edit, unmatched } = insertFile(patched, file, name, options);
    return { model: await editedModel(model, edit), name, unmatched };
  } finally {
    file.close();
  }
}

/** A negative scale takes back what was folded: that can be done for sums alone. */
function checkUndoable({ path, extras, parameters = [] }: AdapterFile): void {
  const { head, tensors = [] } = extras;
  const replaced = [
    ...tensors.map(({ name }) => name),
    ...parameters.flatMap(({ change, module }) => (change === 'replace' ? [module] : [])),
  ];
  if (!head && replaced.length === 0) return;
  const what = head ? 'a head' : `new numbers of ${replaced[0]}`;
  throw new OnnxLoraError(
    'unsupported',
    `${path} holds ${what}, and not what was in the model before: a fold of it cannot be undone`,
    { hint: 'Go back to the model that it was folded into.' },
  );
}

/** The model with other scales of its adapters, and other shares of the tensors they replace. */
export async function rescaled(
  model: Model,
  name: string | undefined,
  factor: number,
): Promise<Model> {
  const patched = new PatchedModel(model);
  const edit = new MessageEdit(model.source, model.range);
  const files = new ExternalFiles(model);
  try {
    const sets = patched.chosenSets(name);
    for (const set of sets) rescale(patched, set, edit, factor);
    const reader = new TensorReader(model, files);
    interpolateTensors(patched, sets, edit, reader, factor);
    scaleBiases(patched, sets, edit, reader, factor);
    return await editedModel(model, edit);
  } finally {
    files.close();
  }
}

function rescale(
  patched: PatchedModel,
  set: ModelManifest,
  edit: MessageEdit,
  factor: number,
): void {
  const { model } = patched;
  const dora = set.adapters.find(({ magnitude }) => magnitude !== undefined);
  if (dora) throw notScalable(model, dora);
  const adapters = set.adapters.map((one) => ({ ...one, scale: one.scale * factor }));
  for (const { scale, scaleTensor } of adapters) {
    const tensor = patched.initializer(scaleTensor);
    const dtype = floatTypeOf(tensor, model);
    const bytes = finiteBytes(
      dtype,
      Float64Array.of(scale),
      `with --scale ${factor}, ${scaleTensor}`,
    );
    const data = { length: bytes.length, chunks: () => [bytes] };
    setTensorData(edit, { tensor, graph: model.graph }, data);
  }
  replaceManifest(edit, model, { ...set, adapters });
}

function notScalable({ source }: Model, { name, sites }: PatchedAdapter): OnnxLoraError {
  const node = sites[0]!.node;
  return new OnnxLoraError(
    'unsupported',
    `${source.label}: the adapter ${name} is DoRA, which brings columns to a length and is no sum that could be scaled`,
    { node, hint: 'Merge without --scale.' },
  );
}

function unusedSet({ sets }: PatchedModel, wanted: string): string {
  let name = wanted;
  while (sets.some(({ set }) => set === name)) name += '_';
  return name;
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
    ...(isUndoing ? { undoneWithin: undoneWithin(norms, type) } : {}),
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
    if (!found || weight?.in !== adapter.in || weight.out !== adapter.out) {
      const problem = `${nodeLabel(target)} is no layer of ${adapter.in} to ${adapter.out} features`;
      throw invalidManifest(model.source.label, problem);
    }
    const site = sites.get(target) ?? { ...found, deltas: [] };
    site.deltas.push({
      id: `${set.set}/${adapter.name}`,
      record: adapter,
      factors: () => readFactors(patched, reader, adapter),
      magnitude: magnitudeOf(patched, reader, adapter),
    });
    sites.set(target, site);
  }
  return [...sites.values()];
}
