/**
 * One training step as one ONNX graph: forward, loss, backward, clipping and the optimizer, for an
 * ordinary inference session. State goes in and out as flat vectors.
 */
import { differentiate } from '../autodiff/differentiate.js';
import type { GraphBuilder, ValueSpec } from '../graph/builder.js';
import { constantsFirst } from '../graph/constants-first.js';
import { fuseTransposes } from '../graph/fuse-transposes.js';
import { prune } from '../graph/prune.js';
import type { ValueType } from '../graph/value-type.js';
import { dataTypeNumber } from '../onnx/dtype.js';
import { handler, handlers, type OptionsOf, type ResolvedOf } from '../options/option.js';
import { pickOptions, resolveOptions } from '../options/resolve.js';
import { notNegative, positive, toggle, whole } from '../options/schemas.js';
import { inferTypes } from '../runtime/infer-types.js';
import { clipped, normOf } from './clip.js';
import { dequantizeAgain } from './dequantize-again.js';
import type { ForwardGraph } from './forward.js';
import type { Renamed } from './input-names.js';
import { divisorOf } from './losses/counting.js';
import type { Doubt } from './losses/loss.js';
import { lrFactors } from './lr-factors.js';
import type { Factors } from './optimizers/arithmetic.js';
import {
  momentsOf,
  type OptimizerOptions,
  optimizerChoice,
  optimizerUpdates,
  ownOptimizerOptions,
  type StateUpdate,
  scalarsOf,
} from './optimizers/index.js';
import { flatGradient, type Parameter, sizeOf } from './parameters.js';

const ownOptions = {
  /** The largest norm of the whole gradient; 0 for no limit. */
  clip: handler(notNegative, { required: true }),
  /** The learning rate of B over that of A; default 1. See `lrFactors`. */
  lrRatio: handler(positive, { default: 1 }),
  /** A power of two that the loss is multiplied by for the backward pass; default 1. */
  lossScale: handler(positive, { default: 1 }),
  /** Whether the scale is an input, `loss_scale`, of which `lossScale` is the first; default false. */
  feedsLossScale: handler(toggle, { default: false }),
  /** Batches that make one update, as if they were one: each counts by the weight of its loss. */
  accumulate: handler(whole(1), { required: true }),
  /** Whether com.microsoft operators may be used: they have kernels on the CPU only. */
  fused: handler(toggle, { required: true }),
};

/** Options of `buildStepGraph`. */
export interface StepOptions extends OptimizerOptions, OptionsOf<typeof ownOptions> {}

type ResolvedStep = OptimizerOptions & ResolvedOf<typeof ownOptions>;

// Without the learning rate, which is fed from step to step.
const { lr: _lr, ...hyperparameters } = ownOptimizerOptions;
const stepOptions = { ...ownOptions, ...handlers({ ...optimizerChoice, ...hyperparameters }) };

/** Those of the options that are the step graph's. */
export function stepOptionsOf(options: StepOptions): StepOptions {
  return pickOptions(stepOptions, options) as StepOptions;
}

/** A graph that does one training step. */
export interface StepGraph {
  /** The graph. */
  readonly graph: GraphBuilder;
  /** State vectors, each of `size` float32: fed as `input`, fetched as `output`. */
  readonly state: readonly StateUpdate[];
  /** Elements of the flat vector that trains. */
  readonly size: number;
  /** The inputs besides those of the model and the loss, by what they are: `theta`, `lr` .. */
  readonly inputs: Readonly<Record<string, string>>;
  /** Inputs of the loss that have another name in the graph. */
  readonly renamed: Renamed;
  /** float32 scalars. */
  readonly loss: string;
  /** Number of elements that the loss is the mean of; see `Term`. */
  readonly weight: string;
  /** The norm of the gradient before clipping. */
  readonly gradientNorm: string;
  /** See `LossInGraph`. */
  readonly doubt: Doubt | undefined;
}

/**
 * Completes a forward graph to a training step.
 * @throws OnnxLoraError `invalid-argument` naming the option; `unsupported` for an operator without a gradient rule
 */
