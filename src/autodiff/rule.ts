/**
 * What a gradient rule is: from a node and the gradient of its outputs to the gradients of its
 * inputs. A rule gives one function for each input; the ones nobody asks for are never called, so
 * no gradient of a frozen weight is ever built.
 */
import type { NewNode } from '../onnx/encode.js';
import type { Calculus } from './calculus.js';

/** A node in the eyes of its rule. */
export interface RuleContext {
  readonly node: NewNode;
  /** Input names; `''` for one that is left out. */
  readonly x: readonly string[];
  /** Output names. */
  readonly y: readonly string[];
  /** Gradients of the outputs; `''` for an output that the loss does not depend on. */
  readonly dy: readonly string[];
  /** The operators of the calculus, in the types and opset of the graph. */
  readonly c: Calculus;
  /** Attributes of the node, with the operator's defaults. */
  int(name: string, otherwise: number): number;
  float(name: string, otherwise: number): number;
  ints(name: string): readonly number[] | undefined;
  text(name: string, otherwise: string): string;
}

/** Gives the gradient of one input. */
export type InputGradient = () => string;

/** Undefined for an input that has none: indices, shapes, masks. */
export type GradientRule = (context: RuleContext) => readonly (InputGradient | undefined)[];
