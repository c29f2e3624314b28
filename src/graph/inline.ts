/**
 * A model's main graph without calls of model-local functions, and without Ifs that always go the same
 * way: their nodes take its place. What depends on data (Loop, Scan, other Ifs) stays. The nodes come
 * out in order, whatever their order in the file.
 */
import type onnxProto from 'onnx-proto';
import { OnnxLoraError } from '../errors.js';
import { toIntegers } from '../onnx/dtype.js';
import { stringRecord } from '../onnx/encode.js';
import { AttributeField } from '../onnx/fields.js';
import {
  type Attribute,
  allGraphs,
  elementCount,
  type FunctionDef,
  type Graph,
  type Model,
  type Node,
  nodeLabel,
  standardOpset,
  type Tensor,
} from '../onnx/model.js';
import { onnx } from '../onnx/proto.js';
import { dtypeOf, type TensorReader } from '../onnx/tensor.js';
import { capturesOf, definedIn } from './captures.js';
import { sortedNodes } from './sort.js';

// Calls nest a few levels deep; a function that calls itself never ends, and ten levels of functions
// that call the next one ten times make a graph that no memory holds.
const MAX_DEPTH = 64;
const MAX_NODES = 1_000_000;

/** A node with the names and attributes that it has in the place of the call. */
export interface InlinedNode extends Omit<Node, 'attributes'> {
  readonly attributes: ReadonlyMap<string, InlinedAttribute>;
}

export interface InlinedAttribute extends Attribute {
  /** The encoded AttributeProto. */
  encoded(): Uint8Array;
  /** Values around it that the bodies in it read. */
  readonly captures: readonly string[];
}

export interface Inlined {
  readonly nodes: readonly InlinedNode[];
  /** Weights of the graph and of the branches that are part of it now. */
  readonly initializers: readonly { readonly name: string; readonly tensor: Tensor }[];
  readonly places: NodePlaces;
}

/**
 * Names of a model's node outputs in a graph without constant Ifs, where branches may have
 * used the same names; none for those of a branch that is never taken. Nodes of bodies that stay are not here.
 */
export type NodePlaces = ReadonlyMap<Node, readonly string[]>;

/**
 * @param fixed inputs that are the same number in every run
 * @throws OnnxLoraError `unsupported`, naming the node, for functions that call themselves, are called
 * from a body that stays, or are written in another opset
 */
export function inline(
  model: Model,
  reader: TensorReader,
  fixed: ReadonlyMap<string, { readonly value: number }> = new Map(),
): Inlined {
  return new Inliner(model, reader).run(fixed);
}

/** Meanings of names and attributes at the place of a node. */
interface Scope {
  readonly depth: number;
  /** In front of the names of nodes: those of a function repeat. */
  readonly prefix: string;
  readonly names: ReadonlyMap<string, string>;
  /** Inside a branch: the graph around it. A function sees its own values only. */
  readonly outer: Scope | undefined;
  /** Inside a function: the attributes of the call. */
  readonly attributes: ReadonlyMap<string, InlinedAttribute>;
}

class Inliner {
  private readonly functions: ReadonlyMap<string, FunctionDef>;
  private readonly taken = new Set<string>();
  private readonly nodes: InlinedNode[] = [];
  private readonly initializers: { name: string; tensor: Tensor }[] = [];
  /** Values that are the same number whatever is fed. */
  private readonly scalars = new Map<string, number>();
  private readonly places = new Map<Node, readonly string[]>();
  private entered = 0;

  constructor(
    private readonly model: Model,
    private readonly reader: TensorReader,
  ) {
    this.functions = new Map(
      model.functions.map((f) => [functionKey(f.domain, f.name, f.overload), f]),
    );
  }

  run(fixed: ReadonlyMap<string, { readonly value: number }>): Inlined {
    const { graph } = this.model;
    for (const [name, { value }] of fixed) this.scalars.set(name, value);
    const own = [...definedIn(graph)];
    for (const name of own) this.taken.add(name);
    const scope = {
      depth: 0,
      prefix: '',
      names: new Map(own.map((name) => [name, name])),
      outer: undefined,
      attributes: new Map(),
    };
    const overridable = new Set(graph.inputs.map(({ name }) => name));
    this.addInitializers(graph, scope, overridable);
    for (const node of sortedNodes(graph)) this.add(node, scope);
    return { nodes: this.nodes, initializers: this.initializers, places: this.places };
  }

  private addInitializers(graph: Graph, scope: Scope, overridable = new Set<string>()): void {
    for (const tensor of graph.initializers.values()) {
      const name = resolve(scope, tensor.name);
      this.initializers.push({ name, tensor });
      if (!overridable.has(name)) this.noteScalar(name, tensor);
    }
  }

