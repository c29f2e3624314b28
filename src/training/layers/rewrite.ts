/**
 * Adapted layers in the form that trains fastest. A patched model adds `s · X · A · B` to `X · W`: that
 * is right for inference, where factors are constants. In training, with more rows in X than W is large,
 * it is cheaper to add `s · A · B` to W first: the passes over X and Y that the adapter would take fall
 * away, in the forward as in the backward pass. The gradients of A and B are thin products anyhow.
 */

import { kindOf } from '../../adapters/kinds/index.js';
import type { ModelManifest, PatchedAdapter, Site } from '../../adapters/model/manifest.js';
import { type Structure, structureOf } from '../../adapters/structure/structure.js';
import type { Composite } from '../../autodiff/differentiate.js';
import type { GradientRule } from '../../autodiff/rule.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { ValueTypes } from '../../graph/value-type.js';
import type { NewNode } from '../../onnx/encode.js';
import { deltaMatrix } from './delta.js';
import { type AllowedOperators, factorGradients } from './factor-gradients.js';

export interface RewriteOptions extends AllowedOperators {
  /** Rows of a value of the given shape, leading axes multiplied; undefined where it is not known. */
  rows(shape: readonly (number | string | null)[]): number | undefined;
  /** Names of layers that stay as they are where they can. */
  readonly kept?: ReadonlySet<string> | undefined;
}

/** A site whose layer is a product of its input with a matrix of floats, and nothing else. */
interface PlainSite {
  readonly adapter: PatchedAdapter;
  readonly site: Site;
  readonly structure: Structure;
  /** The layer's own node. */
  readonly node: NewNode;
  /** The Add of its bias, where the adapter joins after one. */
  readonly sum: NewNode | undefined;
  readonly input: string;
  readonly weight: string;
  /** The weight is stored [out, in]. */
  readonly transposed: boolean;
  /** The value that consumers read. */
  readonly output: string;
}

/** Rewritten layers as reverse mode sees them. */
export interface Rewritten {
  readonly composites: readonly Composite[];
  /** Values that count as constants. */
  readonly constants: readonly string[];
  /** The layers' products, with the adapters' part in them. */
  readonly products: readonly string[];
}

/** Rewrites the sites of a set where that pays, and leaves the others as they are. */
export function rewriteAdapters(
  graph: GraphBuilder,
  types: ValueTypes,
  set: ModelManifest,
  options: RewriteOptions,
): Rewritten {
  const byName = new Map(graph.nodes.map((node) => [node.name, node]));
  const producers = new Map(graph.nodes.flatMap((node) => node.outputs.map((o) => [o, node])));
  const readers = countReaders(graph);
  if (options.fused) graph.importDomain('com.microsoft', 1);
  const changes = new Changes(graph.nodes);
  const counted = selectedRows(graph);
  const formOf = ({ input }: PlainSite): AllowedOperators => {
    const isOpen = types.get(input)?.shape?.some((size) => size === null) ?? true;
    return { fused: options.fused && !(isOpen && counted.has(input)) };
  };
  const rewritten: Rewritten[] = [];
  for (const adapter of set.adapters) {
    const sites = adapter.sites.flatMap((site) => {
      const found = plainSite(adapter, site, { byName, producers, readers, types });
      return found && pays(found, types, options) ? [found] : [];
    });
    rewritten.push(rewriteSites(graph, changes, sites, formOf));
  }
  changes.apply(graph.nodes);
  return {
    composites: rewritten.flatMap(({ composites }) => composites),
    constants: rewritten.flatMap(({ constants }) => constants),
    products: rewritten.flatMap(({ products }) => products),
  };
}

/** New nodes for old ones: for thousands of adapters in one pass. */
class Changes {
  private readonly places: ReadonlyMap<NewNode, number>;
  private readonly before = new Map<NewNode, readonly NewNode[]>();
  private readonly instead = new Map<NewNode, readonly NewNode[]>();
  private readonly dropped = new Set<string>();

  constructor(nodes: readonly NewNode[]) {
    this.places = new Map(nodes.map((node, i) => [node, i]));
  }

  /** Puts `added` in front of the first of `nodes`. */
  insert(added: readonly NewNode[], nodes: readonly NewNode[]): void {
    const placeOf = (node: NewNode) => this.places.get(node)!;
    const first = nodes.reduce((one, other) => (placeOf(other) < placeOf(one) ? other : one));
    this.before.set(first, added);
  }

  replace(node: NewNode, ...by: readonly NewNode[]): void {
    this.instead.set(node, by);
  }

  drop(names: Iterable<string>): void {
    for (const name of names) this.dropped.add(name);
  }

  apply(nodes: NewNode[]): void {
    const changed = nodes
      .filter(({ name }) => !this.dropped.has(name))
      .flatMap((node) => [...(this.before.get(node) ?? []), ...(this.instead.get(node) ?? [node])]);
    nodes.length = 0;
    for (const node of changed) nodes.push(node);
  }
}

