/** The place of an adapter in a model. */
import type { Node } from '../../onnx/model.js';
import type { AdapterFile, StoredAdapter } from '../files/adapter-file.js';
import { findLayers, type Layer } from '../model/layers.js';
import type { PatchedModel } from '../model/patched.js';
import {
  type FusedPlace,
  fusedPlaces,
  isAttentionPart,
  partPaths,
  splitPlaces,
} from '../targets/fusions.js';
import { isPackedAttention, type LinearLayer } from '../targets/index.js';
import { renamePaths } from '../targets/module-path.js';
import { nearMisses } from '../targets/select.js';
import { alignPaths, isCallOf, ModuleIndex } from './module-match.js';
import type { ModelIndex } from './module-parameters.js';
import { otherNamesIn } from './namings.js';
import type { Unmatched } from './unbound.js';

/** The layer of an adapter, and the part of its output where other modules share it. */
export interface Home {
  readonly layer: Layer;
  readonly fused?: FusedPlace;
}

/** The layers of an adapter that the model computes in parts, from the first column of its output on. */
export interface SplitHome {
  readonly parts: readonly Layer[];
}

/** Finds the layers of a model by the names of their nodes and the paths of their modules. */
export class HomeFinder {
  readonly index: ModelIndex;
  /** The path in the graph of a module of PyTorch; undefined for one outside the part that it holds. */
  readonly locate: (module: string) => string | undefined;
  /** The names that a module may have in the graph beside its own. */
  private readonly otherNames: (module: string) => readonly string[];
  private readonly layers: readonly Layer[];
  private readonly byNode = new Map<Node, Layer>();
  private readonly byName = new Map<string, Set<Layer>>();
  /** The nodes of all layers by name, in the order in which adapters of single nodes are listed. */
  private readonly places = new Map<string, { readonly at: number; readonly node: Node }[]>();
  /** The adapters of the file that name the same nodes. */
  private readonly alike = new Map<string, Map<StoredAdapter, number>>();
  private readonly records: ReadonlySet<string>;

  /**
   * @param prefix see {@link renamePaths}; by default paths are aligned
   * @throws OnnxLoraError `adapter-mismatch`, `invalid-argument` as those do
   */
  constructor(patched: PatchedModel, file: AdapterFile, prefix: string | undefined) {
    this.layers = findLayers(patched);
    this.records = new Set(file.adapters.map(({ record }) => record.name));
    for (const adapter of file.adapters) {
      const alike = into(this.alike, keyOf(adapter), () => new Map());
      alike.set(adapter, alike.size);
    }
    const layers = new ModuleIndex<Layer>();
    for (const layer of this.layers) {
      for (const module of layer.modules) layers.add(module, layer);
      for (const node of layer.nodes) this.byNode.set(node, layer);
      for (const name of layer.nodeNames) into(this.byName, name, () => new Set()).add(layer);
    }
    let at = 0;
    for (const { nodes, nodeNames } of findLayers(patched, true)) {
      for (const [i, node] of nodes.entries()) {
        into(this.places, nodeNames[i]!, () => []).push({ at: at++, node });
      }
    }
    this.index = { patched, layers, nodes: new ModuleIndex<Node>() };
    this.otherNames = otherNamesIn(layers.paths());
    this.locate = prefix === undefined ? this.alignment(file) : renamePaths(prefix);
  }

  private alignment(file: AdapterFile): (module: string) => string | undefined {
    const { patched, layers } = this.index;
    const modules = file.adapters
      .filter((adapter) => this.named(adapter).length === 0)
      .map(({ record }) => this.namesOf(record.name).flatMap(placesOf));
    const label = `${file.path} does not fit ${patched.model.source.label}`;
    return alignPaths(modules, layers.paths(), label);
  }

