/** The adapters that are in a model: where they are attached and what belongs to them. */

import { OnnxLoraError } from '../../errors.js';
import { storedTensor } from '../../graph/constants.js';
import { type Use, ValueIndex } from '../../graph/uses.js';
import type { TensorPlace } from '../../onnx/external.js';
import {
  allGraphs,
  type Graph,
  type Model,
  type Node,
  nodeLabel,
  type Tensor,
} from '../../onnx/model.js';
import { fitsLayer } from '../structure/structure.js';
import {
  type Head,
  invalidManifest,
  type ModelManifest,
  type PatchedAdapter,
  type Replacement,
  readManifests,
  type Site,
} from './manifest.js';
import { readSlots, type Slot, type SlotManifest } from './slot-manifest.js';

/** A site with the nodes that its names stand for. */
export interface AttachedNodes {
  /** Names of the nodes, as the manifest keeps them. */
  readonly site: Site;
  /** The layer's own node, below any other adapter that is attached to it, and below its bias. */
  readonly target: Node;
  /** The Add that carries the layer's output. */
  readonly add: Node;
  /** The nodes that were added, the last one an Add. */
  readonly nodes: readonly Node[];
}

/** A site of an adapter. */
export interface AttachedSite extends AttachedNodes {
  /** The adapter set. */
  readonly set: ModelManifest;
  /** The adapter of the set. */
  readonly adapter: PatchedAdapter;
}

/** A model and the adapter sets in it, or its slots for adapters. */
export class PatchedModel {
  /** The adapter sets, in the order they were added. */
  readonly sets: readonly ModelManifest[];
  /** Every node with an adapter, of all sets. */
  readonly sites: readonly AttachedSite[];
  /** The slots; undefined for a model without. */
  readonly slots: SlotManifest | undefined;
  /** Every node with a slot. */
  readonly slotSites: readonly AttachedNodes[];
  /** The classification heads that came with the sets. */
  readonly heads: readonly Head[];
  /** The biases that were added and that the model did not have. */
  readonly biasSites: readonly (AttachedNodes & {
    /** The adapter set. */
    readonly set: ModelManifest;
  })[];
  /** Names of all nodes that were added with adapters or slots. */
  readonly ownNodes: ReadonlySet<string>;
  /** Names of all tensors that were added with adapters or slots, but for those that replace the model's. */
  readonly ownTensors: ReadonlySet<string>;
  /** Every value of the graph, with its uses. */
  readonly values: ValueIndex;

  /** The sites beside each node, in the order they were added. */
  private readonly beside = new Map<Node, AttachedNodes[]>();
  /** The sites on weights, by their Adds. */
  private readonly onWeights = new Map<Node | undefined, AttachedNodes>();
  private readonly nodesByName = new Map<string, Node>();

  /** @throws OnnxLoraError `invalid-manifest` where manifest and graph do not fit together */
  constructor(
    /** The parsed file. */
    readonly model: Model,
  ) {
    this.sets = readManifests(model);
    this.slots = readSlots(model);
    this.values = new ValueIndex(model);
    for (const graph of allGraphs(model.graph)) {
      for (const node of graph.nodes) {
        if (node.name !== '') this.nodesByName.set(node.name, node);
      }
    }
    const adapters = this.sets.flatMap((set) => set.adapters);
    const slots = this.slots?.slots ?? [];
    const sites = [...adapters, ...slots].flatMap((adapter) => adapter.sites);
    const misfit = adapters.find((adapter) => !fitsLayer(adapter));
    if (misfit) throw this.damaged(`the part of ${misfit.name} ends behind its layer`);
    for (const { adapters: all } of this.sets) this.checkUnique(all.map(({ name }) => name));
    this.checkUnique(this.sets.map(({ set }) => set));
    this.checkUnique(sites.flatMap(({ base, input }) => (input === undefined ? [base] : [])));
    this.checkUnique(slots.flatMap(({ a, b }) => [a, b]));
    this.heads = this.sets.flatMap(({ head }) => (head ? [head] : []));
    const biases = this.sets.flatMap((set) => set.biases ?? []);
    const biasNodes = biases.map(({ site }) => site);
    const own = [...sites, ...biasNodes, ...this.heads].flatMap(({ nodes }) => nodes);
    this.checkUnique(own);
    this.ownNodes = new Set(own);
    this.ownTensors = this.checkInitializers();
    this.checkSlots();
    this.checkHeads();
    this.checkReplaced();
    this.sites = this.sets.flatMap((set) =>
      set.adapters.flatMap((adapter) =>
        adapter.sites.map((site) => ({ set, adapter, ...this.attach(site) })),
      ),
    );
    this.biasSites = this.sets.flatMap((set) =>
      (set.biases ?? []).map(({ site }) => ({ set, ...this.attach(site) })),
    );
    this.slotSites = slots.flatMap((slot) => slot.sites.map((site) => this.attach(site)));
    for (const site of [...this.sites, ...this.slotSites]) {
      if (site.site.input !== undefined) {
        this.onWeights.set(site.add, site);
        continue;
      }
      const known = this.beside.get(site.target);
      if (known) known.push(site);
      else this.beside.set(site.target, [site]);
    }
  }

