/**
 * Nodes in an order in which each comes after what it reads. ONNX asks for one, but runtimes sort for
 * themselves, and converters that put their Casts at the end leave it to them.
 */
import { OnnxLoraError } from '../errors.js';
import { type Graph, type Node, nodeLabel } from '../onnx/model.js';
import { capturesOf } from './captures.js';

/**
 * The nodes of a graph, sorted: those that are in order already keep their places.
 * @throws OnnxLoraError `invalid-model`, naming the nodes, where some of them read each other in a circle
 */
export function sortedNodes({ nodes }: Graph): readonly Node[] {
  const producers = producersOf(nodes);
  const sorted = new Set<Node>();
  // Not by recursion: a chain may be as long as the graph.
  const path: Visit[] = [];
  const onPath = new Set<Node>();
  const visit = (node: Node) => {
    if (onPath.has(node)) throw circle(path, node);
    path.push({ node, sources: sourcesOf(node, producers) });
    onPath.add(node);
  };
  for (const root of nodes) {
    if (!sorted.has(root)) visit(root);
    for (let last = path.at(-1); last; last = path.at(-1)) {
      const { value: source } = last.sources.next();
      if (source && !sorted.has(source)) visit(source);
      if (source) continue;
      path.pop();
      onPath.delete(last.node);
      sorted.add(last.node);
    }
  }
  return [...sorted];
}

/** A node on the way, and those it reads that have not been looked at. */
interface Visit {
  readonly node: Node;
  readonly sources: Generator<Node, undefined>;
}

function producersOf(nodes: readonly Node[]): Map<string, Node> {
  const producers = new Map<string, Node>();
  for (const node of nodes) {
    for (const name of node.outputs) if (name !== '') producers.set(name, node);
  }
  return producers;
}

/** The nodes whose outputs a node reads, in its bodies too. */
function* sourcesOf(node: Node, producers: ReadonlyMap<string, Node>): Generator<Node, undefined> {
  const bodies = [...node.attributes.values()].flatMap(({ graphs }) => graphs);
  for (const name of [...node.inputs, ...bodies.flatMap(capturesOf)]) {
    const source = producers.get(name);
    if (source) yield source;
  }
  return undefined;
}

// An error is a few lines.
const MAX_SHOWN = 8;

function circle(path: readonly Visit[], node: Node): OnnxLoraError {
  const start = path.findIndex((visit) => visit.node === node);
  // The path goes from readers to what they read; data flow the other way.
  const names = [...path.slice(start).map((visit) => visit.node), node].reverse().map(nodeLabel);
  const shown = names.length > MAX_SHOWN ? [...names.slice(0, MAX_SHOWN), '..'] : names;
  return new OnnxLoraError(
    'invalid-model',
    `the graph has a circle: ${shown.join(' -> ')}, expected nodes that do not read their own results`,
    { node: nodeLabel(node), hint: 'No runtime can run such a model: export it again.' },
  );
}
