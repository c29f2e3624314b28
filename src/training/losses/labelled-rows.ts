/**
 * The product that makes logits of a vocabulary is a large part of a language model's step, and a chat that trains
 * on its answers has labels in a small part of its rows: rows without a label are left out before that
 * product. They have no gradient and no loss, so that nothing but the order of sums changes.
 */
import type { GraphBuilder } from '../../graph/builder.js';
import { capturedBy } from '../../graph/prune.js';
import type { ValueTypes } from '../../graph/value-type.js';
import type { NewNode } from '../../onnx/encode.js';
import type { Dim } from '../../onnx/model.js';
import type { Logits } from './loss.js';
import { sizeOf, unsqueeze } from './operators.js';
import { partsOf, type RowSource, splitIn } from './row-parts.js';

// Below it the product is not what a step spends its time on.
const FEWEST_CLASSES = 1024;

/** Facts on a graph that are needed to leave rows out. */
export interface RowFilter {
  /** The graph input with what trains; all others are the batch. */
  readonly theta: string;
  /** Names of nodes that take each row by itself whatever they are: those of adapters. */
  readonly rowwise: ReadonlySet<string>;
  /** Values that have to keep their producers. */
  readonly fixed: ReadonlySet<string>;
  /** Names of nodes that go by their names, and cannot stand in the graph several times. */
  readonly single: ReadonlySet<string>;
  /** The number of elements of a shape in the data; undefined where it is not known. */
  elements(shape: readonly Dim[]): number | undefined;
}

/**
 * The rows that logits [batch, length, classes] are made from by one product with a matrix; undefined where none can be
 * left out: few classes, or nodes after the product that do not take rows one by one.
 * @param types of the graph's values, as far as they are known
 */
export function rowSource(
  graph: GraphBuilder,
  types: ValueTypes,
  { name: logits, shape }: Pick<Logits, 'name' | 'shape'>,
  { theta, rowwise, fixed, single, elements }: RowFilter,
): RowSource | undefined {
  const classes = shape?.at(-1);
  if (shape?.length !== 3 || typeof classes !== 'number' || classes < FEWEST_CLASSES) {
    return undefined;
  }
  const producers = new Map(graph.nodes.flatMap((node) => node.outputs.map((o) => [o, node])));
  const varies = dependents(graph, theta);
  const isRowwise = (node: NewNode) => rowwise.has(node.name) || takesRows(node, types, varies);
  for (const rows of productInputs(logits, { producers, varies, isRowwise })) {
    const nodes = between(rows, logits, { producers, varies, isRowwise });
    const isRows = types.get(rows)?.shape?.length === 3;
    if (!isRows || !nodes) continue;
    const isFree = producers.has(rows) && !fixed.has(rows);
    if (!isFree) continue;
    const isSingle = [...nodes].some(({ name }) => single.has(name));
    const parts = isSingle ? 1 : partsOf(elements(shape.slice(0, -1)), classes);
    return { rows, nodes, parts };
  }
  return undefined;
}

/** Values that depend on the batch. */
function dependents({ inputs, nodes }: GraphBuilder, theta: string): ReadonlySet<string> {
  const found = new Set(inputs.map(({ name }) => name).filter((name) => name !== theta));
  for (const node of nodes) {
    const reads = [...node.inputs, ...capturedBy(node)].some((name) => found.has(name));
    if (reads) for (const name of node.outputs) found.add(name);
  }
  return found;
}

const PRODUCTS = new Set(['MatMul', 'com.microsoft:FusedMatMul', 'com.microsoft:MatMulNBits']);
const ELEMENTWISE = new Set(['Add', 'Sub', 'Mul', 'Div', 'Cast', 'Identity', 'Tanh']);

const keyOfNode = ({ domain = '', opType }: NewNode) =>
  domain === '' || domain === 'ai.onnx' ? opType : `${domain}:${opType}`;

/** Whether a node takes each row of its batch-dependent inputs by itself, as far as this can be told. */
function takesRows(node: NewNode, types: ValueTypes, varies: ReadonlySet<string>): boolean {
  const key = keyOfNode(node);
  if (PRODUCTS.has(key)) return isRowProduct(node, types, varies);
  if (!ELEMENTWISE.has(key)) return false;
  const shape = (name: string) => types.get(name)?.shape;
  return node.inputs.every((name) => {
    if (name === '') return true;
    if (varies.has(name)) return shape(name)?.length === 3;
    // A constant that has rows of its own would have to lose some too.
    return (
      shape(name)
        ?.slice(0, -1)
        .every((dim) => dim === 1) ?? false
    );
  });
}

function isRowProduct(node: NewNode, types: ValueTypes, varies: ReadonlySet<string>): boolean {
  const { inputs, attributes = {} } = node;
  const [, ...others] = inputs;
  // One matrix for all samples: packed weights are one, and those that adapters were added to have no type yet.
  const weight = types.get(others[0]!);
  const isPacked = keyOfNode(node) === 'com.microsoft:MatMulNBits';
  const isMatrix = isPacked || weight === undefined || weight.shape?.length === 2;
  const moved = ['transA', 'transBatchA'].some((name) => {
    const value = attributes[name];
    return value !== undefined && 'int' in value && Number(value.int) !== 0;
  });
  return isMatrix && !moved && !others.some((name) => varies.has(name));
}

