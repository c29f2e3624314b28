/** The place of an adapter in a model. */
import type { Node } from '../../onnx/model.js';
import type { AdapterFile, StoredAdapter } from '../files/adapter-file.js';
import { findLayers, type Layer } from '../model/layers.js';
import type { PatchedModel } from '../model/patched.js';
import type { LinearLayer } from '../targets/index.js';
import { renamePaths } from '../targets/module-path.js';
import { nearMisses } from '../targets/select.js';
import { type FusedPlace, fusedPlaces } from './fused.js';
import { alignPaths, isCallOf, ModuleIndex } from './module-match.js';
import type { ModelIndex } from './module-parameters.js';
import type { Unmatched } from './unbound.js';

/** The layer of an adapter, and the part of its output where other modules share it. */
export interface Home {
  readonly layer: Layer;
  readonly fused?: FusedPlace;
}

/** Finds the layers of a model by the names of their nodes and the paths of their modules. */
export class HomeFinder {
  readonly index: ModelIndex;
  /** The path in the graph of a module of PyTorch; undefined for one outside the part that it holds. */
  readonly locate: (module: string) => string | undefined;
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
    this.locate = prefix === undefined ? this.alignment(file) : renamePaths(prefix);
  }

  private alignment(file: AdapterFile): (module: string) => string | undefined {
    const { patched, layers } = this.index;
    const modules = file.adapters
      .filter((adapter) => this.named(adapter).length === 0)
      .map(({ record }) => [record.name, ...fusedPlaces(record.name).map(({ path }) => path)]);
    const label = `${file.path} does not fit ${patched.model.source.label}`;
    return alignPaths(modules, layers.paths(), label);
  }

  /** The home of an adapter, or why it has none. */
  find(adapter: StoredAdapter): Home | Unmatched {
    const wanted = new Set(adapter.nodes);
    const own = this.ownNodes(adapter);
    const named = this.named(adapter, own);
    const isNamed = ({ node, label }: Place) => own?.has(node) ?? wanted.has(label);
    if (named.length > 0) return usable(named, (layer) => only(layer, isNamed));
    const { name } = adapter.record;
    const path = this.locate(name);
    const layers = this.at(path);
    // In PyTorch a module is adapted alone, even where another one shares its weight.
    const isOwn = ({ module }: Place) => wanted.size > 0 || isCallOf(path!, module);
    if (layers.length > 0) return usable(layers, (layer) => only(layer, isOwn));
    return this.fusedHome(name);
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
    return this.at(this.locate(module)).length === 0 && this.fusedHomes(module).length > 0;
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
    return fusedPlaces(module).flatMap((fused) =>
      this.at(this.locate(fused.path)).map((layer) => ({ layer, fused })),
    );
  }
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
  const near = nearMisses(name, layers);
  return `no such layer${near.length > 0 ? `; near: ${near.join(', ')}` : ''}`;
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