  /**
   * The set of a name.
   * @throws OnnxLoraError `no-adapter`
   */
  set(name: string): ModelManifest {
    const found = this.sets.find((set) => set.set === name);
    if (found) return found;
    throw new OnnxLoraError(
      'no-adapter',
      `${this.model.source.label} has no adapter set ${JSON.stringify(name)}, ${this.describeSets()}`,
    );
  }

  /** All sets, or the one named. */
  chosenSets(name: string | undefined): readonly ModelManifest[] {
    if (name !== undefined) return [this.set(name)];
    if (this.sets.length > 0) return this.sets;
    throw new OnnxLoraError('no-adapter', `${this.model.source.label} carries no adapters`, {
      hint: this.slots
        ? 'It has slots, which take adapters when it runs: see AdapterSession.'
        : 'Insert some with: `patch(model)`',
    });
  }

  /** The slots by the nodes of the layers that they stand beside. */
  slotsByTarget(): Map<Node, Slot> {
    const slots = (this.slots?.slots ?? []).flatMap((slot) => slot.sites.map(() => slot));
    return new Map(this.slotSites.map(({ target }, i) => [target, slots[i]!]));
  }

  /**
   * The name of a layer's node: one that stays the same however many adapters are added.
   * @param named the node whose name it is, where that is not the one that gives the output
   */
  label(target: Node, named = target): string {
    return this.sitesBeside(target)[0]?.site.node ?? nodeLabel(named);
  }

  /** The adapters or slots after a layer's node, the one next to it first; those on its weight are before it. */
  sitesBeside(target: Node): readonly AttachedNodes[] {
    return this.beside.get(target) ?? [];
  }

  /** The node that now carries the output of a layer's node: itself, or the last adapter's Add. */
  outermost(target: Node): Node {
    return this.sitesBeside(target).at(-1)?.add ?? target;
  }

  /** The node right below an adapter: the layer's own, the Add of its bias, or another adapter's. */
  producer({ site, add }: AttachedNodes): Node {
    const node = this.producerOf(add.graph, site.base);
    if (!node) throw this.damaged(`no node computes ${site.base}`);
    return node;
  }

  /** Names of values mean something in their graph only: branches of an If may use the same ones. */
  private producerOf(graph: Graph, name: string): Node | undefined {
    return this.values.resolve(graph, name)?.producer;
  }

  /** The reading of a weight by the layer's own node, where an adapter on the weight reads it first. */
  ownUse(use: Use): Use {
    const site = use.index === 0 ? this.onWeights.get(use.node) : undefined;
    return site ? { node: site.target, graph: site.target.graph, index: site.site.input! } : use;
  }

  /** An initializer that an adapter names. */
  initializer(name: string): Tensor {
    const tensor = this.model.graph.initializers.get(name);
    if (!tensor) throw this.damaged(`initializer ${name} is not in the graph`);
    return tensor;
  }

  /** A constant of the main graph: an initializer, or the value of a Constant node. */
  constant(name: string): Tensor {
    const place = storedTensor(this.values, this.model.graph, name);
    if (!place) throw this.damaged(`no tensor ${name} is in the graph`);
    return place.tensor;
  }

  /** The model's own tensor that a set replaced, and set aside. */
  original({ tensor, original }: Replacement): TensorPlace {
    const { values, model } = this;
    const place = storedTensor(values, model.graph, original);
    if (!place) throw this.damaged(`no tensor ${original} is in the graph`);
    const { dims, dataType } = this.initializer(tensor);
    if (place.tensor.dims.join() === dims.join() && place.tensor.dataType === dataType)
      return place;
    throw this.damaged(`${original} has not the type and shape of ${tensor}, which replaces it`);
  }

  private checkUnique(names: readonly string[]): void {
    const seen = new Set<string>();
    for (const name of names) {
      if (seen.has(name)) throw this.damaged(`${JSON.stringify(name)} is named twice`);
      seen.add(name);
    }
  }

  /** Initializers that unpatch removes must be ours: those that only our nodes read. */
  private checkInitializers(): ReadonlySet<string> {
    const { graph } = this.model;
    const inHeads = this.heads.flatMap(({ weight, bias, constants }) => [
      weight,
      bias,
      ...constants,
    ]);
    const biases = this.sets.flatMap((set) => (set.biases ?? []).map(({ tensor }) => tensor));
    const owners = this.slots ? [...this.sets, this.slots] : this.sets;
    const names = [...owners.flatMap(({ initializers }) => initializers), ...inHeads, ...biases];
    this.checkUnique(names);
    for (const name of names) {
      const uses = this.values.resolve(graph, name)?.uses ?? [];
      const foreign = uses.find(({ node }) => !node || !this.ownNodes.has(node.name));
      if (foreign) throw this.damaged(`initializer ${name} belongs to the model`);
    }
    return new Set(names);
  }

