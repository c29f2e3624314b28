/** Finds the layers that the adapters of a file belong to, and the tensors that came with them. */
import { OnnxLoraError } from '../errors.js';
import type { NewTensor } from '../onnx/encode.js';
import { ExternalFiles } from '../onnx/external.js';
import type { Node } from '../onnx/model.js';
import { TensorReader } from '../onnx/tensor.js';
import type { AdapterFile, StoredAdapter } from './adapter-file.js';
import { type FusedHome, fuseAdapters, fusedHomes, type Member, needsProof } from './fused.js';
import { fusedLayout } from './fused-layout.js';
import type { Extras, NewAdapter } from './insert.js';
import { findLayers, type Layer } from './layers.js';
import { alignPaths, isCallOf, ModuleIndex, renamePaths } from './module-match.js';
import {
  addNodes,
  bindParameter,
  type ModelIndex,
  type ModuleParameter,
} from './module-parameters.js';
import type { PatchedModel } from './patched.js';
import { nearMisses } from './select.js';
import { unboundError } from './unbound.js';
import { isFoldedIntoConv } from './weight-name.js';

export interface BindOptions {
  /** Leave out what has no home in the model instead of refusing all of it. */
  readonly allowUnmatched?: boolean | undefined;
  /** `OLD=NEW`: module paths that begin with OLD begin with NEW in the model. Default: as they fit. */
  readonly peftPrefix?: string | undefined;
}

/** @throws OnnxLoraError `invalid-argument` where no adapters come from a file, and options say how */
export function checkNoBindOptions({ allowUnmatched, peftPrefix }: BindOptions): void {
  if (!allowUnmatched && peftPrefix === undefined) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `${allowUnmatched ? 'allowUnmatched' : 'peftPrefix'} has no effect without the adapters of a file (--adapter)`,
  );
}

/** The adapters of a file with their layers in a model. */
export interface Binding {
  readonly adapters: readonly NewAdapter[];
  readonly extras: Extras;
  /** Modules that the model does not have, and what comes near; only where that is allowed. */
  readonly unmatched: readonly string[];
}

/** Something of a file that could not be bound. */
export interface Problem {
  readonly name: string;
  readonly problem: string;
  /** The model has nothing of this name: it may be left out. Otherwise it does not fit. */
  readonly isMissing: boolean;
}

/**
 * Binds every adapter to its layer: by the names of the nodes that it was extracted from, else by module
 * path, else to its part of a fused layer; in any case it must have the layer's size. Parameters of
 * modules are bound to the constants that hold them.
 * @throws OnnxLoraError `adapter-mismatch` naming everything without a home
 */
export function bindAdapters(
  patched: PatchedModel,
  file: AdapterFile,
  { allowUnmatched = false, peftPrefix }: BindOptions = {},
): Binding {
  const binder = new Binder(patched, file, peftPrefix);
  const adapters = binder.bindAdapters();
  const tensors = [...(file.extras.tensors ?? []), ...binder.bindParameters()];
  const { problems } = binder;
  if (adapters.length === 0 && problems.length === 0) throw noAdapters(file);
  const tolerated = allowUnmatched && adapters.length > 0;
  const fatal = problems.filter(({ isMissing }) => !isMissing || !tolerated);
  if (fatal.length > 0) throw unboundError(patched.model.source.label, file, fatal);
  const extras = { ...file.extras, tensors, from: file.path };
  return { adapters, extras, unmatched: problems.map(({ name }) => name) };
}

