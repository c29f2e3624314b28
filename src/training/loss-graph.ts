/** A model followed by a loss. */
import { headOutputsOf } from '../adapters/model/head-outputs.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import type { GradientSeed } from '../autodiff/differentiate.js';
import { settledInputs } from '../data/settled-inputs.js';
import { OnnxLoraError } from '../errors.js';
import { replaceBooleans } from '../graph/booleans.js';
import { copyOf, type GraphBuilder, type ValueSpec } from '../graph/builder.js';
import type { NodePlaces } from '../graph/inline.js';
import { loadPlaced } from '../graph/load.js';
import { narrowInputs } from '../graph/narrow-integers.js';
import { raiseOpset } from '../graph/raise-opset.js';
import type { ValueType, ValueTypes } from '../graph/value-type.js';
import type { Dim } from '../onnx/model.js';
import type { TensorReader } from '../onnx/tensor.js';
import { handler, type OptionsOf } from '../options/option.js';
import { choice, object, text, toggle } from '../options/schemas.js';
import { inferTypes } from '../runtime/infer-types.js';
import { SizeProbe } from '../runtime/size-probe.js';
import { defaultOutput } from './default-output.js';
import type { Renamed } from './input-names.js';
import { batchFirst } from './losses/batch-axis.js';
import { addLoss, type LossOptions, losses, lossNames } from './losses/index.js';
import type { RowFilter } from './losses/labelled-rows.js';
import type { Doubt, KeptRows } from './losses/loss.js';
import { computeSettled } from './settled-nodes.js';

export const lossGraphOptions = {
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

/** The graph with the types of its values, in an opset that has what gradients need. */
export async function inTrainingOpset(graph: GraphBuilder, probe: SizeProbe) {
  const types = await inferTypes(graph, probe);
  const raised = raiseOpset(graph, types);
  return { graph: raised, types: raised === graph ? types : await inferTypes(raised, probe) };
}

export function pinShapes(graph: GraphBuilder, shapes: ReadonlyMap<string, readonly Dim[]>): void {
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

/** The loss after the output, in the graph itself. */
export function withLoss(
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

/** The output that the loss looks at. */
export function outputName(
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

export function outputOf(
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
