/** A patched model as a graph that computes a loss from a flat vector of adapter numbers. */

import { biasesOf } from '../adapters/edit/bias.js';
import { kindOf } from '../adapters/kinds/index.js';
import { tensorsOf } from '../adapters/kinds/tensors.js';
import { headOutputsOf } from '../adapters/model/head-outputs.js';
import type { ModelManifest, PatchedAdapter } from '../adapters/model/manifest.js';
import type { AttachedSite, PatchedModel } from '../adapters/model/patched.js';
import type { Composite, GradientSeed } from '../autodiff/differentiate.js';
import { settledInputs } from '../data/settled-inputs.js';
import { OnnxLoraError } from '../errors.js';
import { ancestorsOf } from '../graph/ancestors.js';
import { replaceBooleans } from '../graph/booleans.js';
import { copyOf, type GraphBuilder, type ValueSpec } from '../graph/builder.js';
import type { NodePlaces } from '../graph/inline.js';
import { loadGraph, loadPlaced } from '../graph/load.js';
import { narrowInputs } from '../graph/narrow-integers.js';
import { raiseOpset } from '../graph/raise-opset.js';
import type { ValueType, ValueTypes } from '../graph/value-type.js';
import type { NewNode } from '../onnx/encode.js';
import type { Dim } from '../onnx/model.js';
import { dtypeOf, type TensorReader } from '../onnx/tensor.js';
import { handler, type OptionsOf } from '../options/option.js';
import { resolveOptions } from '../options/resolve.js';
import { choice, object, share, text, toggle } from '../options/schemas.js';
import { inferTypes } from '../runtime/infer-types.js';
import { SizeProbe } from '../runtime/size-probe.js';
import { defaultOutput } from './default-output.js';
import type { Renamed } from './input-names.js';
import { addDropout, type Noise } from './layers/dropout.js';
import type { AllowedOperators } from './layers/factor-gradients.js';
import { type RewriteOptions, rewriteAdapters } from './layers/rewrite.js';
import { batchFirst } from './losses/batch-axis.js';
import { addLoss, type LossOptions, losses, lossNames } from './losses/index.js';
import { type RowFilter, rowSource } from './losses/labelled-rows.js';
import type { Doubt, KeptRows } from './losses/loss.js';
import { layOut, type Parameter, readFromVector, sizeOf } from './parameters.js';
import { computeSettled } from './settled-nodes.js';

const lossGraphOptions = {
  /** The loss function. */
  loss: handler(choice(lossNames), { required: true }),
  /** Its options. */
  lossOptions: handler(object<LossOptions>('an object')),
  /** The output that the loss looks at; may be left out where the model has one beside its caches, or one of a head. */
  modelOutput: handler(text),
  /** Sizes of the inputs' symbols in the data. */
  sizes: handler(object<ReadonlyMap<string, number>>('a Map')),
  /** Shapes of inputs where all batches agree in them. */
  inputShapes: handler(object<ReadonlyMap<string, readonly Dim[]>>('a Map')),
  /** Whether to write integers and booleans in the types that GPU providers have kernels for. */
  forGpu: handler(toggle),
};

/** Options of building a graph that computes a loss. */
export interface LossGraphOptions extends OptionsOf<typeof lossGraphOptions> {}

/** An output of a model that a loss looks at. */
export interface LossOutput extends ValueType {
  /** Name of the value. */
  readonly name: string;
}

/** A graph that computes a loss. */
export interface LossGraph {
  /** The graph. */
  readonly graph: GraphBuilder;
  /** The model's own inputs. */
  readonly inputs: readonly ValueSpec[];
  /** The graph inputs that the loss adds, by what they are: labels and the like. */
  readonly lossInputs: readonly ValueSpec[];
  /** Those of them that have another name in the graph. */
  readonly renamed: Renamed;
  /** Those of both that have to be fed as int32 although they are int64 in the model or the loss. */
  readonly narrowed: ReadonlySet<string>;
  /** The output that the loss looks at. */
  readonly output: LossOutput;
  /** Name of the loss, a scalar. */
  readonly loss: string;
  /** Number of elements that the loss is the mean of, a scalar. */
  readonly weight: string;
  /** Name of the value that the loss is defined on. */
  readonly logits: string;
  /** Gradients of the loss with respect to the logits, or to parts of them. */
  readonly seeds: readonly GradientSeed[];
  /** Set where the output looks like probabilities and the loss wants logits. */
  readonly doubt: Doubt | undefined;
  /** The rows of the output that are computed, where it is not all. */
  readonly rows: KeptRows | undefined;
  /** For inferring types of the graph. */
  readonly probe: SizeProbe;
  /** The graph as it is before anything is taken out that the loss does not need. */
  readonly whole: GraphBuilder;
}

