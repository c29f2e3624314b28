/**
 * Reverse-mode differentiation of an ONNX graph, by adding nodes to it. Only what lies between the
 * wanted values and the loss is differentiated: there is no gradient of a frozen weight.
 *
 * The backward pass of half precision is float32: its small gradients would be lost below 6e-8 in
 * float16, and its large ones overflow. CPUs compute in float32 there anyhow.
 */
import { OnnxLoraError } from '../errors.js';
import type { GraphBuilder } from '../graph/builder.js';
import { isDifferentiable, type ValueType, type ValueTypes } from '../graph/value-type.js';
import type { NewNode } from '../onnx/encode.js';
import { decompose, isComposed } from './decompositions/index.js';
import { OpBuilder } from './op-builder.js';
import { Refusal } from './refusal.js';
import { type GradientRule, nodeContext, type RuleContext } from './rule.js';
import { ruleFor } from './rules/index.js';

/** Several nodes that have one gradient rule together, cheaper than the chain of their own. */
export interface Composite {
  /** Names of the nodes, all of which are in the graph. */
  readonly nodes: ReadonlySet<string>;
  /** Values that the nodes read, in the order of the rule's gradients. */
  readonly inputs: readonly string[];
  /** The value that they make. */
  readonly output: string;
  /** The gradient of the output with respect to the inputs. */
  readonly rule: GradientRule;
}

/** A value whose gradient is in the graph already. */
export interface GradientSeed {
  /** Name of the value. */
  readonly value: string;
  /** Name of the gradient of the loss with respect to it. */
  readonly gradient: string;
}

/** Options of `differentiate`. */
export interface DifferentiateOptions {
  /** Groups of nodes that have a gradient rule of their own. */
  readonly composites?: readonly Composite[];
  /**
   * Gradients of the loss with respect to values that it depends on by ways of their own, where nodes of the
   * graph compute them already: reverse mode starts there, and not at the loss.
   */
  readonly seeds?: readonly GradientSeed[] | undefined;
  /** Values that count as constants, whatever they are computed from. */
  readonly constants?: ReadonlySet<string>;
}

/**
 * Adds to `graph` the nodes that compute the gradients of `loss` (a scalar).
 * @param types of every value of the graph; see inferTypes
 * @returns the name of the gradient of each of `wrt`, in its type or float32 for half precision; zero
 * where the loss does not depend on it
 * @throws OnnxLoraError `unsupported` for an operator without a rule on the way, naming the node
 * and the path to it
 */
export function differentiate(
  graph: GraphBuilder,
  types: ValueTypes,
  loss: string,
  wrt: readonly string[],
  { composites = [], seeds, constants = new Set() }: DifferentiateOptions = {},
): Map<string, string> {
  const calculus = new OpBuilder(graph, new Map(types));
  decomposeActive(calculus, wrt, constants);
  const { forward, rules } = withComposites(graph.nodes, composites);
  const active = activeValues(forward, calculus.types, wrt, constants);
  const starts = seeds ?? [{ value: loss, gradient: calculus.number(loss, 1) }];
  const gradients = new Gradients(calculus);
  for (const { value, gradient } of starts) gradients.add(value, calculus.widened(gradient));
  const values = starts.map(({ value }) => value);
  for (const node of nodesTowards(forward, active, values).reverse()) {
    backward(node, rules.get(node) ?? ruleFor(node), calculus, gradients, active, forward);
  }
  const zeros = (value: string) => calculus.widened(calculus.zeros(value));
  const found = new Map(wrt.map((value) => [value, gradients.of(value) || zeros(value)]));
  dropUnreadCasts(graph, new Set([...types.keys(), ...found.values()]));
  return found;
}

/** Removes float32 copies that no rule had a use for: of a weight, one would be folded and kept. */
function dropUnreadCasts(graph: GraphBuilder, kept: ReadonlySet<string>): void {
  const read = new Set(graph.nodes.flatMap((node) => [...node.inputs, ...capturedBy(node)]));
  for (const { name } of graph.outputs) read.add(name);
  const used = graph.nodes.filter(({ opType, outputs: [output] }) => {
    return opType !== 'Cast' || read.has(output!) || kept.has(output!);
  });
  graph.nodes.splice(0, graph.nodes.length, ...used);
}

/** Puts what they are made of in the place of nodes that have no rule of their own. */
function decomposeActive(
  c: OpBuilder,
  wrt: readonly string[],
  constants: ReadonlySet<string>,
): void {
  if (!c.graph.nodes.some(isComposed)) return;
  const forward = [...c.graph.nodes];
  const active = activeValues(forward, c.types, wrt, constants);
  for (const node of forward) {
    if (!isComposed(node) || !node.inputs.some((name) => active.has(name))) continue;
    refusing(node, active, forward, () => decompose(node, c));
  }
}