interface GraphIndex {
  readonly byName: ReadonlyMap<string, NewNode>;
  readonly producers: ReadonlyMap<string, NewNode>;
  readonly readers: ReadonlyMap<string, number>;
  readonly types: ValueTypes;
}

/**
 * Values whose number of rows may follow from numbers, and be 0, as of the tokens of one expert: there
 * ONNX Runtime's products of blocks that are read in place divide by it, which ends the process.
 */
function selectedRows(graph: GraphBuilder): Set<string> {
  const selected = new Set<string>();
  for (const { opType, inputs, outputs } of graph.nodes) {
    if (!SELECTING.has(opType) && !inputs.some((name) => selected.has(name))) continue;
    for (const name of outputs) selected.add(name);
  }
  return selected;
}

const SELECTING = new Set(['Compress', 'NonMaxSuppression', 'NonZero', 'Unique']);

function countReaders(graph: GraphBuilder): Map<string, number> {
  const readers = new Map<string, number>();
  const names = graph.nodes.flatMap(({ inputs }) => inputs);
  for (const name of [...names, ...graph.outputs.map((output) => output.name)]) {
    readers.set(name, (readers.get(name) ?? 0) + 1);
  }
  return readers;
}

function plainSite(
  adapter: PatchedAdapter,
  site: Site,
  { byName, producers, readers, types }: GraphIndex,
): PlainSite | undefined {
  const { base, product = base } = site;
  const node = producers.get(product);
  const sum = product === base ? undefined : producers.get(base);
  const own = site.nodes.map((name) => byName.get(name));
  const add = own.at(-1);
  if (!node || !add || own.includes(undefined)) return undefined;
  const transposed = weightIsTransposed(node);
  const [input, weight] = node.inputs;
  if (transposed === undefined || !input || weight !== adapter.weight) return undefined;
  const isFloat = [input, weight].every((name) => types.get(name)?.dtype === 'float32');
  // Of a vector, or of what may be one, the products below would be others.
  const rank = types.get(input)?.shape?.length ?? 0;
  const ownReads = own.flatMap((one) => one!.inputs).filter((name) => name === base).length;
  if (!isFloat || rank < 2 || ownReads !== readers.get(base)) return undefined;
  if (adapter.part) return undefined;
  // The base of a second adapter is the first one's Add.
  if (sum && !(sum.inputs.includes(product) && readers.get(product) === 1)) return undefined;
  const structure = structureOf(adapter);
  const output = add.outputs[0]!;
  return { adapter, site, structure, node, sum, input, weight, transposed, output };
}

/** Undefined for what is not `X · W`, with a bias or without. */
function weightIsTransposed({
  opType,
  domain = '',
  attributes = {},
}: NewNode): boolean | undefined {
  const int = (name: string) => {
    const value = attributes[name];
    return value && 'int' in value ? Number(value.int) : 0;
  };
  const alpha = attributes.alpha;
  const isScaled = alpha !== undefined && 'float' in alpha && alpha.float !== 1;
  const name = domain === '' ? opType : `${domain}:${opType}`;
  if (name === 'MatMul') return false;
  if (!['Gemm', 'com.microsoft:FusedMatMul'].includes(name) || isScaled) return undefined;
  const moves = ['transA', 'transBatchA', 'transBatchB'].some((flag) => int(flag) !== 0);
  return moves ? undefined : int('transB') !== 0;
}

/**
 * Adding to W is work on in·out numbers, the adapter's own products on N·(in + out). Kinds that read W
 * have that work in any form.
 */
function pays(
  { adapter, node, input, structure }: PlainSite,
  types: ValueTypes,
  options: RewriteOptions,
): boolean {
  if (kindOf(adapter).readsWeight) return true;
  if (options.kept?.has(node.name)) return false;
  const shape = types.get(input)?.shape;
  const rows = shape ? options.rows(shape.slice(0, -1)) : undefined;
  if (rows === undefined) return true;
  return rows * (structure.in + structure.out) >= structure.in * structure.out;
}

