import { OnnxLoraError } from '../../errors.js';
import type { GraphBuilder } from '../../graph/builder.js';
import { option } from '../../options/option.js';
import { list, notNegative, union } from '../../options/schemas.js';
import { binary } from '../metrics/binary.js';
import { smoothingOption } from './class-options.js';
import { elementsOf, targetLike } from './elementwise.js';
import type { AddInput, Logits, Loss, LossData } from './loss.js';
import { reduce } from './operators.js';

const options = {
  /** bce: weight of the positive answers, one for all or one for each element of the last axis. */
  posWeight: option(union([list(notNegative), notNegative], 'numbers of 0 or more'), {
    group: 'Loss',
    value: 'WEIGHT',
    summary: 'weight of positive answers: one for all, or one for each element of the last axis',
    example: '--loss bce --pos-weight 3',
  }),
};

/**
 * Binary cross-entropy of logits z against answers y in 0..1, the mean over all elements of
 * -p·y·log σ(z) - (1-y)·log(1-σ(z)) with the weight p of positive answers, as PyTorch's
 * BCEWithLogitsLoss. With k = 1 + (p-1)·y and softplus(x) = log(1 + exp(x)) it is
 * (1-y)·z + k·softplus(-z), which never takes the log of 0; its gradient is k·σ(z) - p·y. Label smoothing ε
 * pulls the answers to one half: y·(1-ε) + ε/2.
 */
export const bce = {
  name: 'bce',
  summary: 'any number of classes, or yes and no',
  labels: 'sets',
  measures: 'accuracy and F1',
  metric: binary,
  options,
  trainOptions: smoothingOption,
  takes: 'any shape with a batch axis',
  ranks: [1, Number.POSITIVE_INFINITY],
  contains: 'Sigmoid',
  add(graph, logits, addInput, options) {
    const { name: z, dtype } = logits;
    const { labelSmoothing } = options;
    const given = answers(graph, logits, addInput, options);
    const y = labelSmoothing > 0 ? smoothed(graph, dtype, given, labelSmoothing) : given;
    const one = graph.scalar(dtype, 1);
    const p = positiveWeight(graph, logits, options.posWeight);
    const k = p && graph.op('Add', [graph.op('Mul', [graph.op('Sub', [p, one]), y]), one]);
    const weight = elementsOf(graph, logits);
    const softplus = softplusOf(graph, graph.op('Neg', [z]), one);
    const terms = graph.op('Add', [
      graph.op('Mul', [graph.op('Sub', [one, y]), z]),
      k ? graph.op('Mul', [k, softplus]) : softplus,
    ]);
    const loss = graph.op('Div', [reduce(graph, 'ReduceSum', terms), weight], {}, 'loss');
    const sigmoid = graph.op('Sigmoid', [z]);
    const slope = graph.op('Sub', [
      k ? graph.op('Mul', [k, sigmoid]) : sigmoid,
      p ? graph.op('Mul', [p, y]) : y,
    ]);
    const gradient = graph.op('Div', [slope, weight], {}, 'grad/loss');
    return { loss, weight, gradient };
  },
} as const satisfies Loss<typeof options, typeof smoothingOption>;

function smoothed(graph: GraphBuilder, dtype: Logits['dtype'], y: string, share: number): string {
  const sharp = graph.op('Mul', [y, graph.scalar(dtype, 1 - share)]);
  return graph.op('Add', [sharp, graph.scalar(dtype, share / 2)]);
}

/** max(x, 0) + log(1 + exp(-|x|)); ONNX Runtime has no Softplus for float64. */
function softplusOf(graph: GraphBuilder, x: string, one: string): string {
  const small = graph.op('Exp', [graph.op('Neg', [graph.op('Abs', [x])])]);
  const rest = graph.op('Log', [graph.op('Add', [small, one])]);
  return graph.op('Add', [graph.op('Relu', [x]), rest]);
}

/** 0 or 1 as `labels`, or anything between as `target`. */
function answers(
  graph: GraphBuilder,
  logits: Logits,
  addInput: AddInput,
  { dataKeys }: LossData,
): string {
  if (dataKeys?.includes('target')) return targetLike(graph, logits, addInput, 'target', 'float32');
  return targetLike(graph, logits, addInput, 'labels', 'int64');
}

function positiveWeight(
  graph: GraphBuilder,
  { name, dtype, shape }: Logits,
  posWeight: number | readonly number[] | undefined,
): string | undefined {
  if (posWeight === undefined) return undefined;
  const weights = typeof posWeight === 'number' ? [posWeight] : posWeight;
  const last = shape?.at(-1);
  if (weights.length > 1 && typeof last === 'number' && last !== weights.length) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${weights.length} weights of positive answers for the last axis of ${name}, which has ${last} elements`,
      { hint: 'Give one weight for all elements, or one for each.' },
    );
  }
  return graph.constant(dtype, [weights.length], weights);
}