/** A loss as a function of the adapters. */
export interface ForwardGraph extends LossGraph {
  /** The adapter set that trains. */
  readonly set: ModelManifest;
  /** The graph input with the flat vector. */
  readonly theta: string;
  /** The places of its tensors in the flat vector. */
  readonly parameters: readonly Parameter[];
  /** The elements of the flat vector that train: those of parameters after them do not reach the output. */
  readonly trained: number;
  /** Adapted nodes, and a head, that do not reach the output: their numbers stay as they are. */
  readonly withoutGradient: readonly string[];
  /** Those of the parameters that are the model's own biases. */
  readonly biases: readonly string[];
  /** The adapted nodes that have none, where biases train. */
  readonly withoutBias: readonly string[];
  /** Nodes that have a gradient rule of their own together. */
  readonly composites: readonly Composite[];
  /** Values that reverse mode takes for constants. */
  readonly constants: ReadonlySet<string>;
  /** Random numbers that dropout takes in a step. */
  readonly noise: Noise | undefined;
  /** A value with its copy after dropout. */
  readonly dropped: ReadonlyMap<string, string>;
  /** Values that have another meaning than in the model. */
  readonly moved: ReadonlySet<string>;
}

const forwardOptions = {
  ...lossGraphOptions,
  /** The adapter set; may be left out where the model has one. */
  name: handler(text),
  /** Whether the biases of adapted layers train too. */
  trainBias: handler(toggle),
  /** The form of the adapted layers; default as they are in the model. */
  rewrite: handler(object<AllowedOperators>('an object, as { fused: true }')),
  /** The share of an adapter's input that is dropped; such layers stay as they are in the model. */
  dropout: handler(share),
  /** Whether logits of a vocabulary are computed for rows with a label only. */
  labelledRowsOnly: handler(toggle),
};

/** Options of `buildForward`. */
export interface ForwardOptions extends LossGraphOptions, OptionsOf<typeof forwardOptions> {}

/**
 * The forward pass of an adapter set, followed by the loss. Its trainable tensors are read from
 * one flat input.
 * @throws OnnxLoraError `no-adapter`, `invalid-argument` where the output or the loss does not fit,
 * `unsupported` for a model that has no place in a builder
 */
export async function buildForward(
  patched: PatchedModel,
  reader: TensorReader,
  given: ForwardOptions,
): Promise<ForwardGraph> {
  const options = resolveOptions(forwardOptions, given, 'buildForward');
  const settled = settledInputs(patched.model);
  const graph = loadGraph(patched.model, reader, settled.numbers);
  computeSettled(graph, settled);
  const set = theSet(patched, options.name);
  // The order of the backward pass: runtimes that follow the outputs' order compute the gradients of
  // the last layers first, and free what they were computed from.
  const adapters = [...set.adapters].reverse();
  const { biases, without } = options.trainBias
    ? biasesOf(patched, set)
    : { biases: [], without: [] };
  const names = [
    ...(set.head ? [set.head.weight, set.head.bias] : []),
    ...adapters.flatMap(tensorNames),
    ...biases.map(({ name }) => name),
  ];
  const modelOutput = outputName(patched, graph, options.modelOutput ?? set.head?.output);
  const reaches = ancestorsOf(graph, modelOutput);
  const [reached, others] = parted(names, (name) => reaches.has(name));
  if (reached.length === 0) throw nothingReaches(patched, graph, set, modelOutput);
  const parameters = layOut([...reached, ...others].map((name) => tensorOf(patched, name)));
  pinShapes(graph, options.inputShapes ?? new Map());
  const theta = graph.fresh('theta');
  graph.inputs.push({ name: theta, dtype: 'float32', shape: [sizeOf(parameters)] });
  readFromVector(graph, theta, parameters);
  const probe = new SizeProbe(options.sizes ?? new Map());
  const raised = await inTrainingOpset(graph, probe);
  const filter = options.labelledRowsOnly ? rowFilter(patched, theta, probe) : undefined;
  const output = outputOf(patched, raised.graph, raised.types, modelOutput);
  const source = filter && rowSource(raised.graph, raised.types, output, filter);
  // The other form is faster, but its logits are computed at once.
  const kept = source && source.parts >= MANY_PARTS ? namesOf(source.nodes) : undefined;
  const layers = layersIn(raised, patched, set, probe, { ...options, kept });
  const own = filter && { ...filter, ...rewrittenIn(layers) };
  const lossGraph = withLoss(patched, raised, probe, { ...options, modelOutput }, own);
  const moved = new Set([...layers.moved, ...(lossGraph.rows?.values ?? [])]);
  return {
    ...lossGraph,
    ...layers,
    moved,
    set,
    theta,
    parameters,
    trained: sizeOf(parameters.slice(0, reached.length)),
    withoutGradient: [...unreachedParts(set, reaches)],
    biases: biases.map(({ name }) => name),
    withoutBias: without,
  };
}

