/**
 * What a gradient rule is: from a node and the gradient of its outputs to the gradients of its
 * inputs. A rule gives one function for each input; the ones nobody asks for are never called, so
 * no gradient of a frozen weight is ever built.
 */
import type { AttributeValue, NewNode } from '../onnx/encode.js';
import type { Calculus } from './calculus.js';

/** A node, and what to write others with. */
export interface NodeContext {
  readonly node: NewNode;
  /** Input names; `''` for one that is left out. */
  readonly x: readonly string[];
  /** Output names. */
  readonly y: readonly string[];
  /** The operators of the calculus, in the types and opset of the graph. */
  readonly c: Calculus;
  /** Attributes of the node, with the operator's defaults. */
  int(name: string, otherwise: number): number;
  float(name: string, otherwise: number): number;
  ints(name: string): readonly number[] | undefined;
  text(name: string, otherwise: string): string;
}

/** A node in the eyes of its rule. */
export interface RuleContext extends NodeContext {
  /** Gradients of the outputs; `''` for an output that the loss does not depend on. */
  readonly dy: readonly string[];
}

/** Gives the gradient of one input. @throws Refusal where it is used in a way that has none here */
export type InputGradient = () => string;

/** Undefined for an input that has none: indices, shapes, masks. */
export type GradientRule = (context: RuleContext) => readonly (InputGradient | undefined)[];

export function nodeContext(node: NewNode, c: Calculus): NodeContext {
  const attribute = (name: string): AttributeValue | undefined => node.attributes?.[name];
  return {
    node,
    x: node.inputs,
    y: node.outputs,
    c,
    int: (name, otherwise) => get(attribute(name), 'int') ?? otherwise,
    float: (name, otherwise) => get(attribute(name), 'float') ?? otherwise,
    ints: (name) => get(attribute(name), 'ints'),
    text: (name, otherwise) => get(attribute(name), 'text') ?? otherwise,
  };
}

type AttributeKinds = { int: number; float: number; ints: readonly number[]; text: string };

function get<K extends keyof AttributeKinds>(
  value: AttributeValue | undefined,
  kind: K,
): AttributeKinds[K] | undefined {
  return value && kind in value ? (value as unknown as AttributeKinds)[kind] : undefined;
}
