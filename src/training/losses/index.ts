/** The whole list of losses, and how one gets into a graph. */

import type { LabelRequest } from '../../data/label-kind.js';
import type { ModelOutput } from '../../data/needs.js';
import { OnnxLoraError } from '../../errors.js';
import type { GraphBuilder, ValueSpec } from '../../graph/builder.js';
import type { ValueTypes } from '../../graph/value-type.js';
import { isConvertible } from '../../onnx/dtype.js';
import { byName, optionsByChoice } from '../../options/by-choice.js';
import { type OptionsOf, option } from '../../options/option.js';
import { resolveOptions } from '../../options/resolve.js';
import { choice } from '../../options/schemas.js';
import type { MetricAccumulator, MetricOptions } from '../metrics/metric.js';
import { bce } from './bce.js';
import { causalLm } from './causal-lm.js';
import { crossEntropy } from './cross-entropy.js';
import { ctc } from './ctc.js';
import { focal } from './focal.js';
import { kl } from './kl.js';
import { keepRows, type RowFilter, rowSource } from './labelled-rows.js';
import { logitsOf, mayBeProbabilities, widened } from './logits.js';
import type { AddInput, KeptRows, Logits, Loss, LossData, LossInGraph } from './loss.js';
import { mnr } from './mnr.js';
import { mse } from './mse.js';
import { addDistance } from './probabilities.js';
import { splitRows } from './row-parts.js';

export type { Loss, LossInGraph } from './loss.js';

const all = [crossEntropy, causalLm, mse, bce, ctc, mnr, kl, focal] as const;

/** Name of a loss function. */
export type LossName = (typeof all)[number]['name'];

/** The loss functions. */
export const lossNames: readonly LossName[] = all.map(({ name }) => name);

/** By name. */
export const losses: Readonly<Record<LossName, Loss>> = byName(all);

function choiceOf<const L extends readonly Loss[]>(list: L) {
  const names: readonly L[number]['name'][] = list.map(({ name }) => name);
  return {
    /** The loss function. */
    loss: option(choice(names), {
      group: 'Loss',
      value: 'NAME',
      required: true,
      summary: 'loss function',
      example: '--loss cross-entropy',
    }),
  };
}

/** The tables of a list of losses. */
interface LossTables<L extends readonly Loss[]> {
  readonly choice: ReturnType<typeof choiceOf<L>>;
  readonly options: ReturnType<typeof optionsByChoice<ReturnType<typeof byName<L>>>>;
  readonly trainOptions: ReturnType<typeof optionsByChoice<TrainOptionsOf<L>>>;
}

/**
 * The choice of a loss as an option, with those that the losses bring.
 * @param list of losses
 */
export function lossTables<const L extends readonly Loss[]>(list: L): LossTables<L> {
  return {
    choice: choiceOf(list),
    options: optionsByChoice('loss', byName(list)),
    trainOptions: optionsByChoice('loss', trainOptionsOf(list)),
  };
}

type TrainOptionsOf<L extends readonly Loss[]> = {
  readonly [One in L[number] as One['name']]: { readonly options: One['trainOptions'] };
};

function trainOptionsOf<const L extends readonly Loss[]>(list: L): TrainOptionsOf<L> {
  const entries = list.map(({ name, trainOptions }) => [name, { options: trainOptions }]);
  return Object.fromEntries(entries) as TrainOptionsOf<L>;
}

const tables = lossTables(all);

/** The choice of a loss. */
export const lossChoice = tables.choice;

/** The options of all losses, wherever one is computed. */
export const ownLossOptions = tables.options;

/** The options of all losses that only training has. */
export const lossTrainOptions = tables.trainOptions;

/** Input of {@link addLoss}: options of the losses, and facts about the data. */
export interface LossOptions
  extends OptionsOf<typeof ownLossOptions & typeof lossTrainOptions>,
    LossData {}

/** Which losses are measured by what, in words. */
export function measuresOfLosses(): string {
  const kinds = [...new Set(all.map(({ measures }) => measures))];
  const measuredBy = (kind: string) => lossNames.filter((name) => losses[name].measures === kind);
  return kinds.map((kind) => `${kind} for ${listed(measuredBy(kind))}`).join(', ');
}

/** `a, b and c` */
function listed(names: readonly string[]): string {
  return new Intl.ListFormat('en-GB').format(names);
}

/** The labels that a loss asks for. */
export function labelRequest(name: LossName): LabelRequest {
  return { labelKind: losses[name].labels, wantedBy: `the loss ${name}` };
}

/** The measures that fit a loss, empty. */
export function metricsFor(name: LossName, options: MetricOptions = {}): MetricAccumulator {
  return losses[name].metric(options);
}

// GatherElements and ScatterElements came with it.
const LEAST_OPSET = 11;