/** The adapted layers in the form that they are trained in. */
function layersIn(
  { graph, types }: { graph: GraphBuilder; types: ValueTypes },
  patched: PatchedModel,
  set: ModelManifest,
  probe: SizeProbe,
  { rewrite, dropout = 0, kept }: ForwardOptions & Pick<RewriteOptions, 'kept'>,
): Pick<ForwardGraph, 'composites' | 'constants' | 'noise' | 'dropped' | 'moved'> {
  const elements = (shape: readonly Dim[]) => probe.elements(shape);
  const sites = patched.sites.filter((site) => site.set === set);
  if (dropout > 0) {
    const added = addDropout(graph, types, sites, { probability: dropout, elements });
    const constants = constantsOf(graph, sites);
    return { composites: [], constants, moved: new Set(), ...added };
  }
  const options = rewrite && { ...rewrite, rows: elements, kept };
  const rewritten = options && rewriteAdapters(graph, types, set, options);
  const { composites = [], products = [], constants = [] } = rewritten ?? {};
  // Below a bias, a rewritten product keeps its name, and has the adapter's part in it.
  const own = new Set(sites.map(({ site }) => site.product ?? site.base));
  const moved = new Set(products.filter((output) => own.has(output)));
  const all = new Set([...constants, ...constantsOf(graph, sites)]);
  return { composites, constants: all, noise: undefined, dropped: new Map(), moved };
}

// Logits of 256 MB.
const MANY_PARTS = 8;

/** Adapters take row by row. */
function rowFilter({ sites }: PatchedModel, theta: string, probe: SizeProbe): RowFilter {
  return {
    theta,
    rowwise: new Set(sites.flatMap(({ site }) => site.nodes)),
    fixed: new Set(),
    single: new Set(),
    elements: (shape) => probe.elements(shape),
  };
}

/** Layers in another form go by the names of their values and nodes. */
function rewrittenIn({
  composites,
}: Pick<ForwardGraph, 'composites'>): Pick<RowFilter, 'fixed' | 'single'> {
  return {
    fixed: new Set(composites.map(({ output }) => output)),
    single: new Set(composites.flatMap(({ nodes }) => [...nodes])),
  };
}

const namesOf = (nodes: ReadonlySet<NewNode>) => new Set([...nodes].map(({ name }) => name));

/** The constants among the nodes of adapters, where those are in the graph. */
function constantsOf(graph: GraphBuilder, sites: readonly AttachedSite[]): Set<string> {
  const byName = new Map(graph.nodes.map((node) => [node.name, node]));
  return new Set(
    sites.flatMap(({ adapter, site }) => {
      const nodes = site.nodes.flatMap((name) => byName.get(name) ?? []);
      return kindOf(adapter).train.constants?.(nodes) ?? [];
    }),
  );
}

/** The graph with the types of its values, in an opset that has what gradients need. */
async function inTrainingOpset(graph: GraphBuilder, probe: SizeProbe) {
  const types = await inferTypes(graph, probe);
  const raised = raiseOpset(graph, types);
  return { graph: raised, types: raised === graph ? types : await inferTypes(raised, probe) };
}

function pinShapes(graph: GraphBuilder, shapes: ReadonlyMap<string, readonly Dim[]>): void {
  for (const [i, input] of graph.inputs.entries()) {
    const shape = shapes.get(input.name);
    if (shape) graph.inputs[i] = { ...input, shape };
  }
}

/**
 * A model as it is, followed by a loss.
 * @throws OnnxLoraError as `buildForward`
 */
export async function buildLossGraph(
  patched: PatchedModel,
  reader: TensorReader,
  options: LossGraphOptions,
): Promise<LossGraph & { readonly places: NodePlaces }> {
  const probe = new SizeProbe(options.sizes ?? new Map());
  const settled = settledInputs(patched.model);
  const { graph, places } = loadPlaced(patched.model, reader, settled.numbers);
  computeSettled(graph, settled);
  pinShapes(graph, options.inputShapes ?? new Map());
  return { ...withLoss(patched, await inTrainingOpset(graph, probe), probe, options), places };
}

