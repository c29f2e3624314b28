/** Where in a model an adapter belongs. */
import type { Node } from '../../onnx/model.js';
import type { AdapterFile, StoredAdapter } from '../files/adapter-file.js';
import { findLayers, type Layer } from '../layers.js';
import type { PatchedModel } from '../patched.js';
import { nearMisses } from '../select.js';
import type { LinearLayer } from '../targets/index.js';
import { type FusedPlace, fusedPlaces } from './fused.js';
import { alignPaths, isCallOf, ModuleIndex, renamePaths } from './module-match.js';
import type { ModelIndex } from './module-parameters.js';
import type { Homeless } from './unbound.js';

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
  /** The nodes of all layers, in the order in which adapters of single nodes are listed. */
  private readonly places: readonly { readonly name: string; readonly node: Node }[];

  /**
   * @param prefix see {@link renamePaths}; by default paths are aligned
   * @throws OnnxLoraError `adapter-mismatch`, `invalid-argument` as those do
   */
  constructor(
    patched: PatchedModel,
    private readonly file: AdapterFile,
    prefix: string | undefined,
  ) {
    this.layers = findLayers(patched);
    this.places = findLayers(patched, true).flatMap(({ nodes, nodeNames }) =>
      nodes.map((node, i) => ({ node, name: nodeNames[i]! })),
    );
    const layers = new ModuleIndex<Layer>();
    for (const layer of this.layers) for (const module of layer.modules) layers.add(module, layer);
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
  find(adapter: StoredAdapter): Home | Homeless {
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
    const wanted = new Set(adapter.nodes);
    return this.layers.filter((layer) =>
      own
        ? layer.nodes.some((node) => own.has(node))
        : layer.nodeNames.some((name) => wanted.has(name)),
    );
  }

  /**
   * The nodes that the adapter was extracted from, where other nodes have their names: adapters stand in
   * the file in the order of the model's nodes, and slots have a number behind the name.
   */
  private ownNodes(adapter: StoredAdapter): ReadonlySet<Node> | undefined {
    const ofSlot = adapter.nodes.length > 1 ? undefined : this.slotNode(adapter.record.name);
    if (ofSlot) return ofSlot;
    const key = adapter.nodes.join('\n');
    const alike = this.file.adapters.filter(({ nodes }) => nodes.join('\n') === key);
    if (alike.length < 2 || key === '') return undefined;
    const wanted = new Set(adapter.nodes);
    const places = this.places.filter(({ name }) => wanted.has(name));
    const count = adapter.nodes.length;
    if (places.length !== alike.length * count) return undefined;
    const start = alike.indexOf(adapter) * count;
    return new Set(places.slice(start, start + count).map(({ node }) => node));
  }

  /** The node of one of several slots that differ in their numbers only; see `slotNames`. */
  private slotNode(slot: string): ReadonlySet<Node> | undefined {
    const { name, number = '0' } = /^(?<name>.*?)(?:#(?<number>\d+))?$/s.exec(slot)!.groups!;
    if (!this.file.adapters.some(({ record }) => record.name === `${name}#1`)) return undefined;
    const place = this.places.filter((one) => one.name === name)[Number(number)];
    return place && new Set([place.node]);
  }

  private fusedHome(module: string): Home | Homeless {
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

/** The one of several layers that can take an adapter. */
function usable(layers: readonly Layer[], part: (layer: Layer) => Layer): Home | Homeless {
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
