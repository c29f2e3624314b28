/**
 * Logits of a vocabulary are the largest tensors of a language model's step. In parts they never exist at once: the
 * nodes from the rows to the logits stand in the graph once for each part of the rows, with a loss and a gradient of
 * their own.
 */
import type { GraphBuilder } from '../../graph/builder.js';
import { capturedBy } from '../../graph/prune.js';
import type { NewNode } from '../../onnx/encode.js';

/** A value of rows [batch, length, features], and the nodes that make logits of it row by row. */
export interface RowSource {
  readonly rows: string;
  readonly nodes: ReadonlySet<NewNode>;
  /** Parts that the logits are to be computed in. */
  readonly parts: number;
}

// Below it, what a part saves is small beside the rest of a step.
const BYTES_OF_PART = 2 ** 25;

// Fewer rows leave a product's kernel waiting for the weight.
const ROWS_OF_PART = 64;

/** The number of parts that the logits of rows are computed in. @param rows undefined where it is not known */
export function partsOf(rows: number | undefined, classes: number): number {
  if (rows === undefined) return 1;
  const bytes = rows * classes * Float32Array.BYTES_PER_ELEMENT;
  const most = Math.floor(rows / ROWS_OF_PART);
  return Math.max(1, Math.min(Math.ceil(bytes / BYTES_OF_PART), most));
}

/**
 * Computes logits part by part.
 * @param source whose rows are [1, kept, features] with `kept` a multiple of `parts`
 * @returns the logits of each part, [1, kept / parts, classes]
 */
export function splitRows(
  graph: GraphBuilder,
  { rows, nodes }: RowSource,
  logits: string,
  parts: number,
): string[] {
  const ordered = graph.nodes.filter((node) => nodes.has(node));
  const others = graph.nodes.filter((node) => !nodes.has(node));
  const values = ordered.flatMap(({ outputs }) => outputs);
  const readElsewhere = new Set([
    ...others.flatMap((node) => [...node.inputs, ...capturedBy(node)]),
    ...graph.outputs.map(({ name }) => name),
  ]);
  const last = Math.max(...ordered.map((node) => graph.nodes.indexOf(node)));
  const behind = graph.nodes.splice(last + 1);
  graph.nodes.splice(0, graph.nodes.length, ...graph.nodes.filter((node) => !nodes.has(node)));
  const copies = splitIn(graph, rows, 1, parts).map((part) =>
    copied(graph, ordered, new Map([[rows, part]])),
  );
  for (const value of values.filter((name) => readElsewhere.has(name))) {
    const inputs = copies.map((copy) => copy.get(value)!);
    const name = graph.fresh(`${value}/joined`);
    const axis = { axis: { int: 1 } };
    graph.nodes.push({ name, opType: 'Concat', inputs, outputs: [value], attributes: axis });
  }
  graph.nodes.push(...behind);
  return copies.map((copy) => copy.get(logits)!);
}

/** Equal parts of a value along an axis. */
export function splitIn(
  graph: GraphBuilder,
  value: string,
  axis: number,
  parts: number,
): readonly string[] {
  if (parts === 1) return [value];
  const count = graph.opset >= 18 ? { num_outputs: { int: parts } } : {};
  return graph.ops('Split', [value], parts, { axis: { int: axis }, ...count }, `${value}/parts`);
}

/** Adds nodes again, with other names for what `names` has and for what they make; returns all of them. */
function copied(
  graph: GraphBuilder,
  nodes: readonly NewNode[],
  names: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const own = new Map(names);
  for (const node of nodes) {
    for (const name of node.outputs) own.set(name, graph.fresh(`${name}/part`));
    const renamed = (name: string) => own.get(name) ?? name;
    graph.add({
      ...node,
      name: graph.fresh(`${node.name}/part`),
      inputs: node.inputs.map(renamed),
      outputs: node.outputs.map(renamed),
    });
  }
  return own;
}
