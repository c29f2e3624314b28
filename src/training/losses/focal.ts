import type { GraphBuilder } from '../../graph/builder.js';
import { option } from '../../options/option.js';
import { notNegative } from '../../options/schemas.js';
import { classification } from '../metrics/classification.js';
import { type ClassOptions, classOptions, smoothingOption } from './class-options.js';
import { countedLabels, divisorOf } from './counting.js';
import { checkClassWeights, weightsOfRows } from './cross-entropy.js';
import type { Logits, Loss } from './loss.js';
import { cast, reduce, sizeOf } from './operators.js';
import { softmax } from './softmax.js';

// Below it a series is exact to float32, and a quotient of rounded numbers is not.
const SMALL = 1e-3;

const options = {
  ...classOptions,
  /** focal: how much less easy samples count, the exponent γ of 1 - p; default 2, 0 is cross-entropy. */
  focalGamma: option(notNegative, {
    group: 'Loss',
    value: 'GAMMA',
    default: 2,
    summary: 'how much less samples count that are easy; 0 is cross-entropy',
    example: '--loss focal --focal-gamma 1',
  }),
};

/**
 * Focal loss (Lin et al. 2017, arXiv 1708.02002) of logits [.., C] against `labels` [..]: the weighted mean
 * over all counted rows of Σ q·(1-p)^γ·(-log p), with p = softmax(z) and the target q of cross-entropy, its
 * class weights being the paper's α. With γ = 0 it is cross-entropy. Its gradient is (g - p·Σg) over the sum
 * of weights, with g = q·(1-p)^γ·(γ·r - 1) and r = p·log p / (1-p), which lies in -1..0.
 */
export const focal = {
  name: 'focal',
  summary: 'one class of several, where most samples are easy',
  labels: 'classes',
  measures: 'accuracy and F1',
  metric: classification,
  options,
  trainOptions: smoothingOption,
  takes: '[batch, .., classes]',
  ranks: [2, Number.POSITIVE_INFINITY],
  contains: 'Softmax',
  add(graph, logits, addInput, options) {
    const { dtype, shape } = logits;
    const { focalGamma: gamma, labelSmoothing } = options;
    checkClassWeights(logits, options);
    const given = addInput('labels', 'int64', shape?.slice(0, -1) ?? null);
    const labels = cast(graph, given, 'int32');
    const { index, counted } = countedLabels(graph, labels, dtype, options.ignoreIndex);
    const rowWeight = weightsOfRows(graph, options.classWeights, index, counted, dtype);
    const weight = reduce(graph, 'ReduceSum', rowWeight);
    const divisor = divisorOf(graph, weight, dtype);
    const sharp = graph.op('Mul', [rowWeight, graph.scalar(dtype, 1 - labelSmoothing)]);
    const classes = classesOf(graph, logits);
    const atLabel = (value: string) => gather(graph, value, index);
    const own = focused(graph, dtype, gamma, sharp, mapValues(classes, atLabel));
    const all =
      labelSmoothing > 0
        ? focused(graph, dtype, gamma, spreadTarget(graph, logits, counted, options), classes)
        : undefined;
    const plus = (a: string, b: string | undefined) =>
      b ? graph.op('Add', [a, reduce(graph, 'ReduceSum', b, [-1])]) : a;

    const rows = plus(own.loss, all?.loss);
    const loss = graph.op('Div', [reduce(graph, 'ReduceSum', rows), divisor], {}, 'loss');

    const total = graph.op('Div', [plus(own.slope, all?.slope), divisor]);
    const pulled = graph.op('Neg', [graph.op('Mul', [classes.p, total])]);
    const slope = all ? graph.op('Add', [pulled, graph.op('Div', [all.slope, divisor])]) : pulled;
    const there = graph.op('Add', [atLabel(slope), graph.op('Div', [own.slope, divisor])]);
    const inputs = [slope, index, there];
    const gradient = graph.op('ScatterElements', inputs, { axis: { int: -1 } }, 'grad/loss');
    return { loss, weight, gradient };
  },
} as const satisfies Loss<typeof options, typeof smoothingOption>;

/** Probability, -log of it, and what is left to 1, of each class or of the label. */
interface Classes {
  readonly p: string;
  readonly surprise: string;
  readonly rest: string;
}

function mapValues({ p, surprise, rest }: Classes, of: (value: string) => string): Classes {
  return { p: of(p), surprise: of(surprise), rest: of(rest) };
}

function classesOf(graph: GraphBuilder, { name: z, dtype }: Logits): Classes {
  const { probabilities: p, logSumExp } = softmax(graph, z);
  // 1 - p of a class that is nearly sure has lost its digits; the sum of all others has not.
  const isMost = graph.op('Greater', [p, graph.scalar(dtype, 0.5)]);
  const others = graph.op('Where', [isMost, graph.scalar(dtype, 0), p]);
  const sum = reduce(graph, 'ReduceSum', others, [-1]);
  const plain = graph.op('Sub', [graph.scalar(dtype, 1), p]);
  const rest = graph.op('Where', [isMost, sum, plain]);
  return { p, surprise: graph.op('Sub', [logSumExp, z]), rest };
}

/** q·(1-p)^γ·(-log p), and q·(1-p)^γ·(γ·r - 1). */
function focused(
  graph: GraphBuilder,
  dtype: Logits['dtype'],
  gamma: number,
  target: string,
  { p, surprise, rest }: Classes,
): { loss: string; slope: string } {
  const mul = (a: string, b: string) => graph.op('Mul', [a, b]);
  const number = (value: number) => graph.scalar(dtype, value);
  const power = gamma === 0 ? target : mul(target, graph.op('Pow', [rest, number(gamma)]));
  const loss = mul(power, surprise);
  if (gamma === 0) return { loss, slope: graph.op('Neg', [power]) };
  const divisor = graph.op('Max', [rest, number(SMALL)]);
  const quotient = graph.op('Neg', [graph.op('Div', [mul(p, surprise), divisor])]);
  const series = graph.op('Sub', [mul(rest, number(0.5)), number(1)]);
  const isSmall = graph.op('Less', [rest, number(SMALL)]);
  const ratio = graph.op('Where', [isSmall, series, quotient]);
  const factor = graph.op('Sub', [mul(ratio, number(gamma)), number(1)]);
  return { loss, slope: mul(power, factor) };
}

/** The part of the target that is everywhere, ε·w/C of each class. */
function spreadTarget(
  graph: GraphBuilder,
  { name: z, dtype }: Logits,
  counted: string,
  { labelSmoothing = 0, classWeights }: ClassOptions,
): string {
  const classes = cast(graph, sizeOf(graph, z, -1), dtype);
  const each = graph.op('Div', [graph.scalar(dtype, labelSmoothing), classes]);
  const share = graph.op('Mul', [counted, each]);
  if (!classWeights) return graph.op('Expand', [share, graph.op('Shape', [z])]);
  return graph.op('Mul', [share, graph.constant(dtype, [classWeights.length], classWeights)]);
}

function gather(graph: GraphBuilder, value: string, index: string): string {
  return graph.op('GatherElements', [value, index], { axis: { int: -1 } });
}
