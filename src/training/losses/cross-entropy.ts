import type { GradientSeed } from '../../autodiff/differentiate.js';
import { OnnxLoraError } from '../../errors.js';
import type { GraphBuilder } from '../../graph/builder.js';
import { classification } from '../metrics/classification.js';
import { type ClassOptions, classOptions, smoothingOption } from './class-options.js';
import { countedLabels, divisorOf } from './counting.js';
import { labelledOnly } from './labelled-rows.js';
import type { Logits, Loss, Term } from './loss.js';
import { cast, reduce, sizeOf, sumOf } from './operators.js';
import { softmax } from './softmax.js';

/** Logits [.., C] against `labels` [..]. */
export const crossEntropy = {
  name: 'cross-entropy',
  summary: 'one class of several',
  labels: 'classes',
  measures: 'accuracy and F1',
  metric: classification,
  options: classOptions,
  trainOptions: smoothingOption,
  takes: '[batch, .., classes]',
  ranks: [2, Number.POSITIVE_INFINITY],
  contains: 'Softmax',
  add(graph, logits, addInput, options) {
    const labels = addInput('labels', 'int64', logits.shape?.slice(0, -1) ?? null);
    return meanCrossEntropy(graph, logits, cast(graph, labels, 'int32'), options);
  },
} as const satisfies Loss<typeof classOptions, typeof smoothingOption>;

/**
 * The weighted mean over all counted rows of the cross-entropy Σ q·(lse - z) between softmax(z) of
 * z [.., C] and the target q = (1-ε)·w[label] at the label plus ε·w/C everywhere, with class weights w
 * and label smoothing ε. The mean is by w[label]; ignored labels have weight 0. As PyTorch's
 * CrossEntropyLoss. Its gradient is (softmax(z)·Σq - q) over the sum of weights.
 * @param labels int32 [..]
 */
export function meanCrossEntropy(
  graph: GraphBuilder,
  wholeLogits: Logits,
  wholeLabels: string,
  options: ClassOptions,
): Term & { readonly gradient: readonly GradientSeed[] } {
  checkClassWeights(wholeLogits, options);
  const { classWeights, ignoreIndex } = options;
  const parts = labelledOnly(graph, wholeLogits, wholeLabels, ignoreIndex).map((part) => {
    const { dtype } = part.logits;
    const { index, counted } = countedLabels(graph, part.labels, dtype, ignoreIndex);
    const rowWeight = weightsOfRows(graph, classWeights, index, counted, dtype);
    return { logits: part.logits, index, counted, rowWeight };
  });
  const { dtype } = wholeLogits;
  const weights = parts.map(({ rowWeight }) => reduce(graph, 'ReduceSum', rowWeight));
  const weight = sumOf(graph, weights);
  const divisor = divisorOf(graph, weight, dtype);
  const terms = parts.map((part) => meanOverRows(graph, part, divisor, options));
  const loss = sumOf(
    graph,
    terms.map((term) => term.loss),
  );
  const gradient = terms.map(({ gradient }, i) => ({ value: parts[i]!.logits.name, gradient }));
  return { loss, weight, gradient };
}

/** Logits whose labels are known, with the weight of each row. */
interface WeighedRows {
  readonly logits: Logits;
  /** int32 [.., 1] */
  readonly index: string;
  readonly counted: string;
  readonly rowWeight: string;
}