  /** The home of an adapter, or why it has none. */
  find(adapter: StoredAdapter): Home | SplitHome | Unmatched {
    const wanted = new Set(adapter.nodes);
    const own = this.ownNodes(adapter);
    const named = this.named(adapter, own);
    const isNamed = ({ node, label }: Place) => own?.has(node) ?? wanted.has(label);
    if (named.length > 0) return usable(named, (layer) => only(layer, isNamed));
    const { name } = adapter.record;
    const paths = this.pathsOf(name);
    const layers = [...new Set(paths.flatMap((path) => this.at(path)))];
    // In PyTorch a module is adapted alone, even where another one shares its weight.
    const isOwn = ({ module }: Place) =>
      wanted.size > 0 || paths.some((path) => isCallOf(path, module));
    if (layers.length > 0) return usable(layers, (layer) => only(layer, isOwn));
    const fused = this.fusedHome(name);
    return 'problem' in fused && fused.isMissing ? (this.splitHome(name) ?? fused) : fused;
  }

  /** The paths of a module in the graph: its own where layers have it, else those of its other names. */
  pathsOf(module: string): string[] {
    const own = this.locate(module);
    if (own !== undefined && this.at(own).length > 0) return [own];
    const others = this.otherNames(module).flatMap((name) => this.locate(name) ?? []);
    const found = others.filter((path) => this.at(path).length > 0);
    return found.length > 0 || own === undefined ? found : [own];
  }

  private namesOf(module: string): string[] {
    return [module, ...this.otherNames(module)];
  }

  /** The layer of the node that is called so. */
  linearAt(label: string): LinearLayer | undefined {
    for (const { nodeNames, linear } of this.layers) {
      const at = nodeNames.indexOf(label);
      if (at >= 0 && linear[at]) return linear[at];
    }
    return undefined;
  }

  /** Whether a module has no layer but a part of one. */
  isFused(module: string): boolean {
    const isLayer = this.pathsOf(module).some((path) => this.at(path).length > 0);
    return !isLayer && this.fusedHomes(module).length > 0;
  }

  private at(path: string | undefined): readonly Layer[] {
    return path === undefined ? [] : this.index.layers.at(path);
  }

  /** The layers whose nodes the adapter names: several where branches of an If use the same names. */
  private named(adapter: StoredAdapter, own = this.ownNodes(adapter)): Layer[] {
    const named = own
      ? [...own].flatMap((node) => this.byNode.get(node) ?? [])
      : adapter.nodes.flatMap((name) => [...(this.byName.get(name) ?? [])]);
    return [...new Set(named)];
  }

  /**
   * The nodes that the adapter was extracted from, where other nodes have their names: adapters are in
   * the file in the order of the model's nodes, and slots have a number after the name.
   */
  private ownNodes(adapter: StoredAdapter): ReadonlySet<Node> | undefined {
    const ofSlot = adapter.nodes.length > 1 ? undefined : this.slotNode(adapter.record.name);
    if (ofSlot) return ofSlot;
    const alike = this.alike.get(keyOf(adapter));
    if (!alike || alike.size < 2 || adapter.nodes.length === 0) return undefined;
    const named = [...new Set(adapter.nodes)].flatMap((name) => this.places.get(name) ?? []);
    const count = adapter.nodes.length;
    if (named.length !== alike.size * count) return undefined;
    const start = alike.get(adapter)! * count;
    const inOrder = named.sort((a, b) => a.at - b.at).slice(start, start + count);
    return new Set(inOrder.map(({ node }) => node));
  }