export async function buildStepGraph(
  forward: ForwardGraph,
  given: StepOptions,
): Promise<StepGraph> {
  const options = resolveOptions(stepOptions, given, 'buildStepGraph') as ResolvedStep;
  const { graph, weight, parameters, trained } = forward;
  const size = sizeOf(parameters);
  keepLoss(forward);
  const ofForward = new Set(graph.nodes.flatMap(({ outputs }) => outputs));
  const { gradients, scale } = await scaledGradients(forward, options);
  const inputs = {
    theta: forward.theta,
    ...declareInputs(graph, size, options),
    ...(scale.input === undefined ? {} : { loss_scale: scale.input }),
  };
  dequantizeAgain(graph, ofForward);
  const flat = unscaled(graph, flatGradient(graph, reached(forward), gradients), scale);
  const gradient = withZeros(graph, flat, size - trained);
  const factors = lrFactors(graph, forward, options.lrRatio);
  const { norm, ...all } = update(graph, gradient, { weight, inputs, factors }, options);
  const updates = trained === size ? all.updates : onlyUpTo(graph, trained, all.updates);
  return completed(forward, { size, inputs, updates, norm }, options);
}

/** Takes everything out of the graph that neither the loss nor its gradient is computed from. */
function keepLoss({ graph, loss, weight, seeds, doubt }: ForwardGraph): void {
  const starts = seeds.flatMap(({ gradient, value }) => [gradient, value]);
  const names = [loss, weight, ...starts, ...(doubt ? [doubt.distance] : [])];
  graph.outputs.length = 0;
  graph.outputs.push(...names.map(untyped));
  prune(graph);
}

/** The parameters that the loss depends on. */
function reached({ parameters, trained }: ForwardGraph): Parameter[] {
  return parameters.filter(({ offset }) => offset < trained);
}

/** The gradients of the loss times its scale, by parameter. */
async function scaledGradients(forward: ForwardGraph, options: ResolvedStep) {
  const { graph, loss, seeds, composites, constants } = forward;
  const types = await inferTypes(graph, forward.probe);
  const scale = lossScaleIn(graph, options);
  const scaled = seeds.map(({ value, gradient }) => ({
    value,
    gradient: multiplied(graph, types, gradient, scale),
  }));
  const names = reached(forward).map(({ name }) => name);
  const rules = { seeds: scaled, composites, constants };
  return { gradients: differentiate(graph, types, loss, names, rules), scale };
}

/** The step with the names that its values have for whoever runs it, and without what they are not made of. */
function completed(
  { graph, loss, weight, renamed, doubt }: ForwardGraph,
  { size, inputs, updates, norm }: Pick<StepGraph, 'size' | 'inputs'> & ReturnType<typeof update>,
  { fused }: ResolvedStep,
): StepGraph {
  const step: StepGraph = {
    graph,
    size,
    inputs,
    renamed,
    state: updates.map(({ name, input, output }) => ({
      ...{ name, input },
      output: graph.rename(output, `${name}_next`),
    })),
    loss: graph.rename(loss, 'loss'),
    weight: graph.rename(weight, 'weight'),
    gradientNorm: graph.rename(norm, 'gradient_norm'),
    doubt,
  };
  graph.outputs.length = 0;
  for (const { output } of step.state) graph.outputs.push(vector(output, size));
  graph.outputs.push(untyped(step.loss), scalar(step.gradientNorm), untyped(step.weight));
  if (doubt) graph.outputs.push(untyped(doubt.distance));
  if (fused) fuseTransposes(graph);
  prune(graph);
  constantsFirst(graph);
  return step;
}

function withZeros(graph: GraphBuilder, vector: string, count: number): string {
  if (count === 0) return vector;
  const zeros = graph.op('ConstantOfShape', [graph.integers([count])]);
  return graph.op('Concat', [vector, zeros], { axis: { int: 0 } }, 'grad');
}

/** Elements that the loss does not depend on stay as they are: weight decay leaves them alone too. */
function onlyUpTo(
  graph: GraphBuilder,
  end: number,
  updates: readonly StateUpdate[],
): StateUpdate[] {
  const part = (vector: string, from: number, to: number) =>
    graph.op('Slice', [vector, ...[from, to, 0].map((at) => graph.integers([at]))]);
  return updates.map(({ name, input, output }) => {
    if (name !== 'theta') return { name, input, output };
    const parts = [part(output, 0, end), part(input, end, MAX_INT32)];
    return { name, input, output: graph.op('Concat', parts, { axis: { int: 0 } }) };
  });
}

// "To the end", in a size that every runtime takes.
const MAX_INT32 = 2 ** 31 - 1;

/** The factor of the loss: a number, or an input of the graph. */
interface Scale {
  readonly value: number;
  readonly input: string | undefined;
}

function lossScaleIn(graph: GraphBuilder, { lossScale, feedsLossScale }: ResolvedStep): Scale {
  if (!feedsLossScale) return { value: lossScale, input: undefined };
  const input = graph.fresh('loss_scale');
  graph.inputs.push({ name: input, dtype: 'float32', shape: [] });
  return { value: lossScale, input };
}