function withLoss(
  patched: PatchedModel,
  { graph, types }: { graph: GraphBuilder; types: ValueTypes },
  probe: SizeProbe,
  options: LossGraphOptions,
  filter?: RowFilter,
): LossGraph {
  const own = outputOf(patched, graph, types, options.modelOutput);
  const names = new Set(patched.model.graph.inputs.map(({ name }) => name));
  const inputs = graph.inputs.filter(({ name }) => names.has(name));
  const { labels } = losses[options.loss];
  const byBatch = batchFirst(graph, own, inputs, labels, types);
  const added = addLoss(graph, options.loss, byBatch, options.lossOptions, types, filter);
  const { loss, weight, logits, seeds, inputs: lossInputs, renamed, doubt, rows } = added;
  const output = { ...own, shape: byBatch.shape };
  if (options.forGpu) replaceBooleans(graph, types);
  const narrow = options.forGpu ? narrowInputs(graph) : new Set<string>();
  const called = new Map([...renamed].map(([name, own]) => [own, name]));
  const narrowed = new Set([...narrow].map((name) => called.get(name) ?? name));
  const whole = copyOf(graph);
  const parts = {
    graph,
    inputs,
    lossInputs,
    renamed,
    narrowed,
    output,
    loss,
    weight,
    logits,
    seeds,
  };
  return { ...parts, doubt, rows, probe, whole };
}

/**
 * The set of a name, or the only one.
 * @throws OnnxLoraError `no-adapter`, `invalid-argument`
 */
export function theSet(patched: PatchedModel, name: string | undefined): ModelManifest {
  const sets = patched.chosenSets(name);
  if (sets.length === 1) return sets[0]!;
  throw new OnnxLoraError(
    'invalid-argument',
    `${patched.model.source.label} has ${sets.length} adapter sets (${sets.map(({ set }) => set).join(', ')}), expected one to train`,
    { hint: 'Choose one with `name`.' },
  );
}

function tensorNames(adapter: PatchedAdapter): string[] {
  return tensorsOf(adapter).map(({ key }) => adapter[key]!);
}

function tensorOf(patched: PatchedModel, name: string) {
  const tensor = patched.constant(name);
  return { name, shape: tensor.dims, dtype: dtypeOf(tensor, patched.model) };
}

/** The output that the loss looks at. */
function outputName(
  patched: PatchedModel,
  { outputs }: GraphBuilder,
  wanted: string | undefined,
): string {
  const [made, ...others] = headOutputsOf(patched);
  const names = outputs.map(({ name }) => name);
  const name = wanted ?? (others.length === 0 ? made : undefined) ?? defaultOutput(names);
  const listed = names.join(', ');
  if (name === undefined) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${patched.model.source.label} has ${names.length} outputs (${listed}), expected one to compute the loss from`,
      { hint: 'Choose one with `modelOutput`.' },
    );
  }
  if (names.includes(name)) return name;
  throw new OnnxLoraError(
    'invalid-argument',
    `${patched.model.source.label} has no output ${name}, it has: ${listed}`,
    { hint: 'Choose one of them with `modelOutput`.' },
  );
}

function outputOf(
  patched: PatchedModel,
  graph: GraphBuilder,
  types: ValueTypes,
  wanted: string | undefined,
): { name: string } & ValueType {
  const name = outputName(patched, graph, wanted);
  const type = types.get(name);
  if (type) return { name, ...type };
  throw new OnnxLoraError('unsupported', `${name} is not a tensor, expected one for the loss`);
}

function parted<T>(items: readonly T[], belongs: (item: T) => boolean): [T[], T[]] {
  return [items.filter(belongs), items.filter((item) => !belongs(item))];
}

/** The adapted nodes, and the head, whose numbers no value of these depends on. */
function* unreachedParts(
  { adapters, head }: ModelManifest,
  reaches: ReadonlySet<string>,
): Generator<string> {
  for (const { a, sites } of adapters) {
    if (!reaches.has(a)) for (const { node } of sites) yield node;
  }
  if (head && !reaches.has(head.weight)) yield head.nodes.at(-1)!;
}

function nothingReaches(
  { model }: PatchedModel,
  { outputs }: GraphBuilder,
  { set, adapters }: ModelManifest,
  output: string,
): OnnxLoraError {
  const others = outputs.map(({ name }) => name).filter((name) => name !== output);
  const choice =
    others.length > 0
      ? `Choose another one with \`modelOutput\` (${others.join(', ')}), or patch`
      : 'Patch';
  return new OnnxLoraError(
    'invalid-argument',
    `${model.source.label}: no adapter of ${set} reaches the output ${output}, expected one that the loss can train`,
    { node: adapters[0]?.sites[0]?.node, hint: `${choice} layers that lie before ${output}.` },
  );
}
