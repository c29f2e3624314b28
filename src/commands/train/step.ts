/** The step that a run repeats: the graph that does it, and the batches that it is done on. */
import type { Dataset } from '../../data/dataset.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import type { Batches } from '../../training/batches.js';
import type { ForwardGraph } from '../../training/forward.js';
import { buildStepGraph, type StepGraph, stepOptionsOf } from '../../training/step-graph.js';
import type { RunContext } from './context.js';

export interface Step {
  /** The pass that the graph was made of. */
  readonly forward: ForwardGraph;
  readonly batches: Batches;
  readonly graph: StepGraph;
}

/**
 * The step on the provider that is going to run it.
 * @throws OnnxLoraError those of checking the data, of `buildForward` and of `buildStepGraph`
 */
export async function buildStep(
  context: RunContext,
  data: Dataset,
  provider: ProviderName,
): Promise<Step> {
  const { options } = context;
  const { dropout, shuffle, lossScale } = options;
  const fused = provider === 'cpu';
  const forward = await context.forward(data, provider, { dropout, labelledRowsOnly: fused });
  const batches = await context.batches(data, forward, shuffle);
  if (!fused) noteLastBatch(context, data);
  if (options.trainBias) noteLayersWithoutBias(context, forward);
  noteWithoutGradient(context, forward);
  const feedsLossScale = lossScale !== 1;
  const graph = await buildStepGraph(forward, stepOptionsOf({ ...options, fused, feedsLossScale }));
  return { forward, batches, graph };
}

/**
 * The step in standard operators, which every runtime has.
 * @throws OnnxLoraError as `buildStep`
 */
export async function buildPortableStep(context: RunContext, data: Dataset): Promise<Step> {
  const { options } = context;
  const forward = await context.forward(data, undefined, { dropout: options.dropout });
  noteWithoutGradient(context, forward);
  const batches = await context.batches(data, forward, options.shuffle);
  const graph = await buildStepGraph(
    { ...forward, doubt: undefined },
    stepOptionsOf({ ...options, fused: false }),
  );
  return { forward, batches, graph };
}

function noteLastBatch({ options: { batchSize, onNote } }: RunContext, { size }: Dataset): void {
  const rest = size % batchSize;
  if (rest === 0) return;
  onNote(
    `the last batch of an epoch has ${rest} of ${batchSize} samples: the model's arithmetic on shapes runs on the CPU, and would not if all batches were alike`,
  );
}

function noteLayersWithoutBias({ options }: RunContext, { withoutBias, set }: ForwardGraph): void {
  const [first, ...more] = withoutBias;
  if (first === undefined) return;
  const sites = set.adapters.flatMap((adapter) => adapter.sites).length;
  options.onNote(
    `${withoutBias.length} of ${sites} adapted layers have no bias that could train: ${first}${more.length > 0 ? ' and others' : ''}`,
  );
}

function noteWithoutGradient(
  { options }: RunContext,
  { withoutGradient, output }: ForwardGraph,
): void {
  if (withoutGradient.length === 0) return;
  options.onNote(
    `no gradient, for they do not reach ${output.name}: ${withoutGradient.join(', ')}`,
  );
}