/**
 * Adds a loss after a model's output, and the graph inputs that it needs: `labels` (int64) or
 * `target` (float32); `input_lengths` and `label_lengths` (int64) for ctc; `teacher` (float32 logits)
 * for kl. Half-precision outputs are widened to float32 first.
 * @param output of the graph, with its shape as far as it is known
 * @param types of the graph's values, as far as they are known: what is after a last Softmax is seen
 * through with them
 * @param filter where rows without a label may be left out before the product that makes logits of them
 * @throws OnnxLoraError `invalid-argument` where the output does not fit the loss, where the model has
 * an input of the same name, or for an option out of range; `unsupported` for an old opset
 */
export function addLoss(
  graph: GraphBuilder,
  name: LossName,
  output: ModelOutput,
  options: LossOptions = {},
  types?: ValueTypes,
  filter?: RowFilter,
): LossInGraph {
  const loss = losses[name];
  checkFits(graph, name, loss, output);
  const before = loss.contains ? logitsOf(graph, output, loss.contains, types) : output;
  const logits = widened(graph, before);
  const inputs: ValueSpec[] = [];
  const renamed = new Map<string, string>();
  const addInput: AddInput = (input, dtype, shape) => {
    checkFree(graph, name, input);
    const own = graph.fresh(input);
    if (own !== input) renamed.set(input, own);
    graph.inputs.push({ name: own, dtype, shape });
    inputs.push({ name: input, dtype, shape });
    return own;
  };
  let rows: KeptRows | undefined;
  const source = filter && rowSource(graph, types ?? new Map(), logits, filter);
  const parts = source?.parts ?? 1;
  const only =
    source &&
    ((index: string): readonly Logits[] => {
      const values = [source.rows, ...[...source.nodes].flatMap((node) => node.outputs)];
      rows = { index, values: new Set(values) };
      keepRows(graph, source, index);
      const shape = [1, null, ...(logits.shape?.slice(2) ?? [])];
      const names = parts === 1 ? [logits.name] : splitRows(graph, source, logits.name, parts);
      return names.map((name) => ({ ...logits, name, shape }));
    });
  const mayBeShares = before === output && mayBeProbabilities(graph, output);
  const seen = only ? { ...logits, only, parts } : logits;
  const term = loss.add(graph, seen, addInput, resolvedFor(loss, options));
  const { gradient } = term;
  const seeds = typeof gradient === 'string' ? [{ value: logits.name, gradient }] : gradient;
  const shown = { ...logits, name: seeds[0]!.value };
  const doubt = mayBeShares ? doubtOf(graph, output, shown, loss) : undefined;
  const { loss: value, weight } = term;
  return {
    ...{ loss: value, weight, logits: logits.name, seeds },
    ...{ inputs, renamed, doubt, rows },
  };
}

/** @throws OnnxLoraError `invalid-argument` for an option that the loss does not have, or out of range */
function resolvedFor({ name, options, trainOptions }: Loss, given: LossOptions) {
  const { dataKeys, group, ...own } = given;
  const table = { ...options, ...trainOptions };
  return { dataKeys, group, ...resolveOptions(table, own, `the loss ${name}`) };
}

function doubtOf(
  graph: GraphBuilder,
  output: ModelOutput,
  logits: Logits,
  { contains: last }: Loss,
): LossInGraph['doubt'] {
  const isOneClass = last === 'Softmax' && output.shape?.at(-1) === 1;
  if (!last || isOneClass) return undefined;
  return { output: output.name, last, distance: addDistance(graph, logits, last) };
}

function checkFits(graph: GraphBuilder, name: LossName, loss: Loss, output: ModelOutput): void {
  const { dtype, shape } = output;
  const [least, most] = loss.ranks;
  if (graph.opset < LEAST_OPSET) {
    throw new OnnxLoraError(
      'unsupported',
      `losses need opset ${LEAST_OPSET} or later, the model has opset ${graph.opset}`,
      { hint: "Convert the model with ONNX's version converter, or export it again." },
    );
  }
  const rankFits = !shape || (shape.length >= least && shape.length <= most);
  const unfit = rankFits ? loss.unfit?.(output, graph.inputs) : undefined;
  if (unfit) throw new OnnxLoraError('invalid-argument', unfit.problem, { hint: unfit.hint });
  if (isConvertible(dtype) && rankFits) return;
  const dims = shape?.map((dim) => dim ?? '?').join(', ');
  throw new OnnxLoraError(
    'invalid-argument',
    `the loss ${name} takes a floating-point output, ${loss.takes}, found ${output.name}: ${dtype}${dims === undefined ? '' : ` [${dims}]`}`,
    { hint: 'Choose another output with `modelOutput`, or another `loss`.' },
  );
}

function checkFree(graph: GraphBuilder, loss: LossName, input: string): void {
  if (graph.inputs.every((other) => other.name !== input)) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `the loss ${loss} needs a graph input ${input}, but the model has an input of that name`,
    { hint: `Rename ${input} in the model: export it with other names of inputs.` },
  );
}
