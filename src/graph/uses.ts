/**
 * Who makes a value and who reads it, across If/Loop/Scan bodies: a body sees the values of the
 * graphs around it, a function body sees its own only.
 */
import {
  allGraphs,
  enclosingGraphs,
  type Graph,
  type Model,
  type Node,
  type Tensor,
} from '../onnx/model.js';

/** The thing that a name refers to, where it is defined. */
export interface Value {
  /** Name of the value. */
  readonly name: string;
  /** The graph that defines it. */
  readonly graph: Graph;
  /** The node that computes it. */
  readonly producer: Node | undefined;
  /** The tensor it is initialized with. */
  readonly initializer: Tensor | undefined;
  /** A graph input; with an initializer too, that one is its default. */
  readonly isInput: boolean;
  /** Every place that reads it. */
  readonly uses: readonly Use[];
}

/** A reading of a value: an input of a node, or an output of a graph (`node` undefined). */
export interface Use {
  /** The node that reads it; undefined for an output of the graph. */
  readonly node: Node | undefined;
  /** The graph of that node. */
  readonly graph: Graph;
  /** Which input of the node, or output of the graph, counted from 0. */
  readonly index: number;
}

type MutableValue = Value & { readonly uses: Use[] };

/** The values of a whole model, main graph and functions. */
export class ValueIndex {
  private readonly scopes = new Map<Graph, Map<string, MutableValue>>();

  constructor(
    /** The model. */
    readonly model: Model,
  ) {
    for (const root of [model.graph, ...model.functions.map((f) => f.body)]) {
      for (const graph of allGraphs(root)) this.define(graph);
    }
    for (const graph of this.scopes.keys()) this.connect(graph);
  }

  /** The value that `name` means inside `graph`; undefined for '' and for names nobody defines. */
  resolve(graph: Graph, name: string): Value | undefined {
    return this.find(graph, name);
  }

  private find(graph: Graph, name: string): MutableValue | undefined {
    if (name === '') return undefined;
    for (const scope of enclosingGraphs(graph)) {
      const value = this.scopes.get(scope)?.get(name);
      if (value) return value;
    }
    return undefined;
  }

  private define(graph: Graph): void {
    const scope = new Map<string, MutableValue>();
    const add = (name: string, made: Partial<Value>) => {
      if (name === '') return;
      const { producer, initializer, isInput = false } = { ...scope.get(name), ...made };
      scope.set(name, { name, graph, producer, initializer, isInput, uses: [] });
    };
    for (const input of graph.inputs) add(input.name, { isInput: true });
    for (const tensor of graph.initializers.values()) add(tensor.name, { initializer: tensor });
    for (const node of graph.nodes) {
      for (const output of node.outputs) add(output, { producer: node });
    }
    this.scopes.set(graph, scope);
  }

  private connect(graph: Graph): void {
    for (const node of graph.nodes) {
      node.inputs.forEach((name, index) => {
        this.find(graph, name)?.uses.push({ node, graph, index });
      });
    }
    graph.outputs.forEach(({ name }, index) => {
      this.find(graph, name)?.uses.push({ node: undefined, graph, index });
    });
  }
}