  private add(original: Node, scope: Scope): void {
    const node = this.inScope(original, scope);
    this.places.set(original, node.outputs);
    const callee = this.functions.get(functionKey(node.domain, node.opType, node.overload));
    if (callee) this.addCall(node, callee, scope);
    else if (node.opType === 'If' && node.domain === '' && this.scalars.has(node.inputs[0]!)) {
      this.addBranch(node, scope);
    } else this.keep(node);
  }

  private keep(node: InlinedNode): void {
    if (this.nodes.push(node) > MAX_NODES) {
      throw unsupported(node, `inlining functions makes more than ${MAX_NODES} nodes`);
    }
    this.noteConstant(node);
    for (const { graphs } of node.attributes.values()) {
      const called = [...graphs].flatMap((body) => [...allGraphs(body)]).flatMap((g) => g.nodes);
      const call = called.find((n) =>
        this.functions.has(functionKey(n.domain, n.opType, n.overload)),
      );
      if (call) throw unsupported(node, `its body calls the function ${call.opType}`);
    }
  }

  private addCall(call: InlinedNode, callee: FunctionDef, { depth }: Scope): void {
    const opset = callee.opsets.find(({ domain }) => domain === '')?.version;
    const expected = standardOpset(this.model);
    if (opset !== undefined && opset !== expected) {
      throw unsupported(
        call,
        `the function ${callee.name} is written in opset ${opset}, the model in ${expected}`,
      );
    }
    const { body } = callee;
    const given = body.inputs.map(({ name }, i) => [name, call.inputs[i] ?? ''] as const);
    const scope = this.enter(
      call,
      depth,
      body,
      undefined,
      given,
      new Map([...this.defaults(callee), ...call.attributes]),
    );
    this.addBody(call, body, scope);
  }

  private addBranch(node: InlinedNode, outer: Scope): void {
    const taken = this.scalars.get(node.inputs[0]!) !== 0 ? 'then_branch' : 'else_branch';
    const body = node.attributes.get(taken)?.graphs[0];
    if (!body) throw unsupported(node, `it has no ${taken}`);
    for (const { graphs } of node.attributes.values()) {
      for (const other of graphs) if (other !== body) this.leaveOut(other);
    }
    const scope = this.enter(node, outer.depth, body, outer, [], outer.attributes);
    this.addInitializers(body, scope);
    this.addBody(node, body, scope);
  }

  private leaveOut(branch: Graph): void {
    for (const { nodes } of allGraphs(branch)) for (const node of nodes) this.places.set(node, []);
  }

  /** The nodes of a body, and its results under the names that the call gives them. */
  private addBody(call: InlinedNode, body: Graph, scope: Scope): void {
    for (const node of sortedNodes(body)) this.add(node, scope);
    for (const [i, output] of call.outputs.entries()) {
      const result = body.outputs[i];
      if (output === '' || !result) continue;
      const name = `${nodeLabel(call)}/${result.name}`;
      const inputs = [resolve(scope, result.name)];
      const identity = { opType: 'Identity', domain: '', overload: '', attributes: new Map() };
      this.keep({ ...call, ...identity, name, inputs, outputs: [output] });
    }
  }

  private enter(
    call: InlinedNode,
    depth: number,
    body: Graph,
    outer: Scope | undefined,
    given: readonly (readonly [string, string])[],
    attributes: Scope['attributes'],
  ): Scope {
    if (depth === MAX_DEPTH) {
      throw unsupported(call, `functions are nested deeper than ${MAX_DEPTH} calls`);
    }
    if (++this.entered > MAX_NODES) {
      throw unsupported(call, `there are more than ${MAX_NODES} calls of functions`);
    }
    const names = new Map(given);
    // The values of a branch have names of their own already.
    const prefix = outer ? outer.prefix : `${nodeLabel(call)}/`;
    for (const name of definedIn(body)) {
      if (!names.has(name)) names.set(name, this.fresh(`${prefix}${name}`));
    }
    return { depth: depth + 1, prefix, names, outer, attributes };
  }

  private fresh(wanted: string): string {
    let name = wanted;
    for (let i = 1; this.taken.has(name); i++) name = `${wanted}_${i}`;
    this.taken.add(name);
    return name;
  }

  /** The node with its names and attributes replaced by their meanings. */
  private inScope(node: Node, scope: Scope): InlinedNode {
    const named = (names: readonly string[]) => names.map((name) => resolve(scope, name));
    const attributes = [...node.attributes.values()].flatMap((attribute) => {
      const found = this.attribute(attribute, scope);
      return found ? [[attribute.name, found] as const] : [];
    });
    return {
      ...node,
      name: node.name && `${scope.prefix}${node.name}`,
      inputs: named(node.inputs),
      outputs: named(node.outputs),
      attributes: new Map(attributes),
    };
  }

