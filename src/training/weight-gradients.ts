/**
 * Gradients of a loss by the weights of a model: dL/dΔW of whole layers, over a few batches of data. The
 * model needs no adapters; `ΔW` stands for what one would add. Memory is bounded: layers whose
 * gradients do not fit at once take turns, each turn with a pass over the batches.
 */
import { setImmediate } from 'node:timers/promises';
import { labelsOf } from '../adapters/model/labels.js';
import type { Layer } from '../adapters/model/layers.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { isOpen, type LinearLayer } from '../adapters/targets/index.js';
import { differentiate } from '../autodiff/differentiate.js';
import { OpBuilder } from '../autodiff/op-builder.js';
import { Refusal } from '../autodiff/refusal.js';
import type { Dataset } from '../data/dataset.js';
import { modelInputs } from '../data/model-inputs.js';
import { openDataset } from '../data/open-dataset.js';
import { dataRequest } from '../data/request.js';
import { OnnxLoraError } from '../errors.js';
import { GraphBuilder } from '../graph/builder.js';
import { constantsFirst } from '../graph/constants-first.js';
import { prune } from '../graph/prune.js';
import { collect } from '../onnx/edit.js';
import type { TensorReader } from '../onnx/tensor.js';
import type { WorkOptions } from '../onnx/write-options.js';
import type { ResolvedOf } from '../options/option.js';
import { resolveOptions } from '../options/resolve.js';
import { inferTypes } from '../runtime/infer-types.js';
import type { ProviderName } from '../runtime/provider-names.js';
import { resolveProvider } from '../runtime/providers.js';
import { folderOf } from '../runtime/runnable-form.js';
import { openSession, type Session } from '../runtime/session.js';
import { Batches } from './batches.js';
import { type GradientOptions, gradientOptions } from './gradient-options.js';
import { guardFirstBatch } from './guard/first-batch.js';
import type { GuardReport } from './guard/guard.js';
import { feedsIn } from './input-names.js';
import { batchShapes, symbolSizes } from './layers/data-shapes.js';
import { deltaGradient } from './layers/delta-gradient.js';
import { buildLossGraph, type LossGraph } from './loss-graph.js';
import { lossOptions } from './loss-settings.js';
import { labelRequest } from './losses/index.js';

type Resolved = ResolvedOf<typeof gradientOptions> & GuardListener;

/** Who wants to know how the graph of the gradients compares with its file. */
export interface GuardListener {
  /** Called once, before the first gradient. */
  readonly onGuard?: ((report: GuardReport) => void) | undefined;
}

/** The gradient of one layer. */
export interface WeightGradient {
  /** The layer. */
  readonly layer: Layer;
  /** dL/dΔW [in, out], row-major: the mean over all that counts in the loss. */
  readonly values: Float64Array;
  /**
   * The same from every other batch, and from the rest: how far they differ says how sure the mean is.
   * Undefined where there was one batch.
   */
  readonly halves: readonly [Float64Array, Float64Array] | undefined;
}

/** A layer without a gradient, and why. */
export interface RefusedGradient {
  /** The layer. */
  readonly layer: Layer;
  /** The reason. */
  readonly refusal: string;
}

/**
 * The gradients of `layers`, from the last layer to the first; those without one come before.
 * @throws OnnxLoraError `invalid-argument`, `invalid-data` (also for a gradient that is not finite),
 * `unsupported` for an operator without a gradient rule, `verification` where the guard finds another
 * model, `provider`, `runtime`, `aborted`
 */
export async function* weightGradients(
  patched: PatchedModel,
  reader: TensorReader,
  layers: readonly Layer[],
  given: GradientOptions & GuardListener,
): AsyncGenerator<WeightGradient | RefusedGradient> {
  const { onGuard, ...rest } = given;
  const options = { ...resolveOptions(gradientOptions, rest, 'weightGradients'), onGuard };
  const classes = labelsOf(patched);
  const request = { ...modelInputs(patched.model), ...labelRequest(options.loss), classes };
  const data = await openDataset(options.data, dataRequest({ ...options, ...request }));
  try {
    const plan = planBatches(data, options);
    const forward = await lossGraph(patched, reader, data, plan, options);
    const batches = await batchesOf(patched, data, forward, plan, options);
    const { found, refused } = await addGradients(patched, forward, layers);
    yield* refused;
    if (found.length === 0) return;
    const provider = await providerOf(options);
    const optimization = await guarded(patched, forward, batches, { ...options, provider });
    const groups = groupsWithin(found, options.memory ?? DEFAULT_MEMORY);
    const count = Math.min(plan.count, batches.perEpoch);
    const shared = { plan: { ...plan, count }, forward, batches, provider, optimization };
    const turns = groups.map((group) => ({ ...shared, group }));
    for (const [i, turn] of turns.entries()) {
      const progress = new GradientProgress(i * count, groups.length * count, options);
      const session = await openGroup(patched, turn, options);
      try {
        yield* await accumulate(session, turn, progress);
      } finally {
        await session.release();
      }
    }
  } finally {
    data.close();
  }
}