  /** The node of one of several slots that differ in their numbers only; see `slotNames`. */
  private slotNode(slot: string): ReadonlySet<Node> | undefined {
    const { name, number = '0' } = /^(?<name>.*?)(?:#(?<number>\d+))?$/s.exec(slot)!.groups!;
    if (!this.records.has(`${name}#1`)) return undefined;
    const place = this.places.get(name!)?.[Number(number)];
    return place && new Set([place.node]);
  }

  private fusedHome(module: string): Home | Unmatched {
    const found = this.fusedHomes(module);
    const [first, ...others] = found;
    if (!first) return { problem: noSuchLayer(module, this.layers), isMissing: true };
    if (others.length > 0) {
      const paths = found.map(({ fused }) => fused.path);
      return { problem: `it may be a part of any of ${paths.join(', ')}`, isMissing: false };
    }
    const { refusal } = first.layer;
    return refusal === undefined ? first : { problem: refusal, isMissing: true };
  }

  private fusedHomes(module: string): { layer: Layer; fused: FusedPlace }[] {
    return this.namesOf(module)
      .flatMap(fusedPlaces)
      .flatMap((fused) => this.at(this.locate(fused.path)).map((layer) => ({ layer, fused })));
  }

  /** The parts of a fused module, where the graph has all of them. */
  private splitHome(module: string): SplitHome | Unmatched | undefined {
    for (const parts of this.namesOf(module).flatMap((name) => [splitPlaces(name) ?? []])) {
      const found = parts.map((names) => names.flatMap((name) => this.at(this.locate(name))));
      if (parts.length === 0 || found.some((layers) => layers.length === 0)) continue;
      const refusal = found.flat().find((layer) => layer.refusal !== undefined)?.refusal;
      if (refusal !== undefined) return { problem: refusal, isMissing: true };
      const several = found.find((layers) => layers.length > 1);
      if (!several) return { parts: found.map(([layer]) => layer!) };
      const nodes = several.flatMap(({ nodeNames }) => nodeNames);
      return { problem: `a part of it may be any of ${nodes.join(', ')}`, isMissing: false };
    }
    return undefined;
  }
}

/** The paths at which a module would be found: as a layer, as a part of one, or as several. */
function placesOf(module: string): string[] {
  const fused = fusedPlaces(module).map(({ path }) => path);
  return [module, ...fused, ...(splitPlaces(module) ?? []).flat()];
}

/** The entry of a map, created first where it is missing. */
function into<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

function keyOf({ nodes, record }: StoredAdapter): string {
  return [record.part?.first ?? '', ...nodes].join('\n');
}

/** The one of several layers that can take an adapter. */
function usable(layers: readonly Layer[], part: (layer: Layer) => Layer): Home | Unmatched {
  const able = layers.filter(({ refusal }) => refusal === undefined);
  const [layer, ...others] = able;
  if (!layer) return { problem: layers[0]!.refusal!, isMissing: true };
  if (others.length === 0) return { layer: part(layer) };
  const labels = able.flatMap(({ nodeNames }) => nodeNames);
  return { problem: `it may be any of the nodes ${labels.join(', ')}`, isMissing: false };
}

function noSuchLayer(name: string, layers: readonly Layer[]): string {
  const near = nearMisses(name, layers.map(withParts));
  const reasons = [
    ...(near.length > 0 ? [`near: ${near.join(', ')}`] : []),
    ...(isAttentionPart(name) ? packing(layers) : []),
  ];
  return ['no such layer', ...reasons].join('; ');
}

/** A layer inside an operator, with the names that its parts have. */
function withParts(layer: Layer): Layer {
  const [first] = layer.linear;
  if (first?.geometry.kind !== 'inside') return layer;
  const { widths } = first.geometry;
  const parts = layer.modules.flatMap((module) => partPaths(module, widths.length));
  return { ...layer, modules: [...layer.modules, ...parts] };
}

/** The operators that keep the weights of query, key and value as one, where a missing module may be. */
function packing(layers: readonly Layer[]): string[] {
  const labels = layers.flatMap(({ nodes, nodeNames }) =>
    nodeNames.filter((_, i) => isPackedAttention(nodes[i]!)),
  );
  if (labels.length === 0) return [];
  const more = labels.length > 1 ? ` and ${labels.length - 1} more` : '';
  return [
    `the model has packed attention (node ${labels[0]}${more}), whose weights are integers and take no adapters of query, key and value: start from the model before quantization`,
  ];
}

/** A node of a layer, and the names that it goes by. */
interface Place {
  readonly node: Node;
  readonly label: string;
  readonly module: string;
}

/** The layer without the nodes that the adapter is not for. */
function only(layer: Layer, isWanted: (place: Place) => boolean): Layer {
  const { nodeNames, modules } = layer;
  const kept = nodeNames.flatMap((label, i) =>
    isWanted({ node: layer.nodes[i]!, label, module: modules[i]! }) ? [i] : [],
  );
  const pick = <T>(items: readonly T[]) => kept.map((i) => items[i]!);
  return {
    ...layer,
    modules: pick(modules),
    nodes: pick(layer.nodes),
    nodeNames: pick(nodeNames),
    linear: pick(layer.linear),
  };
}
