/**
 * Two models of one architecture, whatever their values are called and in whatever order their nodes
 * stand: which constant of one is which of the other. Both graphs are walked from their outputs back.
 */
import { OnnxLoraError } from '../errors.js';
import { findDataType } from '../onnx/dtype.js';
import type { TensorPlace } from '../onnx/external.js';
import {
  type Attribute,
  type FunctionDef,
  type Graph,
  type Model,
  type Node,
  nodeLabel,
  type Tensor,
} from '../onnx/model.js';
import { storedTensor } from './constants.js';
import { type Value, ValueIndex } from './uses.js';

/** A constant of one model and its counterpart in the other. */
export interface ConstantPair {
  /** The value's name in the first model. */
  readonly name: string;
  readonly first: TensorPlace;
  readonly second: TensorPlace;
}

/** Pairs of corresponding things in two models. */
export interface Pairing {
  /** A constant that one of the models stores once and the other twice is in two pairs. */
  readonly constants: readonly ConstantPair[];
  /** The second model's node for each of the first. */
  readonly nodes: ReadonlyMap<Node, Node>;
}

/**
 * Pairs the nodes and constants of two models with the same graph; what no output depends on is left out.
 * @throws OnnxLoraError `model-mismatch` with the first node at which the graphs differ
 */
export function pairGraphs(first: Model, second: Model): Pairing {
  const walk = new Walk(first, second);
  walk.pairGraphs(first.graph, second.graph, undefined);
  walk.run();
  if (walk.differences.length > 0) throw walk.mismatch();
  return walk;
}

/** A point at which the graphs differ, and the place of its node in the first one. */
interface Difference {
  readonly order: number;
  readonly node: string | undefined;
  readonly text: string;
}

/** A value that a node or a graph reads, in both models. */
interface Reading {
  readonly graphs: readonly [Graph, Graph];
  readonly names: readonly [string, string];
  /** Its reader, for messages. */
  readonly reader: string;
  readonly node: Node | undefined;
}

class Walk implements Pairing {
  readonly constants: ConstantPair[] = [];
  readonly nodes = new Map<Node, Node>();
  readonly differences: Difference[] = [];
  private readonly values: readonly [ValueIndex, ValueIndex];
  private readonly pending: Reading[] = [];
  private readonly seen = new Map<unknown, Set<unknown>>();
  private readonly order = new Map<Node, number>();

  constructor(
    private readonly first: Model,
    private readonly second: Model,
  ) {
    this.values = [new ValueIndex(first), new ValueIndex(second)];
    for (const [i, node] of first.graph.nodes.entries()) this.order.set(node, i);
  }

  run(): void {
    for (let next = this.pending.pop(); next; next = this.pending.pop()) this.read(next);
  }

  /** Two graphs, by their outputs; a body's inputs are paired when they are read. */
  pairGraphs(a: Graph, b: Graph, node: Node | undefined): void {
    if (!this.isNew(a, b)) return;
    const where = node ? `the body of ${nodeLabel(node)}` : 'the graph';
    for (const kind of ['inputs', 'outputs'] as const) {
      const [x, y] = [a, b].map((graph) => (kind === 'inputs' ? ownInputs(graph) : graph[kind]));
      if (x!.length === y!.length) continue;
      this.differ(node, `${where} has ${x!.length} ${kind}, in the other ${y!.length}`);
      return;
    }
    a.outputs.forEach(({ name }, i) => {
      const names = [name, b.outputs[i]!.name] as const;
      this.pending.push({ graphs: [a, b], names, reader: `output ${i} of ${where}`, node });
    });
  }