const DEFAULT_MEMORY = 512 * 1024 * 1024;

/** The part of the data that is read. */
interface BatchPlan {
  readonly batchSize: number;
  /** Of batches, all of the same size. */
  readonly count: number;
}

function planBatches({ size }: Dataset, { batches, batchSize }: Resolved): BatchPlan {
  const whole = Math.min(batchSize, Math.max(1, Math.floor(size / 2)));
  return { batchSize: whole, count: Math.min(batches, Math.floor(size / whole)) };
}

function lossGraph(
  patched: PatchedModel,
  reader: TensorReader,
  data: Dataset,
  { batchSize }: BatchPlan,
  options: Resolved,
): Promise<PlacedLoss> {
  const { inputs } = patched.model.graph;
  return buildLossGraph(patched, reader, {
    loss: options.loss,
    modelOutput: options.modelOutput,
    sizes: symbolSizes(inputs, data, batchSize),
    inputShapes: batchShapes(inputs, data, batchSize, false),
    lossOptions: lossOptions(options, inputs, data),
  });
}

async function batchesOf(
  { model }: PatchedModel,
  data: Dataset,
  forward: LossGraph,
  { batchSize }: BatchPlan,
  options: Resolved,
): Promise<Batches> {
  const { loss, ignoreIndex, blank, seed } = options;
  const how = { loss, ignoreIndex, blank, batchSize, shuffle: true, seed };
  const batches = await Batches.of(data, model, forward, how, options);
  if (batches.unused.length > 0) {
    options.onNote?.(`${data.label}: nothing reads ${batches.unused.join(', ')}`);
  }
  return batches;
}

async function providerOf({ provider, onNote }: Resolved): Promise<ProviderName> {
  const { used, reason } = await resolveProvider(provider);
  if (provider === 'auto') onNote?.(`provider auto: ${used} (${reason})`);
  return used;
}

/** Without which optimizations the graph has to run, to compute what its file does. */
async function guarded(
  { model }: PatchedModel,
  forward: PlacedLoss,
  batches: Batches,
  { onGuard, ...options }: GradientOptions & GuardListener & Pick<Turn, 'provider'>,
): Promise<GuardReport['optimization']> {
  const report = await guardFirstBatch({ model, graph: forward.graph, forward, batches }, options);
  if (report) onGuard?.(report);
  return report?.optimization;
}

/** A layer with the value that is its gradient. */
interface GradientValue {
  readonly layer: Layer;
  readonly value: string;
}

interface Gradients {
  readonly found: readonly GradientValue[];
  readonly refused: readonly RefusedGradient[];
}

/** Adds the backward pass to the graph, and a product for each use of a weight. */
async function addGradients(
  patched: PatchedModel,
  forward: PlacedLoss,
  layers: readonly Layer[],
): Promise<Gradients> {
  const { graph, loss, weight, seeds, probe } = forward;
  const placed = [...layers].reverse().map((layer) => placedIn(forward, patched, layer));
  setOutputs(graph, [loss, weight, ...seeds.flatMap(({ gradient, value }) => [gradient, value])]);
  prune(graph);
  const needed = new Set(graph.nodes.flatMap(({ outputs }) => outputs));
  const outputs = [
    ...new Set(placed.flatMap(({ linear = [] }) => linear.map((one) => one.output))),
  ];
  const wanted = outputs.filter((name) => needed.has(name));
  const types = new Map(await inferTypes(graph, probe));
  const dy = differentiate(graph, types, loss, wanted, { seeds });
  for (const [output, gradient] of dy) types.set(gradient, types.get(output)!);
  const c = new OpBuilder(graph, types);
  const results = placed.map(({ layer, linear }) =>
    linear ? gradientOf(c, layer, linear, dy) : { layer, refusal: INSIDE },
  );
  return {
    found: results.filter((result) => 'value' in result),
    refused: results.filter((result) => 'refusal' in result),
  };
}

