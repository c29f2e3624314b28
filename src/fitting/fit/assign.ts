/** Assigns changes to adapters where they can represent them, and to the rest elsewhere. */

import { findLayers, type Layer } from '../../adapters/model/layers.js';
import type { OpenedModel } from '../../adapters/model/opened.js';
import { type Selection, select } from '../../adapters/targets/select.js';
import { traceConstant } from '../../graph/constants.js';
import type { ConstantPair, Pairing } from '../../graph/isomorphism.js';
import { finalReaders } from '../../graph/readers.js';
import { type Node, nodeLabel, type Tensor } from '../../onnx/model.js';
import type { ChangedLayer, ChangedTensor } from './changed.js';

/** The constants of both models, and those of them that differ. */
export interface Compared extends Pick<Pairing, 'nodes'> {
  readonly pairs: readonly ConstantPair[];
  readonly changed: readonly ConstantPair[];
}

/**
 * A layer gets an adapter where nothing else reads its weight. Exporters store equal tensors once, as
 * those of layers that start alike: where training made them differ, each node has an adapter of its own.
 */
export function assign(
  base: OpenedModel,
  tuned: OpenedModel,
  compared: Compared,
  selection: Selection,
): { layers: ChangedLayer[]; rest: ChangedTensor[] } {
  const apart = withSeveralPartners(compared.pairs);
  const finder = new LayerFinder(base, tuned, compared.nodes, selection);
  const layers: ChangedLayer[] = [];
  const rest: ChangedTensor[] = [];
  for (const changed of compared.changed) {
    const isApart = apart.has(changed.first.tensor);
    const found = isApart ? finder.nodesOf(changed) : finder.layersOf(changed);
    const pair = { name: changed.name, base: changed.first.tensor, tuned: changed.second.tensor };
    if (Array.isArray(found)) layers.push(...found.map((layer) => ({ layer, ...pair })));
    else rest.push({ ...pair, ...found, obstacle: obstacle(base, changed, isApart) });
  }
  const order = new Map(base.model.graph.nodes.map((node, i) => [node, i]));
  const at = ({ layer }: ChangedLayer) => order.get(layer.nodes[0]!) ?? order.size;
  layers.sort((a, b) => at(a) - at(b));
  rest.sort((a, b) => a.base.field.start - b.base.field.start);
  return { layers, rest };
}

/** Tensors of the base model that are several in the other. */
function withSeveralPartners(pairs: readonly ConstantPair[]): Set<Tensor> {
  const seen = new Set<Tensor>();
  const apart = new Set<Tensor>();
  for (const { first } of pairs) (seen.has(first.tensor) ? apart : seen).add(first.tensor);
  return apart;
}

function obstacle(base: OpenedModel, { first }: ConstantPair, isApart: boolean) {
  if (isApart) return 'is stored once in the base model and twice in the tuned one';
  if (first.graph === base.model.graph) return undefined;
  return 'is in the body of an If, Loop, Scan or function';
}

/** The reason why no adapter represents a change. */
interface Reason {
  readonly reason: string;
}

class LayerFinder {
  private readonly all: readonly Layer[];
  private readonly single: readonly Layer[];
  private readonly selected: ReadonlySet<Layer>;

  constructor(
    private readonly base: OpenedModel,
    private readonly tuned: OpenedModel,
    private readonly nodes: ReadonlyMap<Node, Node>,
    selection: Selection,
  ) {
    this.all = findLayers(base.patched);
    this.single = findLayers(base.patched, true);
    const chosen = [...select(this.all, selection), ...select(this.single, selection)];
    this.selected = new Set(chosen);
  }

  /** The layers of a tensor, each with all nodes that use it. */
  layersOf({ first }: ConstantPair): Layer[] | Reason {
    const users = this.all.filter((layer) => weightOf(layer) === first.tensor);
    const own = new Set(users.flatMap(({ linear }) => linear.map(({ node }) => node)));
    return this.unlessRead(users, finalReaders(this.base.patched.values, first), own);
  }

  /** Of the nodes that use a tensor those that use its partner in the tuned model. */
  nodesOf({ first, second }: ConstantPair): Layer[] | Reason {
    const users = this.single.filter(
      (layer) => weightOf(layer) === first.tensor && this.partnerOf(layer) === second.tensor,
    );
    const own = new Set(users.map(({ nodes: [node] }) => this.nodes.get(node!)!));
    return this.unlessRead(users, finalReaders(this.tuned.patched.values, second), own);
  }

  /** The tensor that a node's weight is in the tuned model. */
  private partnerOf({ linear: [layer] }: Layer): Tensor | undefined {
    const node = layer && this.nodes.get(layer.node);
    if (!node) return undefined;
    const name = node.inputs[layer.weight.input] ?? '';
    return traceConstant(this.tuned.patched.values, node.graph, name)?.tensor;
  }

  private unlessRead(
    users: Layer[],
    readers: ReturnType<typeof finalReaders>,
    own: ReadonlySet<Node>,
  ): Layer[] | Reason {
    const other = readers.flatMap(({ node }) => node ?? []).find((node) => !own.has(node));
    const by = other ? `read by ${nodeLabel(other)} (${other.opType})` : 'an output of a graph';
    if (users.length === 0) return { reason: by };
    if (other) return { reason: `${by} beside its linear layer` };
    const left = users.find((layer) => !this.selected.has(layer));
    return left ? { reason: `${left.module} is not among the targets` } : users;
  }
}

function weightOf({ linear }: Layer): Tensor | undefined {
  return linear[0]?.weight.constant?.tensor;
}