  /** Adapters would be patched below slots, and take each other's names. */
  private checkSlots(): void {
    if (!this.slots) return;
    if (this.sets.length > 0) throw this.damaged('it names both adapters and slots');
    const { graph } = this.model;
    for (const { a, b } of this.slots.slots) {
      for (const name of [a, b]) {
        const value = this.values.resolve(graph, name);
        const foreign = value?.uses.find(({ node }) => !node || !this.ownNodes.has(node.name));
        if (!value?.isInput || foreign) throw this.damaged(`${name} is not an input of a slot`);
      }
    }
  }

  private checkReplaced(): void {
    const { graph } = this.model;
    const all = this.sets.flatMap(({ replaced = [] }) => replaced);
    const whole = all.filter(({ share }) => !share);
    const originals = new Set(all.flatMap(({ original, share }) => (share ? [original] : [])));
    const names = [...all.map(({ tensor }) => tensor), ...whole.map(({ original }) => original)];
    this.checkUnique([...this.ownTensors, ...names, ...originals]);
    for (const replacement of all) {
      this.original(replacement);
      const { original, share } = replacement;
      if (share) continue;
      const read = (this.values.resolve(graph, original)?.uses.length ?? 0) > 0;
      if (read) throw this.damaged(`${original} is read, although it was replaced`);
    }
  }

  private checkHeads(): void {
    const { graph } = this.model;
    const inGraph = new Set(graph.nodes.map(({ name }) => name));
    for (const { nodes, weight, bias, constants, output } of this.heads) {
      for (const name of [weight, bias, ...constants]) this.initializer(name);
      const missing = nodes.find((name) => !inGraph.has(name));
      if (missing !== undefined)
        throw this.damaged(`node ${missing} of the head is not in the graph`);
      const makes = this.producerOf(graph, output)?.name;
      if (makes !== nodes.at(-1) || !graph.outputs.some(({ name }) => name === output)) {
        throw this.damaged(`${output} is not an output that the head makes`);
      }
    }
  }

  private attach(site: Site): AttachedNodes {
    const nodes = site.nodes.map((name) => {
      const node = this.nodesByName.get(name);
      if (!node) throw this.damaged(`node ${name} beside ${site.node} is not in the graph`);
      return node;
    });
    const add = nodes.at(-1)!;
    if (add.opType !== 'Add' || !this.addsTo(add, site) || add.outputs[0] === site.base) {
      throw this.damaged(`node ${nodeLabel(add)} does not add to ${site.base}`);
    }
    const { input } = site;
    const target = input === undefined ? this.target(site, add.graph) : this.reading(add, input);
    return { site, nodes, add, target };
  }

  /** Whether an Add reads the base, a weight also through the adapters below it. */
  private addsTo({ graph, inputs }: Node, { base, input }: Site): boolean {
    if (input === undefined) return inputs.includes(base);
    let name = inputs[0];
    for (let left = this.ownNodes.size; left > 0 && name !== base; left--) {
      const below = this.producerOf(graph, name ?? '');
      if (!below || !this.ownNodes.has(below.name)) return false;
      name = below.inputs[0];
    }
    return name === base;
  }

  /** The model's node that reads a weight through the adapters on it. */
  private reading(add: Node, input: number): Node {
    let reader = this.readerOf(add);
    for (let left = this.ownNodes.size; left > 0; left--) {
      const { index } = reader;
      const node = reader.node!;
      if (!this.ownNodes.has(node.name)) {
        if (index !== input) break;
        return node;
      }
      if (node.opType !== 'Add' || index !== 0) break;
      reader = this.readerOf(node);
    }
    throw this.damaged(`no node reads the weight that ${nodeLabel(add)} gives`);
  }

  /**
   * The one input that reads what an adapter's Add makes of a weight: the layer's own, or another adapter's.
   * @throws OnnxLoraError `invalid-manifest` where it is not one
   */
  readerOf(add: Node): Use {
    const [use, ...others] = this.values.resolve(add.graph, add.outputs[0]!)?.uses ?? [];
    if (use?.node && use.graph === add.graph && others.length === 0) return use;
    throw this.damaged(`the weight that ${nodeLabel(add)} gives has not one reader`);
  }

  private target(site: Site, graph: Graph): Node {
    let base = site.base;
    for (let depth = 0; depth <= this.ownNodes.size; depth++) {
      const node = this.producerOf(graph, base);
      if (node?.graph !== graph) break;
      if (!this.ownNodes.has(node.name)) return this.belowBias(site, node);
      base = node.inputs[0]!;
    }
    throw this.damaged(`no layer computes ${site.base}`);
  }

  /** The layer's own node, under the model's last node below the site's adapters. */
  private belowBias({ product }: Site, last: Node): Node {
    if (product === undefined) return last;
    const isRead = last.inputs.includes(product);
    const node = isRead ? this.producerOf(last.graph, product) : undefined;
    if (last.opType === 'Add' && node) return node;
    throw this.damaged(`node ${nodeLabel(last)} does not add a bias to ${product}`);
  }

  private damaged(problem: string): OnnxLoraError {
    return invalidManifest(this.model.source.label, problem);
  }

  private describeSets(): string {
    if (this.sets.length === 0) return 'it carries no adapters';
    return `it has: ${this.sets.map(({ set }) => set).join(', ')}`;
  }
}