/** The sum of rows' losses over a divisor, and its gradient. */
function meanOverRows(
  graph: GraphBuilder,
  { logits, index, counted, rowWeight }: WeighedRows,
  divisor: string,
  options: ClassOptions,
): { loss: string; gradient: string } {
  const { labelSmoothing } = options;
  const { name: z, dtype } = logits;
  const { probabilities, logSumExp } = softmax(graph, z);
  const atLabel = (value: string) =>
    graph.op('GatherElements', [value, index], { axis: { int: -1 } });

  // The part of q at the label, and the part that is everywhere.
  const sharp = graph.op('Mul', [rowWeight, graph.scalar(dtype, 1 - labelSmoothing)]);
  const spread = labelSmoothing > 0 ? spreadTarget(graph, logits, counted, options) : undefined;
  const plus = (a: string, b: string | undefined) => (b ? graph.op('Add', [a, b]) : a);

  const surprise = graph.op('Mul', [sharp, graph.op('Sub', [logSumExp, atLabel(z)])]);
  const rows = plus(surprise, spread?.surprise(logSumExp));
  const loss = graph.op('Div', [reduce(graph, 'ReduceSum', rows), divisor], {}, 'loss');

  const mass = graph.op('Div', [plus(sharp, spread?.mass), divisor]);
  const scaled = graph.op('Mul', [probabilities, mass]);
  const slope = spread
    ? graph.op('Sub', [scaled, graph.op('Div', [spread.target, divisor])])
    : scaled;
  const there = graph.op('Sub', [atLabel(slope), graph.op('Div', [sharp, divisor])]);
  const inputs = [slope, index, there];
  const gradient = graph.op('ScatterElements', inputs, { axis: { int: -1 } }, 'grad/loss');
  return { loss, gradient };
}

/** The weight of each row's class; 0 for rows that do not count. */
export function weightsOfRows(
  graph: GraphBuilder,
  classWeights: readonly number[] | undefined,
  index: string,
  counted: string,
  dtype: Logits['dtype'],
): string {
  if (!classWeights) return counted;
  const weights = graph.constant(dtype, [classWeights.length], classWeights);
  return graph.op('Mul', [graph.op('Gather', [weights, index]), counted]);
}

/**
 * The part of the target that is everywhere, q = ε·w/C: with Σq, and with the loss of a row,
 * Σq·lse - Σ q·z.
 */
function spreadTarget(
  graph: GraphBuilder,
  { name: z, dtype }: Logits,
  counted: string,
  { labelSmoothing, classWeights }: ClassOptions,
) {
  const mul = (a: string, b: string) => graph.op('Mul', [a, b]);
  const classes = cast(graph, sizeOf(graph, z, -1), dtype);
  const share = mul(counted, graph.op('Div', [graph.scalar(dtype, labelSmoothing), classes]));
  const weights = classWeights && graph.constant(dtype, [classWeights.length], classWeights);
  const sum =
    classWeights &&
    graph.scalar(
      dtype,
      classWeights.reduce((a, b) => a + b, 0),
    );
  const mass = mul(share, sum ?? classes);
  const along = reduce(graph, 'ReduceSum', weights ? mul(z, weights) : z, [-1]);
  return {
    target: weights ? mul(share, weights) : share,
    mass,
    surprise: (logSumExp: string) => graph.op('Sub', [mul(mass, logSumExp), mul(share, along)]),
  };
}

/** @throws OnnxLoraError `invalid-argument` for weights that are not one for each class, or of no use */
export function checkClassWeights(
  { name, shape }: Logits,
  {
    classWeights,
    labelSmoothing = 0,
  }: Partial<Pick<ClassOptions, 'classWeights' | 'labelSmoothing'>>,
): void {
  if (!classWeights) return;
  checkSmoothed(classWeights, labelSmoothing);
  const classes = shape?.at(-1);
  if (typeof classes !== 'number' || classes === classWeights.length) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `${classWeights.length} class weights for the ${classes} classes of ${name}`,
    { hint: 'Give one weight for each class, in the order of the classes.' },
  );
}

/** Rows of a class without weight would have a loss by smoothing, and no part in what it is the mean of. */
function checkSmoothed(classWeights: readonly number[], labelSmoothing: number): void {
  const without = classWeights.indexOf(0);
  if (without < 0 || labelSmoothing === 0) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `class ${without} has the weight 0, and with \`labelSmoothing\` the loss still moves by its samples, of which the mean counts none`,
    { hint: 'Give the class a small weight, or leave its samples out with `ignoreIndex`.' },
  );
}