/** The graph with each composite as one node, in the place of its last node. */
function withComposites(nodes: readonly NewNode[], composites: readonly Composite[]) {
  const rules = new Map<NewNode, GradientRule>();
  const covered = new Set(composites.flatMap((composite) => [...composite.nodes]));
  const byOutput = new Map(composites.map((composite) => [composite.output, composite]));
  const forward = nodes.flatMap((node) => {
    const composite = node.outputs.length === 1 ? byOutput.get(node.outputs[0]!) : undefined;
    if (!composite) return covered.has(node.name) ? [] : [node];
    const { inputs, output, rule } = composite;
    const whole = { name: node.name, opType: 'Composite', inputs, outputs: [output] };
    rules.set(whole, rule);
    return [whole];
  });
  return { forward, rules };
}

/** Values that depend on one of `wrt` in a differentiable way. */
function activeValues(
  nodes: readonly NewNode[],
  types: ValueTypes,
  wrt: readonly string[],
  constants: ReadonlySet<string>,
): Set<string> {
  const active = new Set(wrt);
  for (const node of nodes) {
    const reads = [...node.inputs, ...capturedBy(node)];
    if (!reads.some((name) => active.has(name)) || isConstantFunction(node)) continue;
    for (const output of numbersOf(node)) {
      if (output === '' || constants.has(output)) continue;
      if (mayHoldNumbers(types.get(output)) || isRounded(node, output, types, active))
        active.add(output);
    }
  }
  return active;
}

/** Sequences and optional values have no type of a tensor, and hold tensors all the same. */
function mayHoldNumbers(type: ValueType | undefined): boolean {
  return type === undefined || isDifferentiable(type);
}

/** The scale and the zero point that DynamicQuantizeLinear finds count as given. */
function numbersOf({ opType, domain = '', outputs }: NewNode): readonly string[] {
  return opType === 'DynamicQuantizeLinear' && domain === '' ? outputs.slice(0, 1) : outputs;
}

/**
 * Whether an output is of integers that stand for active numbers: what a node rounds, or what it makes of
 * integers of the same type, as a Reshape does. A way through them is followed or refused, and not taken
 * for one that ends.
 */
function isRounded(
  node: NewNode,
  output: string,
  types: ValueTypes,
  active: ReadonlySet<string>,
): boolean {
  const dtype = types.get(output)?.dtype;
  if (dtype === undefined || !ROUNDED.has(dtype)) return false;
  const passesOn = (name: string) => active.has(name) && types.get(name)?.dtype === dtype;
  return rounds(node) || node.inputs.some(passesOn);
}

/** Values outside of them that the bodies of Loop, Scan and If read. */
function capturedBy({ attributes = {} }: NewNode): readonly string[] {
  return Object.values(attributes).flatMap((value) =>
    'raw' in value ? (value.captures ?? []) : [],
  );
}

/** Integers that an operator outside of the standard makes of numbers are taken for rounded ones. */
function rounds({ opType, domain = '' }: NewNode): boolean {
  return domain !== '' || ROUNDING.has(opType);
}

const ROUNDED = new Set<string>(['int4', 'uint4', 'int8', 'uint8', 'int16', 'uint16', 'int32']);

const ROUNDING = new Set([
  'ConvInteger',
  'DynamicQuantizeLinear',
  'MatMulInteger',
  'QLinearConv',
  'QLinearMatMul',
  'QuantizeLinear',
]);

/** Operators whose result does not move with small changes of their input. */
function isConstantFunction({ opType, domain = '' }: NewNode): boolean {
  return domain === '' && CONSTANT_FUNCTIONS.has(opType);
}

const CONSTANT_FUNCTIONS = new Set([
  'ArgMax',
  'ArgMin',
  'Bernoulli',
  'Ceil',
  'ConstantOfShape',
  'EyeLike',
  'Floor',
  'Hardmax',
  'IsInf',
  'IsNaN',
  'NonZero',
  'RandomNormalLike',
  'RandomUniformLike',
  'Round',
  'Shape',
  'Sign',
  'Size',
]);

/** The active nodes that values depend on, in the order of the graph. */
function nodesTowards(
  nodes: readonly NewNode[],
  active: ReadonlySet<string>,
  values: readonly string[],
): NewNode[] {
  const wanted = new Set(values);
  const tape: NewNode[] = [];
  for (const node of [...nodes].reverse()) {
    if (!node.outputs.some((name) => wanted.has(name) && active.has(name))) continue;
    tape.unshift(node);
    for (const name of [...node.inputs, ...capturedBy(node)]) wanted.add(name);
  }
  return tape;
}