  mismatch(): OnnxLoraError {
    const { first, second, differences } = this;
    const [earliest] = differences.sort((a, b) => a.order - b.order);
    const more = differences.length > 1 ? ` (the first of ${differences.length} differences)` : '';
    const [types, otherTypes] = [first, second].map(matrixTypes);
    const apart =
      types === otherTypes ? '' : `; weights are ${types} in one, ${otherTypes} in the other`;
    return new OnnxLoraError(
      'model-mismatch',
      `the graphs of ${first.source.label} and ${second.source.label} differ: ${earliest!.text}${more}${apart}`,
      {
        node: earliest!.node,
        hint: 'Both have to be exported the same way from the same architecture, and not optimized or quantized since.',
      },
    );
  }

  private read(reading: Reading): void {
    const [a, b] = reading.names.map((name, i) => this.origin(i, reading.graphs[i]!, name));
    if (!a && !b) return;
    if (!this.isNew(a, b)) return;
    const [x, y] = [a, b].map(
      (value, i) => value && storedTensor(this.values[i]!, value.graph, value.name),
    );
    if (x && y) this.pairConstants(reading, a!, x, y);
    else if (x || y || kindOf(a) !== kindOf(b)) {
      this.differ(
        reading.node,
        `${reading.reader} is ${described(a)}, in the other ${described(b)}`,
      );
    } else if (a!.producer) this.pairNodes(a!, b!);
    else this.pairInputs(reading, a!, b!);
  }

  private pairConstants(
    { node, reader }: Reading,
    value: Value,
    x: TensorPlace,
    y: TensorPlace,
  ): void {
    const [shape, other] = [x, y].map(({ tensor }) => tensor.dims.join(', '));
    const [type, otherType] = [x, y].map(({ tensor }) => findDataType(tensor.dataType));
    const { name } = value;
    if (shape !== other) {
      this.differ(node, `${name} (${reader}) has the shape [${shape}], in the other [${other}]`);
    } else if (x.tensor.dataType !== y.tensor.dataType) {
      this.differ(node, `${name} (${reader}) is ${type}, in the other ${otherType}`);
    } else this.constants.push({ name, first: x, second: y });
  }

  private pairInputs({ node, reader }: Reading, a: Value, b: Value): void {
    const position = ({ graph, name }: Value) =>
      ownInputs(graph).findIndex((input) => input.name === name);
    if (position(a) === position(b)) return;
    this.differ(node, `${reader} is the input ${a.name}, in the other ${b.name}`);
  }

  private pairNodes(a: Value, b: Value): void {
    const [x, y] = [a.producer!, b.producer!];
    if (x.outputs.indexOf(a.name) !== y.outputs.indexOf(b.name)) {
      this.differ(
        x,
        `output ${x.outputs.indexOf(a.name)} of ${nodeLabel(x)} is read, in the other ${y.outputs.indexOf(b.name)}`,
      );
    }
    if (!this.isNew(x, y)) return;
    const difference = this.nodeDifference(x, y);
    if (difference !== undefined) {
      this.differ(x, difference);
      return;
    }
    this.nodes.set(x, y);
    inputsOf(x).forEach((name, i) => {
      const names = [name, inputsOf(y)[i]!] as const;
      const reader = `input ${i} of ${nodeLabel(x)}`;
      this.pending.push({ graphs: [x.graph, y.graph], names, reader, node: x });
    });
    for (const [name, { graphs }] of x.attributes) {
      const others = y.attributes.get(name)!.graphs;
      for (const [i, graph] of graphs.entries()) this.pairGraphs(graph, others[i]!, x);
    }
    const [f, g] = [functionOf(this.first, x), functionOf(this.second, y)];
    if (f && g) this.pairGraphs(f.body, g.body, x);
  }

  private nodeDifference(x: Node, y: Node): string | undefined {
    const [op, other] = [x, y].map(({ domain, opType }) =>
      domain ? `${domain}:${opType}` : opType,
    );
    if (op !== other) return `${nodeLabel(x)} is ${op}, in the other ${nodeLabel(y)} is ${other}`;
    const [count, otherCount] = [inputsOf(x).length, inputsOf(y).length];
    if (count !== otherCount) {
      return `${nodeLabel(x)} (${op}) has ${count} inputs, in the other ${otherCount}`;
    }
    for (const name of new Set([...x.attributes.keys(), ...y.attributes.keys()])) {
      const [left, right] = [
        this.attributeText(this.first, x, name),
        this.attributeText(this.second, y, name),
      ];
      if (left !== right) {
        return `${nodeLabel(x)} (${op}) has ${name} = ${left}, in the other ${right}`;
      }
    }
    return undefined;
  }