const INSIDE =
  'it is in the body of an If, Loop or Scan, where the gradient of a whole weight is not computed';

type PlacedLoss = Awaited<ReturnType<typeof buildLossGraph>>;

/** A layer with the uses of its weight that the graph has, under the names that they have there. */
interface PlacedLayer {
  readonly layer: Layer;
  /** Undefined where a use is in a body that stays. */
  readonly linear: readonly LinearLayer[] | undefined;
}

/** Branches may use one name: a layer is found by its node. */
function placedIn(
  { places, graph }: PlacedLoss,
  { values }: PatchedModel,
  layer: Layer,
): PlacedLayer {
  const nameOf = (scope: LinearLayer['node']['graph'], name: string) => {
    const producer = values.resolve(scope, name)?.producer;
    return producer ? places.get(producer)?.[producer.outputs.indexOf(name)] : name;
  };
  const linear: LinearLayer[] = [];
  for (const one of layer.linear) {
    const outputs = places.get(one.node);
    if (!outputs) return { layer, linear: undefined };
    const scope = one.node.graph;
    const [input, output] = [nameOf(scope, one.input), nameOf(scope, one.output)];
    if (input === undefined || output === undefined) continue;
    const value = isOpen(one) ? output : ownWeight(graph, output, one.weight.input);
    linear.push({ ...one, input, output: value });
  }
  return { layer, linear };
}

/** A name for the weight that one node reads: of a product inside an operator it is what has a gradient. */
function ownWeight(graph: GraphBuilder, output: string, input: number): string {
  const { nodes } = graph;
  const at = nodes.findIndex(({ outputs }) => outputs[0] === output);
  const node = nodes[at]!;
  const name = graph.fresh(`${output}/weight`);
  const inputs = node.inputs.map((value, i) => (i === input ? name : value));
  const copy = { name, opType: 'Identity', inputs: [node.inputs[input]!], outputs: [name] };
  nodes.splice(at, 1, copy, { ...node, inputs });
  return name;
}

function gradientOf(
  c: OpBuilder,
  layer: Layer,
  linear: readonly LinearLayer[],
  dy: ReadonlyMap<string, string>,
): GradientValue | RefusedGradient {
  const used = linear.filter(({ output }) => dy.has(output));
  if (used.length === 0) return { layer, refusal: 'the loss does not depend on it' };
  try {
    const products = used.map((one) => {
      const gradient = dy.get(one.output)!;
      return isOpen(one) ? deltaGradient(c, one, gradient) : exactly(c, gradient);
    });
    return { layer, value: products.reduce((a, b) => c.add(a, b)) };
  } catch (error) {
    if (error instanceof Refusal) return { layer, refusal: error.message };
    throw error;
  }
}

/** In the types that gradients are read in. */
function exactly(c: OpBuilder, value: string): string {
  return c.cast(value, c.type(value).dtype === 'float64' ? 'float64' : 'float32');
}

function setOutputs(graph: GraphBuilder, names: readonly string[]): void {
  graph.outputs.length = 0;
  for (const name of names) graph.outputs.push({ name, dtype: undefined, shape: null });
}

// The sums of both halves and their mean in float64, and what a run gives in float32.
const BYTES_PER_ELEMENT = 3 * 8 + 4;

function groupsWithin(all: readonly GradientValue[], memory: number): GradientValue[][] {
  const groups: GradientValue[][] = [];
  let free = 0;
  for (const one of all) {
    const bytes = elementsOf(one.layer) * BYTES_PER_ELEMENT;
    if (bytes > free || groups.length === 0) {
      groups.push([]);
      free = memory;
    }
    groups.at(-1)!.push(one);
    free -= bytes;
  }
  return groups;
}

function elementsOf({ linear: [first] }: Layer): number {
  return first!.weight.in * first!.weight.out;
}

/** The layers of one pass over the batches, and what it needs. */
interface Turn {
  readonly group: readonly GradientValue[];
  readonly forward: LossGraph;
  readonly batches: Batches;
  readonly plan: BatchPlan;
  readonly provider: ProviderName;
  readonly optimization: GuardReport['optimization'];
}

