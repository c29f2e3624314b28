import { basename, dirname, join } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import { NameAuthority } from '../graph/names.js';
import { NewDataFile } from '../onnx/data-file.js';
import { fromFloat64 } from '../onnx/dtype.js';
import { collect, MessageEdit } from '../onnx/edit.js';
import { ExternalFiles } from '../onnx/external.js';
import { nodeLabel } from '../onnx/model.js';
import { openModel } from '../onnx/parse.js';
import { setTensorData } from '../onnx/rewrite.js';
import { floatTypeOf, TensorReader } from '../onnx/tensor.js';
import type { WriteOptions } from '../onnx/write.js';
import type { ModelSource, Verification } from '../runtime/compare.js';
import { type AdapterFile, openAdapterFile } from './adapter-file.js';
import { bindAdapters } from './bind.js';
import { readFactors } from './factors.js';
import { Folding, type FoldKind, type FoldSite } from './fold/folding.js';
import { factorsOf, insertAdapters, type NewAdapter } from './insert.js';
import { findLayers } from './layers.js';
import { invalidManifest, type ModelManifest } from './manifest.js';
import { defaultOutput, writeModel } from './output.js';
import { PatchedModel } from './patched.js';
import type { LinearLayer } from './targets/index.js';
import { removeAdapters } from './unpatch.js';
import { type VerifyOptions, verifyModels } from './verify.js';

export interface MergeOptions extends WriteOptions, VerifyOptions {
  /** Default `<model>.merged.onnx` beside the model. */
  readonly output?: string | undefined;
  /** Folds the adapters of this file instead of those in the model. */
  readonly adapter?: string | undefined;
  /** The adapter set to fold. Default: all. */
  readonly name?: string | undefined;
  /** Multiplies every ΔW. Default 1. */
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
}

export interface MergeResult {
  readonly output: string;
  readonly merged: readonly MergedWeight[];
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
  const reference = await unmergedModel(path, options);
  const verification = await verifyModels(path, reference, { path: result.output }, options);
  return { ...result, verification };
}

/** The fold alone. */
export async function foldAdapters(path: string, options: MergeOptions = {}): Promise<MergeResult> {
  if (options.adapter !== undefined && options.name !== undefined) {
    throw new OnnxLoraError(
      'invalid-argument',
      'merge folds the adapters of a file (--adapter) or a set of the model (--name), not both',
    );
  }
  const model = openModel(path);
  const files = new ExternalFiles(model);
  const output = options.output ?? defaultOutput(path, 'merged');
  const edit = new MessageEdit(model.source, model.range);
  const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
  let file: AdapterFile | undefined;
  let folding: Folding | undefined;
  try {
    if (options.adapter !== undefined) file = openFoldable(options.adapter);
    const patched = new PatchedModel(model);
    const reader = new TensorReader(model, files);
    const context = { model, values: patched.values, reader };
    folding = new Folding(context, edit, dataFile, new NameAuthority(model), options.scale ?? 1);
    if (file) folding.plan(sitesOfFile(bindAdapters(patched, file)));
    else {
      const sets = patched.chosenSets(options.name);
      removeAdapters(patched, sets, edit);
      folding.plan(sitesOfModel(patched, sets, reader));
    }
    const touched = dataFile.touched();
    const pieces = dataFile.isEmpty ? undefined : dataFile.finish(edit);
    const data = pieces ? [{ path: join(dirname(output), dataFile.location), pieces }] : [];
    await writeModel(model, edit, output, options, data, touched);
    return { output, merged: folding.folded.map(describe) };
  } finally {
    await folding?.release();
    file?.close();
    files.close();
    model.close();
  }
}

/** An adapter file that holds changes of weights and nothing else. */
function openFoldable(path: string): AdapterFile {
  const file = openAdapterFile(path);
  const { head, tensors = [] } = file.extras;
  if (!head && tensors.length === 0) return file;
  file.close();
  throw new OnnxLoraError(
    'unsupported',
    `${path} holds a ${head ? 'head' : 'set of tensors'} beside its adapters, expected adapters alone`,
    { hint: 'Put it into the model with apply, and merge that.' },
  );
}

/** What the merged model is held against: the model with its adapters beside the weights. */
async function unmergedModel(path: string, options: MergeOptions): Promise<ModelSource> {
  const { adapter, name, scale = 1 } = options;
  if (adapter === undefined && scale === 1) return { path };
  const model = openModel(path);
  let file: AdapterFile | undefined;
  try {
    const patched = new PatchedModel(model);
    if (adapter !== undefined) file = openAdapterFile(adapter);
    const edit = file ? adapted(patched, file, scale) : rescaled(patched, name, scale);
    return { bytes: await collect(edit.pieces()), externalFolder: dirname(path) };
  } finally {
    file?.close();
    model.close();
  }
}

/** The adapters of the model with other scales. */
function rescaled(patched: PatchedModel, name: string | undefined, factor: number): MessageEdit {
  const { model } = patched;
  const edit = new MessageEdit(model.source, model.range);
  for (const { adapters } of patched.chosenSets(name)) {
    for (const { scale, scaleTensor } of adapters) {
      const tensor = patched.initializer(scaleTensor);
      const bytes = fromFloat64(floatTypeOf(tensor, model), Float64Array.of(scale * factor));
      setTensorData(
        edit,
        { tensor, graph: model.graph },
        { length: bytes.length, chunks: () => [bytes] },
      );
    }
  }
  return edit;
}

/** The model with the adapters of a file. */
function adapted(patched: PatchedModel, file: AdapterFile, factor: number): MessageEdit {
  const adapters = bindAdapters(patched, file).map(({ record, ...rest }) => ({
    ...rest,
    record: { ...record, scale: record.scale * factor },
  }));
  return insertAdapters(patched, unusedSet(patched), adapters).edit;
}

function unusedSet({ sets }: PatchedModel): string {
  let name = 'verification';
  while (sets.some(({ set }) => set === name)) name += '_';
  return name;
}

function describe({ sites, weight, kind, norms }: Folding['folded'][number]): MergedWeight {
  const nodes = sites.map(({ layer }) => nodeLabel(layer.node));
  const { module } = sites[0]!;
  return {
    node: nodes[0]!,
    nodes,
    module,
    weight,
    kind,
    deltaNorm: norms.delta,
    weightNorm: norms.weight,
  };
}

/** The layers that a file's adapters belong to. */
function sitesOfFile(adapters: readonly NewAdapter[]): FoldSite[] {
  return adapters.flatMap((adapter) => {
    const { layer, record } = adapter;
    const delta = { id: record.name, record, factors: () => factorsOf(adapter) };
    return layer.linear.map((linear, i) => ({
      layer: linear,
      module: layer.modules[i]!,
      deltas: [delta],
    }));
  });
}

/** Every adapted layer of the model with the adapters to fold. */
function sitesOfModel(
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
    });
    sites.set(target, site);
  }
  return [...sites.values()];
}