/** The sites of one adapter; those that read the same weight share its sum with ΔW. */
function rewriteSites(
  graph: GraphBuilder,
  changes: Changes,
  sites: readonly PlainSite[],
  formOf: (site: PlainSite) => AllowedOperators,
): Rewritten {
  const first = sites[0];
  if (!first) return { composites: [], constants: [], products: [] };
  const { train, isSum } = kindOf(first.adapter);
  const adapted = taken(graph, () => adaptedWeight(graph, first));
  const { value: weight } = adapted;
  const axis = first.transposed ? 1 : 0;
  const scaling = taken(graph, () => train.gain?.(graph, first.adapter, { weight, axis }));
  changes.insert(
    [...adapted.nodes, ...scaling.nodes],
    sites.map(({ node }) => node),
  );
  const shared = adapted.nodes.map(({ name }) => name);
  const products = sites.map((one) => {
    const { node, after } = productWith(graph, one, weight, scaling.value?.gain);
    changes.replace(one.node, node, ...after);
    if (one.sum) changes.replace(one.sum, { ...one.sum, outputs: [one.output] });
    changes.drop(one.site.nodes);
    const output = node.outputs[0]!;
    return { site: one, weight, output, nodes: new Set([...shared, node.name]) };
  });
  return {
    composites: isSum ? products.map((made) => composite(made, formOf(made.site))) : [],
    constants: scaling.value ? [scaling.value.constant] : [],
    products: products.map(({ output }) => output),
  };
}

/** Takes the nodes that `build` adds out of the graph again, and returns them. */
function taken<T>(graph: GraphBuilder, build: () => T): { value: T; nodes: NewNode[] } {
  const start = graph.nodes.length;
  const value = build();
  return { value, nodes: graph.nodes.splice(start) };
}

/** The layer with another weight; with a gain, its product scaled column by column, then its bias. */
function productWith(
  graph: GraphBuilder,
  { node, sum, output }: PlainSite,
  weight: string,
  gain: string | undefined,
): { node: NewNode; after: readonly NewNode[] } {
  const name = graph.fresh(`${node.name || output}/adapted`);
  const [input, , ...rest] = node.inputs;
  const adapted = { ...node, name, inputs: [input!, weight, ...rest] };
  if (gain === undefined) {
    return { node: { ...adapted, outputs: [sum ? node.outputs[0]! : output] }, after: [] };
  }
  const product = { ...adapted, inputs: [input!, weight], outputs: [name] };
  const [bias] = rest;
  const { nodes, value } = taken(graph, () => {
    const scaled = graph.op('Mul', [name, gain], {}, `${name}/scaled`);
    return bias ? graph.op('Add', [scaled, scaledBias(graph, node, bias)]) : scaled;
  });
  const last = nodes.at(-1)!;
  return {
    node: product,
    after: nodes.map((one) => (one === last && value ? { ...one, outputs: [output] } : one)),
  };
}

function scaledBias(graph: GraphBuilder, node: NewNode, bias: string): string {
  const beta = betaOf(node);
  return beta === 1 ? bias : graph.op('Mul', [bias, graph.scalar('float32', beta)]);
}

/** The weight of the adapter's kind, in the layout of W. */
function adaptedWeight(graph: GraphBuilder, { adapter, structure, weight, transposed }: PlainSite) {
  const { a, b, generalA, generalB, scaleTensor: scale } = adapter;
  const delta = deltaMatrix(graph, structure, { a, b, generalA, generalB, scale });
  const asStored = transposed
    ? graph.op('Transpose', [delta], { perm: { ints: [1, 0] } }, 'delta/transpose')
    : delta;
  return kindOf(adapter).train.weight(graph, weight, asStored);
}

/** The product of a site with its adapted weight, and the nodes of both. */
interface AdaptedProduct {
  readonly site: PlainSite;
  readonly weight: string;
  readonly output: string;
  readonly nodes: ReadonlySet<string>;
}

function composite(
  { site, weight, output, nodes }: AdaptedProduct,
  allowed: AllowedOperators,
): Composite {
  const { adapter, structure, node, input, transposed } = site;
  const { a, b, generalA, generalB, scale, hybridRank } = adapter;
  // A product that is scaled has no bias in it.
  const isScaled = kindOf(adapter).train.gain !== undefined;
  const bias = node.opType === 'Gemm' && !isScaled ? node.inputs[2] : undefined;
  const rule: GradientRule = ({ dy: [dy], c }) => {
    const values = { x: input, dy: dy!, a, b };
    const grid = factorGradients(c, structure, scale, values, allowed);
    const whole: Structure = {
      ...structure,
      grid: [1, 1],
      structure: 'global',
      blockRank: hybridRank,
    };
    const general = () =>
      factorGradients(c, whole, scale, { ...values, a: generalA!, b: generalB! }, allowed);
    return [
      () => c.matMul(dy!, transposed ? weight : c.swapLast(weight)),
      grid.a,
      grid.b,
      ...(generalA ? [() => general().a(), () => general().b()] : []),
      ...(bias ? [() => c.sumTo(c.scale(dy!, betaOf(node)), bias)] : []),
    ];
  };
  const factors = [a, b, ...(generalA && generalB ? [generalA, generalB] : [])];
  return { nodes, inputs: [input, ...factors, ...(bias ? [bias] : [])], output, rule };
}

function betaOf({ attributes = {} }: NewNode): number {
  const beta = attributes.beta;
  return beta && 'float' in beta ? beta.float : 1;
}