async function openGroup(
  { model }: PatchedModel,
  { group, forward, provider, optimization }: Turn,
  { threads }: Resolved,
): Promise<Session> {
  const graph = copyOf(forward.graph);
  setOutputs(graph, [...group.map(({ value }) => value), forward.loss, forward.weight]);
  prune(graph);
  constantsFirst(graph);
  const externalFolder = folderOf(model);
  const bytes = await collect(graph.modelPieces({}, externalFolder));
  const how = { provider, threads, optimization, externalFolder, memoryPattern: false };
  return openSession(bytes, how);
}

function copyOf(graph: GraphBuilder): GraphBuilder {
  const copy = new GraphBuilder(graph.opsets, graph.irVersion);
  for (const node of graph.nodes) copy.add(node);
  for (const tensor of graph.initializers.values()) copy.addInitializer(tensor);
  copy.inputs.push(...graph.inputs);
  return copy;
}

/** Progress of the work, over all turns. */
class GradientProgress {
  constructor(
    private done: number,
    private readonly total: number,
    private readonly options: WorkOptions,
  ) {}

  /** Signals get their turn, for a run blocks the thread. */
  async step(): Promise<void> {
    const { signal, onProgress } = this.options;
    onProgress?.({ phase: 'gradients', done: this.done++, total: this.total, unit: 'runs' });
    await setImmediate();
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
  }
}

async function accumulate(
  session: Session,
  turn: Turn,
  progress: GradientProgress,
): Promise<WeightGradient[]> {
  const { group, forward, batches, plan } = turn;
  const halves: [Half, Half] = [emptyHalf(group), emptyHalf(group)];
  for (let i = 0; i < plan.count; i++) {
    await progress.step();
    const results = await session.run(feedsIn(forward.renamed, await batches.at(i)));
    // A batch in which no label counts has no loss either.
    const weight = Number(results.get(forward.weight)!.data[0]);
    if (weight === 0) continue;
    const half = halves[i % 2]!;
    half.weight += weight;
    group.forEach(({ layer, value }, at) => {
      const { data } = results.get(value)!;
      addScaled(half.sums[at]!, data as Float32Array, weight);
      checkFinite(half.sums[at]!, layer, i, Number(results.get(forward.loss)!.data[0]));
    });
  }
  checkCounts(halves);
  return group.map(({ layer }, at) => gradientFrom(layer, halves, at));
}

interface Half {
  weight: number;
  readonly sums: readonly Float64Array[];
}

function emptyHalf(group: readonly GradientValue[]): Half {
  return { weight: 0, sums: group.map(({ layer }) => new Float64Array(elementsOf(layer))) };
}

function addScaled(sum: Float64Array, values: Float32Array | Float64Array, factor: number): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += factor * values[i]!;
}

/** In place: no other reader is left. */
function scaled(values: Float64Array, factor: number): Float64Array {
  for (let i = 0; i < values.length; i++) values[i]! *= factor;
  return values;
}

function checkFinite(sum: Float64Array, { module }: Layer, batch: number, loss: number): void {
  if (sum.every(Number.isFinite)) return;
  throw new OnnxLoraError(
    'invalid-data',
    `the gradient of ${module} is not finite in batch ${batch}, where the loss is ${loss}`,
    {
      node: module,
      hint: 'Look at the model on these data with: `evaluate(model, { data: FILE, loss: NAME })`',
    },
  );
}

function checkCounts([first, second]: readonly [Half, Half]): void {
  if (first.weight + second.weight > 0) return;
  throw new OnnxLoraError('invalid-data', 'no label of the batches counts in the loss', {
    hint: 'Labels with the value of `ignoreIndex` do not count.',
  });
}

function gradientFrom(
  layer: Layer,
  [first, second]: readonly [Half, Half],
  at: number,
): WeightGradient {
  const [a, b] = [first.sums[at]!, second.sums[at]!];
  const total = first.weight + second.weight;
  const values = a.map((sum, i) => (sum + b[i]!) / total);
  if (first.weight === 0 || second.weight === 0) return { layer, values, halves: undefined };
  return { layer, values, halves: [scaled(a, 1 / first.weight), scaled(b, 1 / second.weight)] };
}
