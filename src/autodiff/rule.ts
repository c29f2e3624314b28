/**
 * A gradient rule: from a node and the gradient of its outputs to the gradients of its
 * inputs. A rule gives one function for each input; the ones nobody asks for are never called, so
 * no gradient of a frozen weight is ever built.
 */
import type { AttributeValue, Integer, NewNode } from '../onnx/encode.js';
import type { OpBuilder } from './op-builder.js';

/** A node, and what to write others with. */
export interface NodeContext {
  /** The node itself. */
  readonly node: NewNode;
  /** Input names; `''` for one that is left out. */
  readonly x: readonly string[];
  /** Output names. */
  readonly y: readonly string[];
  /** The operators of the calculus, in the types and opset of the graph. */
  readonly c: OpBuilder;
  /** Attributes of the node, with the operator's defaults. */
  int(name: string, otherwise: number): number;
  /** A float attribute of the node, or `otherwise`. */
  float(name: string, otherwise: number): number;
  /** A list of integers; undefined where the node does not have it. */
  ints(name: string): readonly number[] | undefined;
  /** A text attribute of the node, or `otherwise`. */
  text(name: string, otherwise: string): string;
}

/**
 * A node in the eyes of its rule: no value is in half precision. `x` and `y` are float32 copies where
 * the model's own are, and what the rule writes is float32.
 */
export interface RuleContext extends NodeContext {
  /** Gradients of the outputs; `''` for an output that the loss does not depend on. */
  readonly dy: readonly string[];
}

/**
 * Gives the gradient of one input; `none` for a number that the output does not depend on.
 * @throws Refusal where it is used in a way that has none here
 */
export type InputGradient = (() => string) | 'none';

/**
 * The answers of a rule for the inputs in their order. An input without one may be an index, a
 * shape or a mask; one that a gradient should reach is refused. So is an output that the loss depends
 * on and that the rule does not list: nothing that is missing counts as zero.
 */
export interface GradientRule {
  (context: RuleContext): readonly (InputGradient | undefined)[];
  /** The outputs whose gradients it takes into account, some of which may be `''`; default the first. */
  readonly outputs?: readonly number[] | 'all';
}

/** A rule that takes the gradients of several outputs. */
export function ofOutputs(outputs: readonly number[] | 'all', rule: GradientRule): GradientRule {
  return Object.assign((context: RuleContext) => rule(context), { outputs });
}

/**
 * The first output as a function of the inputs that the rule sees. Runtimes leave out roundings to half
 * precision where they like, so that a float32 copy of an output need not equal the copy of any input,
 * and has to be computed anew where a rule compares the two.
 */
export function exactOutput({ node, x, y: [y], c }: RuleContext): string {
  const isOwn = y === node.outputs[0] && x.every((name, i) => name === node.inputs[i]);
  return isOwn ? y! : c.again(node, x, c.type(y!));
}

export function nodeContext(node: NewNode, c: OpBuilder): NodeContext {
  const attribute = (name: string): AttributeValue | undefined => node.attributes?.[name];
  return {
    node,
    x: node.inputs,
    y: node.outputs,
    c,
    int: (name, otherwise) => Number(get(attribute(name), 'int') ?? otherwise),
    float: (name, otherwise) => get(attribute(name), 'float') ?? otherwise,
    ints: (name) => get(attribute(name), 'ints')?.map(Number),
    text: (name, otherwise) => get(attribute(name), 'text') ?? otherwise,
  };
}

type AttributeKinds = { int: Integer; float: number; ints: readonly Integer[]; text: string };

function get<K extends keyof AttributeKinds>(
  value: AttributeValue | undefined,
  kind: K,
): AttributeKinds[K] | undefined {
  return value && kind in value ? (value as unknown as AttributeKinds)[kind] : undefined;
}

/**
 * Writes a node's outputs by simpler operators. Undefined for an output that it does not give.
 * @throws Refusal for a use of the operator that it does not know
 */
export type Decomposition = (context: NodeContext) => readonly (string | undefined)[];