  private attributeText(model: Model, { attributes }: Node, name: string): string {
    const attribute = attributes.get(name);
    return attribute ? textOf(model, attribute) : 'nothing';
  }

  private origin(model: number, graph: Graph, name: string): Value | undefined {
    const values = this.values[model]!;
    let value = values.resolve(graph, name);
    // Exporters put an Identity where a tensor has two names, or leave it out.
    while (value?.producer?.opType === 'Identity' && value.producer.domain === '') {
      const { producer } = value;
      value = values.resolve(producer.graph, producer.inputs[0] ?? '');
    }
    return value;
  }

  private isNew(a: unknown, b: unknown): boolean {
    const partners = this.seen.get(a) ?? new Set();
    if (partners.has(b)) return false;
    this.seen.set(a, partners.add(b));
    return true;
  }

  private differ(node: Node | undefined, text: string): void {
    // Nodes of bodies have the place of the node that owns the body.
    let outer = node;
    while (outer?.graph.parent) outer = outer.graph.parent.node;
    const order = (outer && this.order.get(outer)) ?? Number.POSITIVE_INFINITY;
    this.differences.push({ order, node: node && nodeLabel(node), text });
  }
}

/** The types of a model's matrices: the first thing to look at where graphs differ. */
function matrixTypes({ graph }: Model): string {
  const matrices = [...graph.initializers.values()].filter(({ dims }) => dims.length === 2);
  const types = new Set(matrices.map(({ dataType }) => findDataType(dataType) ?? 'unknown'));
  return [...types].sort().join(' and ') || 'in no initializer';
}

/** Without the initializers that old files list as inputs too. */
function ownInputs({ inputs, initializers }: Graph) {
  return inputs.filter(({ name }) => !initializers.has(name));
}

/** Without optional inputs at the end that are left out. */
function inputsOf({ inputs }: Node): readonly string[] {
  return inputs.slice(0, inputs.findLastIndex((name) => name !== '') + 1);
}

function functionOf(model: Model, { domain, opType, overload }: Node): FunctionDef | undefined {
  return model.functions.find(
    (f) => f.domain === domain && f.name === opType && f.overload === overload,
  );
}

function kindOf(value: Value | undefined): string {
  if (!value) return 'nothing';
  return value.producer ? 'computed' : 'input';
}

function described(value: Value | undefined): string {
  if (!value) return 'left out';
  const { producer, name } = value;
  if (value.initializer || producer?.opType === 'Constant') return `the constant ${name}`;
  return producer ? `computed by ${nodeLabel(producer)} (${producer.opType})` : `the input ${name}`;
}

function textOf(model: Model, attribute: Attribute): string {
  const { f, i, s, floats, ints, tensor, graphs, refName } = attribute;
  if (tensor) return tensorText(model, tensor);
  if (graphs.length > 0) return `${graphs.length} graphs`;
  return JSON.stringify(f ?? i ?? s ?? refName ?? [...floats, ...ints]);
}

// Tensors of attributes hold a number or two; the weights of a Constant are compared elsewhere.
const SHOWN_BYTES = 64;

function tensorText({ source }: Model, { dataType, dims, data }: Tensor): string {
  const fields = data.kind === 'raw' ? [data.field] : data.kind === 'typed' ? data.fields : [];
  const bytes = fields.map(({ value, end }) =>
    Buffer.from(source.read(value, Math.min(end, value + SHOWN_BYTES))).toString('hex'),
  );
  return `${findDataType(dataType)} [${dims.join(', ')}] 0x${bytes.join('')}`;
}
