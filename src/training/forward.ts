/** A patched model as a graph that computes a loss from a flat vector of adapter numbers. */
import { kindOf } from '../adapters/kinds/index.js';
import type { ModelManifest } from '../adapters/model/manifest.js';
import type { AttachedSite, PatchedModel } from '../adapters/model/patched.js';
import type { Composite } from '../autodiff/differentiate.js';
import { settledInputs } from '../data/settled-inputs.js';
import type { GraphBuilder } from '../graph/builder.js';
import { loadGraph } from '../graph/load.js';
import type { ValueTypes } from '../graph/value-type.js';
import type { NewNode } from '../onnx/encode.js';
import type { Dim } from '../onnx/model.js';
import type { TensorReader } from '../onnx/tensor.js';
import { handler, type OptionsOf } from '../options/option.js';
import { resolveOptions } from '../options/resolve.js';
import { object, share, text, toggle } from '../options/schemas.js';
import { SizeProbe } from '../runtime/size-probe.js';
import { addDropout, type Noise } from './layers/dropout.js';
import type { AllowedOperators } from './layers/factor-gradients.js';
import { type RewriteOptions, rewriteAdapters } from './layers/rewrite.js';
import {
  inTrainingOpset,
  type LossGraph,
  type LossGraphOptions,
  lossGraphOptions,
  outputName,
  outputOf,
  pinShapes,
  withLoss,
} from './loss-graph.js';
import { type RowFilter, rowSource } from './losses/labelled-rows.js';
import { readFromVector, sizeOf } from './parameters.js';
import { computeSettled } from './settled-nodes.js';
import { type Trainable, theSet, trainableOf } from './trainable.js';

/** A loss as a function of the adapters. */
export interface ForwardGraph extends LossGraph, Trainable {
  /** The adapter set that trains. */
  readonly set: ModelManifest;
  /** The graph input with the flat vector. */
  readonly theta: string;
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
  const modelOutput = outputName(patched, graph, options.modelOutput ?? set.head?.output);
  const trainable = trainableOf(patched, graph, set, modelOutput, options.trainBias);
  const { parameters } = trainable;
  pinShapes(graph, options.inputShapes ?? new Map());
  const theta = graph.fresh('theta');
  graph.inputs.push({ name: theta, dtype: 'float32', shape: [sizeOf(parameters)] });
  readFromVector(graph, theta, parameters);
  const probe = new SizeProbe(options.sizes ?? new Map());
  const raised = await inTrainingOpset(graph, probe);
  const filter = options.labelledRowsOnly ? rowFilter(patched, theta, probe) : undefined;
  const kept = filter && nodesOfManyLogits(patched, raised, modelOutput, filter);
  const layers = layersIn(raised, patched, set, probe, { ...options, kept });
  const own = filter && { ...filter, ...rewrittenIn(layers) };
  const lossGraph = withLoss(patched, raised, probe, { ...options, modelOutput }, own);
  const moved = new Set([...layers.moved, ...(lossGraph.rows?.values ?? [])]);
  return { ...lossGraph, ...layers, ...trainable, moved, set, theta };
}

// Logits of 256 MB.
const MANY_PARTS = 8;

/**
 * The nodes whose rows are left out where no label is, if that is worth more than the faster form of the
 * layers, which computes all logits at once. They are looked for again after the other layers changed.
 */
function nodesOfManyLogits(
  patched: PatchedModel,
  { graph, types }: { graph: GraphBuilder; types: ValueTypes },
  modelOutput: string,
  filter: RowFilter,
): Set<string> | undefined {
  const output = outputOf(patched, graph, types, modelOutput);
  const source = rowSource(graph, types, output, filter);
  return source && source.parts >= MANY_PARTS ? namesOf(source.nodes) : undefined;
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
