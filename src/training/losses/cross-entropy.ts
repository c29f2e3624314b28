import { OnnxLoraError } from '../../errors.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { Logits, Loss, LossOptions, Term } from './loss.js';
import { cast, reduce, sizeOf, unsqueeze } from './operators.js';
import { softmax } from './softmax.js';

/** Logits [.., C] against `labels` [..]. */
export const crossEntropy: Loss = {
  takes: '[batch, .., classes]',
  ranks: [2, Number.POSITIVE_INFINITY],
  contains: 'Softmax',
  add(graph, logits, addInput, options) {
    const labels = addInput('labels', 'int64', logits.shape?.slice(0, -1) ?? null);
    return meanCrossEntropy(graph, logits, cast(graph, labels, 'int32'), options);
  },
};

// A batch in which no label counts has loss 0, not 0/0.
const SMALLEST_WEIGHT = 1e-30;

/**
 * The weighted mean over all counted rows of the cross-entropy Σ q·(lse - z) between the softmax of
 * z [.., C] and the target q = (1-ε)·w[label] at the label plus ε·w/C everywhere, with class weights w
 * and label smoothing ε; the mean is by w[label], and ignored labels have weight 0. As PyTorch's
 * CrossEntropyLoss. Its gradient is (softmax(z)·Σq - q) over the sum of weights.
 * @param labels int32 [..]
 */
export function meanCrossEntropy(
  graph: GraphBuilder,
  logits: Logits,
  labels: string,
  options: LossOptions,
): Term {
  const { name: z, dtype } = logits;
  const { labelSmoothing = 0, classWeights, ignoreIndex = -100 } = options;
  checkOptions(logits, options);
  const number = (value: number) => graph.scalar(dtype, value);
  const column = unsqueeze(graph, labels, -1);
  const ignored = graph.op('Equal', [column, graph.scalar('int32', ignoreIndex)]);
  // An ignored label may lie outside the classes.
  const index = graph.op('Where', [ignored, graph.scalar('int32', 0), column]);
  const counted = cast(graph, graph.op('Not', [ignored]), dtype);
  const weights = classWeights && graph.constant(dtype, [classWeights.length], classWeights);
  const rowWeight = weights
    ? graph.op('Mul', [graph.op('Gather', [weights, index]), counted])
    : counted;
  const weight = reduce(graph, 'ReduceSum', rowWeight);
  const divisor = graph.op('Max', [weight, number(SMALLEST_WEIGHT)]);

  const { probabilities, logSumExp } = softmax(graph, z);
  const atLabel = graph.op('GatherElements', [z, index], { axis: { int: -1 } });
  const surprise = graph.op('Mul', [graph.op('Sub', [logSumExp, atLabel]), rowWeight]);
  const smoothing = labelSmoothing > 0 ? smoothed() : undefined;
  const ofRows = smoothing ? mixed(surprise, smoothing.surprise) : surprise;
  const loss = graph.op('Div', [reduce(graph, 'ReduceSum', ofRows), divisor], {}, 'loss');
  return { loss, weight, gradient: gradient() };

  /** The part of q that does not know the label, w/C, as if it were all of it. */
  function smoothed() {
    const weighted = weights ? graph.op('Mul', [z, weights]) : z;
    const average = reduce(graph, 'ReduceMean', weighted, [-1]);
    const mass = weights ? reduce(graph, 'ReduceMean', weights, [-1]) : number(1);
    const rowMass = graph.op('Mul', [counted, mass]);
    const difference = graph.op('Sub', [graph.op('Mul', [logSumExp, mass]), average]);
    return { rowMass, surprise: graph.op('Mul', [difference, counted]) };
  }

  function mixed(sharp: string, spread: string): string {
    return graph.op('Add', [
      graph.op('Mul', [sharp, number(1 - labelSmoothing)]),
      graph.op('Mul', [spread, number(labelSmoothing)]),
    ]);
  }

  function gradient(): string {
    const mass = smoothing ? mixed(rowWeight, smoothing.rowMass) : rowWeight;
    let slope = graph.op('Mul', [probabilities, graph.op('Div', [mass, divisor])]);
    if (smoothing) slope = graph.op('Sub', [slope, spreadTarget()]);
    const sharp = graph.op('Mul', [rowWeight, number(1 - labelSmoothing)]);
    const there = graph.op('Sub', [
      graph.op('GatherElements', [slope, index], { axis: { int: -1 } }),
      graph.op('Div', [sharp, divisor]),
    ]);
    return graph.op('ScatterElements', [slope, index, there], { axis: { int: -1 } }, 'grad/loss');
  }

  function spreadTarget(): string {
    const classes = cast(graph, sizeOf(graph, z, -1), dtype);
    const share = graph.op('Div', [number(labelSmoothing), graph.op('Mul', [classes, divisor])]);
    const spread = graph.op('Mul', [counted, share]);
    return weights ? graph.op('Mul', [spread, weights]) : spread;
  }
}

function checkOptions({ name, shape }: Logits, options: LossOptions): void {
  const { labelSmoothing = 0, classWeights } = options;
  if (!(labelSmoothing >= 0 && labelSmoothing < 1)) {
    const message = `label smoothing has to be at least 0 and below 1, found ${labelSmoothing}`;
    throw new OnnxLoraError('invalid-argument', message);
  }
  if (!classWeights) return;
  if (classWeights.some((weight) => !(weight >= 0 && Number.isFinite(weight)))) {
    const message = `class weights are numbers from 0 on, found ${classWeights.join(', ')}`;
    throw new OnnxLoraError('invalid-argument', message);
  }
  const classes = shape?.at(-1);
  if (typeof classes !== 'number' || classes === classWeights.length) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `${classWeights.length} class weights for the ${classes} classes of ${name}`,
    { hint: 'Give one weight for each class, in the order of the classes.' },
  );
}