/** A value of the graph times the scale, with its type. */
function multiplied(
  graph: GraphBuilder,
  types: Map<string, ValueType>,
  value: string,
  { value: factor, input }: Scale,
): string {
  const type = types.get(value);
  if (!type || (factor === 1 && input === undefined)) return value;
  const to = { to: { int: dataTypeNumber(type.dtype) } };
  const by = input ? graph.op('Cast', [input], to) : graph.scalar(type.dtype, factor);
  const product = graph.op('Mul', [value, by], {}, 'scaled_loss');
  if (input) types.set(by, { dtype: type.dtype, shape: [] });
  types.set(product, type);
  return product;
}

/** The flat gradient of what the loss was before it was scaled: float32, where clipping starts. */
function unscaled(graph: GraphBuilder, flat: string, { value, input }: Scale): string {
  if (input) return graph.op('Div', [flat, input], {}, 'unscaled');
  if (value === 1) return flat;
  return graph.op('Mul', [flat, graph.scalar('float32', 1 / value)], {}, 'unscaled');
}

/** The graph inputs besides theta, by what they are. */
type Inputs = Readonly<Record<string, string>>;

function declareInputs(graph: GraphBuilder, size: number, options: StepOptions): Inputs {
  const isAccumulated = options.accumulate > 1;
  const declared: Record<string, string> = {};
  const declare = (name: string, spec: Omit<ValueSpec, 'name'>) => {
    const own = graph.fresh(name);
    declared[name] = own;
    graph.inputs.push({ name: own, ...spec });
  };
  const vectors = [...momentsOf(options), ...(isAccumulated ? ['accumulated'] : [])];
  for (const name of vectors) declare(name, { dtype: 'float32', shape: [size] });
  const scalars = ['lr', ...Object.keys(scalarsOf(options))];
  for (const name of [...scalars, ...(isAccumulated ? ['accumulated_weight'] : [])])
    declare(name, { dtype: 'float32', shape: [] });
  if (isAccumulated) declare('apply', { dtype: 'bool', shape: [] });
  return declared;
}

interface UpdateParts {
  readonly weight: string;
  readonly inputs: Inputs;
  readonly factors: Factors | undefined;
}

function update(
  graph: GraphBuilder,
  gradient: string,
  { weight, inputs, factors }: UpdateParts,
  options: StepOptions,
): { updates: StateUpdate[]; norm: string } {
  const { accumulate, clip } = options;
  const parts = accumulate > 1 ? accumulated(graph, gradient, weight, inputs) : undefined;
  const mean = parts?.mean ?? gradient;
  const norm = normOf(graph, mean);
  const g = clipped(graph, mean, norm, clip);
  const updates = optimizerUpdates(graph, g, inputs, options, factors);
  if (!parts) return { updates, norm };
  const chosen = (whenApplied: string, otherwise: string) =>
    graph.op('Where', [inputs.apply!, whenApplied, otherwise]);
  const applied = updates.map(({ name, input, output }) => ({
    ...{ name, input },
    output: chosen(output, input),
  }));
  const rest = chosen(graph.scalar('float32', 0), parts.sum);
  const kept = { name: 'accumulated', input: inputs.accumulated!, output: rest };
  return { updates: [...applied, kept], norm };
}

/**
 * The losses are means, and batches may have any number of elements that count: what one large batch
 * would give is Σ gradient·weight / Σ weight.
 */
function accumulated(graph: GraphBuilder, gradient: string, weight: string, inputs: Inputs) {
  const own = graph.op('Cast', [weight], { to: { int: dataTypeNumber('float32') } });
  const part = graph.op('Mul', [gradient, own]);
  const sum = graph.op('Add', [earlierSum(graph, inputs), part], {}, 'accumulated_gradient');
  const total = graph.op('Add', [inputs.accumulated_weight!, own], {}, 'total_weight');
  return { sum, mean: graph.op('Div', [sum, divisorOf(graph, total, 'float32')]) };
}

/** The sum so far. An update that was broken off by an overflow may have left one that does not count. */
function earlierSum(graph: GraphBuilder, inputs: Inputs): string {
  const { accumulated, accumulated_weight: weight, loss_scale: scale } = inputs;
  if (scale === undefined) return accumulated!;
  const zero = graph.scalar('float32', 0);
  const isFirst = graph.op('Equal', [weight!, zero]);
  return graph.op('Where', [isFirst, zero, accumulated!]);
}

function vector(name: string, size: number): ValueSpec {
  return { name, dtype: 'float32', shape: [size] };
}

function scalar(name: string): ValueSpec {
  return { name, dtype: 'float32', shape: [] };
}

function untyped(name: string): ValueSpec {
  return { name, dtype: undefined, shape: null };
}