  /** An attribute; in a function it may be one of the call's, which may have left it out. */
  private attribute(attribute: Attribute, scope: Scope): InlinedAttribute | undefined {
    const { refName, name } = attribute;
    if (refName === undefined) return this.inPlace(attribute, scope);
    const given = scope.attributes.get(refName);
    // The last name counts: https://protobuf.dev/programming-guides/encoding/#last-one-wins
    const renamed = () =>
      Buffer.concat([given!.encoded(), stringRecord(AttributeField.name, name)]);
    return given && { ...given, name, encoded: renamed };
  }

  private inPlace(attribute: Attribute, scope: Scope): InlinedAttribute {
    const { field, graphs } = attribute;
    const bytes = () => this.model.source.read(field.value, field.end);
    const captures = [...new Set(graphs.flatMap(capturesOf))].map((name) => resolve(scope, name));
    if (graphs.length === 0 || scope.depth === 0) return { ...attribute, encoded: bytes, captures };
    return { ...attribute, encoded: () => this.renamedBodies(bytes(), scope), captures };
  }

  private defaults({ defaults }: FunctionDef): [string, InlinedAttribute][] {
    const nowhere = {
      depth: 0,
      prefix: '',
      names: new Map(),
      outer: undefined,
      attributes: new Map(),
    };
    return [...defaults].map(([name, attribute]) => [name, this.inPlace(attribute, nowhere)]);
  }

  /** An attribute whose bodies stay bodies, with the names of its new place. */
  private renamedBodies(bytes: Uint8Array, scope: Scope): Uint8Array {
    const attribute = onnx.AttributeProto.decode(bytes);
    for (const body of bodiesOf(attribute)) this.renameBody(body, scope);
    return onnx.AttributeProto.encode(attribute).finish();
  }

  private renameBody(body: onnxProto.onnx.IGraphProto, outer: Scope): void {
    const { node = [], input = [], initializer = [], output = [], valueInfo = [] } = body;
    const own = [...input!, ...initializer!].map(({ name }) => name!);
    const made = node!.flatMap((one) => one.output ?? []).filter((name) => name !== '');
    const names = new Map([...own, ...made].map((name) => [name, this.fresh(name)]));
    const scope = { ...outer, names, outer };
    for (const one of [...input!, ...initializer!, ...output!, ...valueInfo!]) {
      one.name = resolve(scope, one.name!);
    }
    for (const one of node!) {
      one.input = (one.input ?? []).map((name) => resolve(scope, name));
      one.output = (one.output ?? []).map((name) => resolve(scope, name));
      one.attribute = (one.attribute ?? []).flatMap((attribute) => {
        if (!attribute.refAttrName) return [attribute];
        const given = scope.attributes.get(attribute.refAttrName);
        return given
          ? [
              onnx.AttributeProto.create({
                ...onnx.AttributeProto.decode(given.encoded()),
                name: attribute.name!,
              }),
            ]
          : [];
      });
      for (const inner of one.attribute.flatMap(bodiesOf)) this.renameBody(inner, scope);
    }
  }

  private noteScalar(name: string, tensor: Tensor): void {
    const dtype = dtypeOf(tensor, this.model);
    if (elementCount(tensor.dims) !== 1 || !SCALAR_TYPES.has(dtype)) return;
    this.scalars.set(name, Number(toIntegers(dtype, this.reader.bytes(tensor), 1)[0]));
  }

  /** Follows scalars through the nodes that exporters put between a constant and a condition. */
  private noteConstant({ opType, domain, inputs, outputs, attributes }: InlinedNode): void {
    if (domain !== '') return;
    const [output] = outputs as [string];
    const [constant] = attributes.values();
    const input = this.scalars.get(inputs[0] ?? '');
    if (opType === 'Constant' && constant?.tensor) this.noteScalar(output, constant.tensor);
    else if (opType === 'Constant' && constant?.i !== undefined)
      this.scalars.set(output, constant.i);
    else if (input === undefined) return;
    else if (opType === 'Identity' || opType === 'Cast') this.scalars.set(output, input);
    else if (opType === 'Not') this.scalars.set(output, input === 0 ? 1 : 0);
  }
}

const SCALAR_TYPES = new Set(['bool', 'int32', 'int64']);

function functionKey(domain: string, name: string, overload: string): string {
  return JSON.stringify([domain, name, overload]);
}

/** A name of a scope; in the main graph's attributes it may be one that the file does not define. */
function resolve(scope: Scope, name: string): string {
  for (let at: Scope | undefined = scope; at; at = at.outer) {
    const found = at.names.get(name);
    if (found !== undefined) return found;
  }
  return name;
}

function bodiesOf({ g, graphs }: onnxProto.onnx.IAttributeProto) {
  return [...(g ? [g] : []), ...(graphs ?? [])];
}

function unsupported(node: InlinedNode, reason: string): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${nodeLabel(node)} (${node.opType}) cannot be inlined: ${reason}`,
    {
      node: node.name,
      hint: 'Inline the functions of the model first, e.g. with onnx.inliner.inline_local_functions.',
    },
  );
}