/** A set is known by its adapters: what stands beside them can not stand alone. */
function noAdapters({ path }: AdapterFile): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${path} changes parameters of the model and has no adapter of a layer`,
    { hint: 'Fold it in Python (model.merge_and_unload()) and export the model again.' },
  );
}

/** A place for an adapter. */
type Home =
  | { readonly layer: Layer; readonly fused?: undefined }
  | { readonly layer: Layer; readonly fused: FusedHome };

class Binder {
  readonly problems: Problem[] = [];
  private readonly layers: readonly Layer[];
  private readonly index: ModelIndex;
  private readonly locate: (module: string) => string | undefined;

  constructor(
    private readonly patched: PatchedModel,
    private readonly file: AdapterFile,
    prefix: string | undefined,
  ) {
    this.layers = findLayers(patched);
    const layers = new ModuleIndex<Layer>();
    for (const layer of this.layers) for (const module of layer.modules) layers.add(module, layer);
    this.index = { patched, layers, nodes: new ModuleIndex<Node>() };
    this.locate = prefix === undefined ? this.alignment() : renamePaths(prefix);
  }

  private alignment(): (module: string) => string | undefined {
    const { file, patched, index } = this;
    const modules = file.adapters
      .filter((adapter) => this.named(adapter).length === 0)
      .map(({ record }) => [record.name, ...fusedHomes(record.name).map(({ path }) => path)]);
    const label = `${file.path} does not fit ${patched.model.source.label}`;
    return alignPaths(modules, index.layers.paths(), label);
  }

  bindAdapters(): NewAdapter[] {
    const bound: NewAdapter[] = [];
    const fused = new Map<Layer, (Member & { readonly home: FusedHome })[]>();
    for (const adapter of this.file.adapters) {
      const home = this.homeOf(adapter);
      if (!home) continue;
      const { layer, fused: place } = home;
      if (!place) bound.push(...this.fitted(layer, adapter));
      else {
        const member = { part: place.part, adapter, home: place };
        fused.set(layer, [...(fused.get(layer) ?? []), member]);
      }
    }
    for (const [layer, members] of fused) bound.push(...this.fuse(layer, members));
    return this.onePerLayer(bound);
  }

  bindParameters(): NewTensor[] {
    const byName = new Map<string, ModuleParameter[]>();
    for (const one of this.file.parameters ?? []) {
      const name = `${one.module}.${one.parameter}`;
      byName.set(name, [...(byName.get(name) ?? []), one]);
    }
    if (byName.size > 0) addNodes(this.index);
    const tensors: NewTensor[] = [];
    for (const [name, changes] of byName) {
      const { module, parameter } = changes[0]!;
      const path = this.locate(module);
      const found = this.inFused(path, module)
        ? {
            problem: `the ${parameter} of a part of a fused layer cannot be replaced`,
            isMissing: false,
          }
        : bindParameter(this.index, path, changes);
      if (!found) continue;
      if ('problem' in found) this.problems.push({ name, ...found });
      else tensors.push(found);
    }
    return tensors;
  }

  private inFused(path: string | undefined, module: string): boolean {
    if (path !== undefined && this.index.layers.at(path).length > 0) return false;
    return this.fusedLayers(module).length > 0;
  }

  /** The layers whose nodes the adapter names. */
  private named({ nodes }: StoredAdapter): Layer[] {
    const wanted = new Set(nodes);
    if (wanted.size === 0) return [];
    return this.layers.filter(({ nodeNames }) => nodeNames.some((name) => wanted.has(name)));
  }

  private homeOf(adapter: StoredAdapter): Home | undefined {
    const { name } = adapter.record;
    const [named] = this.named(adapter);
    const wanted = new Set(adapter.nodes);
    if (named)
      return this.usable(name, [named], (layer) => only(layer, ({ node }) => wanted.has(node)));
    const path = this.locate(name);
    const layers = path === undefined ? [] : this.index.layers.at(path);
    // In PyTorch a module is adapted alone, even where another one shares its weight.
    const isOwn = ({ module }: Place) => wanted.size > 0 || isCallOf(path!, module);
    if (layers.length > 0) return this.usable(name, layers, (layer) => only(layer, isOwn));
    return this.fusedHome(name);
  }

  /** The one of several layers that can take an adapter. */
  private usable(
    name: string,
    layers: readonly Layer[],
    part: (layer: Layer) => Layer,
  ): Home | undefined {
    const able = layers.filter(({ refusal }) => refusal === undefined);
    const [layer, ...others] = able;
    if (!layer) return this.missing(name, layers[0]!.refusal!);
    if (others.length === 0) return { layer: part(layer) };
    const labels = able.flatMap(({ nodeNames }) => nodeNames);
    return this.misfit(name, `it may be any of the nodes ${labels.join(', ')}`);
  }

  private fusedHome(name: string): Home | undefined {
    const found = this.fusedLayers(name);
    const [first, ...others] = found;
    if (!first) return this.missing(name, noSuchLayer(name, this.layers));
    if (others.length > 0) {
      const paths = found.map(({ fused }) => fused.path);
      return this.misfit(name, `it may be a part of any of ${paths.join(', ')}`);
    }
    const { layer } = first;
    if (layer.refusal !== undefined) return this.missing(name, layer.refusal);
    return first;
  }

  private fusedLayers(name: string): { layer: Layer; fused: FusedHome }[] {
    return fusedHomes(name).flatMap((fused) => {
      const path = this.locate(fused.path);
      const layers = path === undefined ? [] : this.index.layers.at(path);
      return layers.map((layer) => ({ layer, fused }));
    });
  }

  private fitted(layer: Layer, adapter: StoredAdapter): NewAdapter[] {
    const { weight, node } = layer.linear[0]!;
    const { record, values, magnitude, nodes } = adapter;
    if (nodes.length === 0 && isFoldedIntoConv(node, weight.constant?.tensor.name ?? '')) {
      const folded = 'the exporter has folded a batch normalization into its weight';
      this.misfit(record.name, `${folded}, so that it is not the layer that was trained`);
      return [];
    }
    if (weight.in !== record.in || weight.out !== record.out) {
      const sizes = `it is ${record.in} x ${record.out}, the layer is ${weight.in} x ${weight.out}`;
      this.misfit(record.name, sizes);
      return [];
    }
    const own = { ...record, weight: weight.name };
    return [{ layer, record: own, values, ...(magnitude ? { magnitude } : {}) }];
  }

  private fuse(
    layer: Layer,
    members: readonly (Member & { readonly home: FusedHome })[],
  ): NewAdapter[] {
    const { home } = members[0]!;
    const result = this.interleaved(layer, home) ?? fuseAdapters(layer, home.parts, members);
    if (typeof result !== 'string') return [result];
    for (const { adapter } of members) this.misfit(adapter.record.name, result);
    return [];
  }

  private interleaved(layer: Layer, home: FusedHome): string | undefined {
    const { model, values } = this.patched;
    const files = new ExternalFiles(model);
    try {
      const layout = fusedLayout(values, new TensorReader(model, files), layer.linear[0]!);
      if (layout === 'side by side' || (layout === undefined && !needsProof(home)))
        return undefined;
      return layout === 'by head'
        ? `${layer.module} keeps its parts head by head, where an adapter of one part has no columns of its own`
        : `the graph does not show whether ${layer.module} keeps its parts side by side or head by head`;
    } finally {
      files.close();
    }
  }

  private onePerLayer(adapters: readonly NewAdapter[]): NewAdapter[] {
    const taken = new Map<unknown, string>();
    return adapters.filter(({ layer, record: { name } }) => {
      const other = layer.nodes.map((node) => taken.get(node)).find((found) => found !== undefined);
      for (const node of layer.nodes) taken.set(node, name);
      if (other === undefined) return true;
      this.misfit(name, `${layer.module} is the layer of ${other} already`);
      return false;
    });
  }

  private missing(name: string, problem: string): undefined {
    this.problems.push({ name, problem, isMissing: true });
  }

  private misfit(name: string, problem: string): undefined {
    this.problems.push({ name, problem, isMissing: false });
  }
}

function noSuchLayer(name: string, layers: readonly Layer[]): string {
  const near = nearMisses(name, layers);
  return `no such layer${near.length > 0 ? `; near: ${near.join(', ')}` : ''}`;
}

/** A node of a layer, by the names that it goes by. */
interface Place {
  readonly node: string;
  readonly module: string;
}

/** The layer without the nodes that the adapter is not for. */
function only(layer: Layer, isWanted: (place: Place) => boolean): Layer {
  const { nodeNames, modules } = layer;
  const kept = nodeNames.flatMap((node, i) => (isWanted({ node, module: modules[i]! }) ? [i] : []));
  const pick = <T>(items: readonly T[]) => kept.map((i) => items[i]!);
  return {
    ...layer,
    modules: pick(modules),
    nodes: pick(layer.nodes),
    nodeNames: pick(nodeNames),
    linear: pick(layer.linear),
  };
}