/** Sums of the gradients that reach a value. */
class Gradients {
  private readonly parts = new Map<string, string[]>();

  constructor(private readonly calculus: OpBuilder) {}

  add(value: string, gradient: string): void {
    const parts = this.parts.get(value);
    if (parts) parts.push(gradient);
    else this.parts.set(value, [gradient]);
  }

  /** The gradient of a value, `''` where none reached it. */
  of(value: string): string {
    const parts = this.parts.get(value) ?? [];
    if (parts.length === 0) return '';
    const sum = parts.reduce((a, b) => this.calculus.add(a, b));
    this.parts.set(value, [sum]);
    return sum;
  }
}

function backward(
  node: NewNode,
  rule: GradientRule | undefined,
  c: OpBuilder,
  gradients: Gradients,
  active: ReadonlySet<string>,
  forward: readonly NewNode[],
): void {
  const dy = node.outputs.map((name) => (name === '' ? '' : gradients.of(name)));
  if (dy.every((name) => name === '')) return;
  refusing(node, active, forward, () => {
    if (!rule) throw new Refusal('it has no gradient rule');
    const inputGradients = rule(inFloat32(node, c, dy));
    checkOutputs(node, rule, dy);
    node.inputs.forEach((input, i) => {
      if (input === '' || !active.has(input)) return;
      const gradient = inputGradients[i];
      if (!gradient) throw new Refusal(`the gradient of its input ${input} is not supported`);
      if (gradient === 'none') return;
      const value = gradient();
      checkShape(c, input, value);
      gradients.add(input, value);
    });
  });
}

/** The node as its rule sees it. */
function inFloat32(node: NewNode, c: OpBuilder, dy: readonly string[]): RuleContext {
  const context = nodeContext(node, c);
  const wide = (names: readonly string[]) => names.map((name) => c.widened(name));
  return { ...context, x: wide(context.x), y: wide(context.y), dy };
}

/** The rule has to know of every output that the loss depends on. */
function checkOutputs(node: NewNode, { outputs = [0] }: GradientRule, dy: readonly string[]): void {
  if (outputs === 'all') return;
  const ignored = node.outputs.find((_, i) => dy[i] !== '' && !outputs.includes(i));
  if (ignored === undefined) return;
  throw new Refusal(`the gradient of its output ${ignored} is not supported`);
}

/** A gradient of another shape than its input would train wrongly. */
function checkShape(c: OpBuilder, input: string, gradient: string): void {
  const [expected, found] = [c.shape(input), c.shape(gradient)];
  if (!expected || !found) return;
  const differs = (a: ValueType['shape'], b: ValueType['shape']) =>
    a!.length !== b!.length ||
    a!.some((dim, i) => typeof dim === 'number' && typeof b![i] === 'number' && dim !== b![i]);
  if (!differs(expected, found)) return;
  throw new Refusal(
    `its gradient for ${input} has the shape [${found}], the value has [${expected}]`,
    'Shapes that the file states contradict each other, or the rule is wrong. Check the file with onnx.checker and shape inference.',
  );
}

/** Turns a refusal into the error that says where it happened. */
function refusing(
  node: NewNode,
  active: ReadonlySet<string>,
  forward: readonly NewNode[],
  run: () => void,
): void {
  try {
    run();
  } catch (error) {
    throw error instanceof Refusal ? unsupported(error, node, active, forward) : error;
  }
}

function unsupported(
  { message, hint }: Refusal,
  node: NewNode,
  active: ReadonlySet<string>,
  forward: readonly NewNode[],
): OnnxLoraError {
  const path = [node];
  for (let at: NewNode | undefined = node; at && path.length < 6; ) {
    const reads: string[] = [...at.inputs, ...capturedBy(at)];
    const input = reads.find((name) => active.has(name));
    at = forward.find((other) => input !== undefined && other.outputs.includes(input));
    if (at) path.unshift(at);
  }
  const name = node.domain ? `${node.domain}:${node.opType}` : node.opType;
  const way = path.map((step) => step.name || step.outputs[0]).join(' -> ');
  return new OnnxLoraError(
    'unsupported',
    `${node.name || node.outputs[0]} (${name}) cannot be differentiated: ${message}. It lies between an adapter and the loss: ${way}`,
    { node: node.name, hint: hint ?? USUAL_HINT },
  );
}

const USUAL_HINT =
  'Adapt only layers after this node (`layers`, `targets`), or export the model with simpler operators.';