interface Walk {
  readonly producers: ReadonlyMap<string, NewNode>;
  readonly varies: ReadonlySet<string>;
  isRowwise(node: NewNode): boolean;
}

/** The values that the products before the logits read, the nearest first. */
function* productInputs(logits: string, { producers, varies, isRowwise }: Walk): Generator<string> {
  const seen = new Set<string>();
  const open = [logits];
  for (const value of open) {
    const node = producers.get(value);
    if (!node || seen.has(value) || !isRowwise(node)) continue;
    seen.add(value);
    const [first] = node.inputs;
    if (PRODUCTS.has(keyOfNode(node))) yield first!;
    open.push(...node.inputs.filter((name) => varies.has(name)));
  }
}

/** The nodes between rows and logits; undefined where the logits depend on the batch in another way too. */
function between(
  rows: string,
  logits: string,
  { producers, varies, isRowwise }: Walk,
): ReadonlySet<NewNode> | undefined {
  const nodes = new Set<NewNode>();
  const open = [logits];
  for (const value of open) {
    if (value === rows) continue;
    const node = producers.get(value);
    if (!node || !isRowwise(node)) return undefined;
    if (nodes.has(node)) continue;
    nodes.add(node);
    open.push(...node.inputs.filter((name) => varies.has(name)));
  }
  return nodes;
}

/**
 * Leaves rows out: what reads `rows` gets [1, kept, features].
 * @param index int64 [kept], of the rows with batch and length as one axis; its nodes read none of the rows
 */
export function keepRows(graph: GraphBuilder, { rows }: RowSource, index: string): void {
  const readers = dependentNodes(graph, rows);
  const all = graph.fresh(`${rows}/all`);
  const { nodes } = graph;
  const at = nodes.findIndex(({ outputs }) => outputs.includes(rows));
  const outputs = nodes[at]!.outputs.map((name) => (name === rows ? all : name));
  nodes[at] = { ...nodes[at]!, outputs };
  const features = graph.op('Gather', [graph.op('Shape', [all]), graph.integers([-1])]);
  const flat = graph.op('Concat', [graph.integers([-1]), features], { axis: { int: 0 } });
  const kept = graph.op('Gather', [graph.op('Reshape', [all, flat]), index], { axis: { int: 0 } });
  const batch = unsqueeze(graph, kept, 0);
  const last = nodes.pop()!;
  const ordered = nodes.filter((node) => !readers.has(node));
  const behind = nodes.filter((node) => readers.has(node));
  const renamed = { ...last, outputs: last.outputs.map((name) => (name === batch ? rows : name)) };
  nodes.splice(0, nodes.length, ...ordered, renamed, ...behind);
}

/** The nodes that depend on a value. */
function dependentNodes({ nodes }: GraphBuilder, value: string): ReadonlySet<NewNode> {
  const values = new Set([value]);
  const found = new Set<NewNode>();
  for (const node of nodes) {
    if (![...node.inputs, ...capturedBy(node)].some((name) => values.has(name))) continue;
    found.add(node);
    for (const name of node.outputs) values.add(name);
  }
  return found;
}

/** Logits with the labels of their rows. */
export interface LabelledRows {
  readonly logits: Logits;
  /** int32, the shape of the logits without their last axis. */
  readonly labels: string;
}

/**
 * Labels and logits of the rows that have a label, and of some that have none, so that there is a row in any
 * batch, and equally many in each part; as they are where rows are not to be left out.
 * @param labels int32 [batch, length]
 */
export function labelledOnly(
  graph: GraphBuilder,
  logits: Logits,
  labels: string,
  ignoreIndex: number,
): readonly LabelledRows[] {
  if (!logits.only) return [{ logits, labels }];
  const { parts = 1 } = logits;
  const ignored = graph.constant('int32', [1], [ignoreIndex]);
  const flat = graph.op('Reshape', [labels, graph.integers([-1])]);
  const places = graph.op('NonZero', [graph.op('Not', [graph.op('Equal', [flat, ignored])])]);
  const index = graph.op('Reshape', [places, graph.integers([-1])]);
  const missing = missingRows(graph, index, parts);
  const joined = (values: string, one: string) =>
    graph.op('Concat', [values, graph.op('Expand', [one, missing])], { axis: { int: 0 } });
  const found = graph.op('Gather', [flat, index], { axis: { int: 0 } });
  const own = splitIn(graph, joined(found, ignored), 0, parts);
  const kept = logits.only(joined(index, graph.integers([0])));
  return kept.map((part, i) => ({ logits: part, labels: unsqueeze(graph, own[i]!, 0) }));
}

/** The number of rows, one at least, that makes the length of `index` a multiple of `parts`: int64 [1]. */
function missingRows(graph: GraphBuilder, index: string, parts: number): string {
  if (parts === 1) return graph.integers([1]);
  const whole = graph.integers([parts]);
  const count = unsqueeze(graph, sizeOf(graph, index, 0), 0);
  return graph.op('Sub', [whole, graph.op('Mod', [count, whole])]);
}
