import { DEFAULT_BLANK } from '../../data/blank.js';
import { OnnxLoraError } from '../../errors.js';
import type { GraphBuilder } from '../../graph/builder.js';
import { option } from '../../options/option.js';
import { whole } from '../../options/schemas.js';
import { transcription } from '../metrics/transcription.js';
import { addRecursion, LOG_ZERO } from './ctc-recursion.js';
import type { Logits, Loss } from './loss.js';
import { BEFORE_FIRST, cast, END, reduce, sizeOf, slice, unsqueeze } from './operators.js';
import { softmax } from './softmax.js';

/** Between log probabilities and the number used for log 0. */
const LEAST_LOG = -1e29;

const options = {
  /** ctc: the class that stands for no label; default 0. */
  blank: option(whole(0), {
    group: 'Loss',
    value: 'CLASS',
    default: DEFAULT_BLANK,
    summary: 'number of the class that stands for no label',
    example: '--loss ctc --blank 31',
  }),
};

/**
 * Connectionist temporal classification (Graves et al. 2006): -log of the summed probability of all
 * ways to spell a row's labels over its frames, with blanks between them as needed. As PyTorch's
 * ctc_loss with reduction "mean" and zero_infinity: each row's loss over its number of labels (at
 * least 1), then the mean over the rows, where a row that no way can spell counts as 0.
 *
 * The path of a row runs through L = 2S+1 states: blank, label, blank, …, label, blank. With log
 * probabilities α of beginnings and β of endings, both with the frame's own emission y, the gradient by
 * the logits of frame t is softmax(z) - Σ over states of the class of exp(α + β - y - log P).
 */
export const ctc = {
  name: 'ctc',
  summary: 'a text that is spelled over frames, as of speech or of lines in images',
  labels: 'spelling',
  measures: 'character error rate and exact match',
  metric: transcription,
  options,
  trainOptions: {},
  takes: '[batch, frames, classes]',
  ranks: [3, 3],
  contains: 'Softmax',
  add(graph, logits, addInput, { blank }) {
    checkBlank(logits, blank);
    const { name: z, dtype, shape } = logits;
    const batch = shape?.[0] ?? null;
    const integers = (name: string, ...more: string[]) =>
      cast(graph, addInput(name, 'int64', [batch, ...more]), 'int32');
    const labels = integers('labels', 'labels_length');
    const frames = unsqueeze(graph, integers('input_lengths'), 1);
    const labelCount = unsqueeze(graph, integers('label_lengths'), 1);

    const { probabilities, logSumExp } = softmax(graph, z);
    const states = stateClasses(graph, labels, labelCount, blank);
    const classes = overFrames(graph, states, z);
    const rows: Rows = {
      states,
      classes,
      labelCount,
      emissions: graph.op('Max', [
        graph.op('Sub', [at(graph, z, classes), logSumExp]),
        graph.scalar(dtype, LOG_ZERO),
      ]),
      active: unsqueeze(graph, before(graph, sizeOf(graph, z, 1), frames), 2),
    };
    const paths = pathProbabilities(graph, dtype, rows);

    const possible = graph.op('Greater', [paths.logP, graph.scalar(dtype, LEAST_LOG)]);
    const logP = graph.op('Where', [possible, paths.logP, graph.scalar(dtype, 0)]);
    const weight = cast(graph, sizeOf(graph, z, 0), dtype);
    const counts = cast(graph, unsqueeze(graph, labelCount, 2), dtype);
    const divisor = graph.op('Mul', [graph.op('Max', [counts, graph.scalar(dtype, 1)]), weight]);
    const surprise = graph.op('Neg', [graph.op('Div', [logP, divisor])]);
    const loss = reduce(graph, 'ReduceSum', surprise);

    // The factor of each frame's gradient.
    const share = graph.op('Mul', [
      graph.op('Div', [cast(graph, possible, dtype), divisor]),
      cast(graph, rows.active, dtype),
    ]);
    const occupancy = graph.op('Mul', [occupancyOf(graph, dtype, rows, { ...paths, logP }), share]);
    const slope = graph.op('Mul', [probabilities, share]);
    const there = graph.op('Sub', [
      at(graph, slope, classes),
      sumByClass(graph, occupancy, states, dtype),
    ]);
    // States of one class write the same number.
    const inputs = [slope, classes, there];
    const gradient = graph.op('ScatterElements', inputs, { axis: { int: 2 } }, 'grad/loss');
    return { loss, weight, gradient };
  },
} as const satisfies Loss<typeof options>;

/** The states that the paths of a batch run through. */
interface Rows {
  /** The class of each state, int32 [B, L]. */
  readonly states: string;
  /** The same for each frame, [B, T, L]. */
  readonly classes: string;
  /** int32 [B, 1] */
  readonly labelCount: string;
  /** Log probability of each state's class, [B, T, L]. */
  readonly emissions: string;
  /** Whether a frame is one of the row's, [B, T, 1]. */
  readonly active: string;
}

/** Log probabilities of beginnings and endings, [B, T, L], and of all paths, [B, 1, 1]. */
interface Paths {
  readonly alpha: string;
  readonly beta: string;
  readonly logP: string;
}

function checkBlank({ name, shape }: Logits, blank: number): void {
  const classes = shape?.at(-1);
  const most = typeof classes === 'number' ? classes - 1 : END;
  if (blank <= most) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `the blank has to be one of the classes 0 to ${most} of ${name}, found ${blank}`,
  );
}

/** The class of each state, int32 [B, 2S+1]; blank after a row's last label. */
function stateClasses(graph: GraphBuilder, labels: string, labelCount: string, blank: number) {
  const blankClass = graph.scalar('int32', blank);
  const isLabel = before(graph, sizeOf(graph, labels, 1), labelCount);
  const clean = graph.op('Where', [isLabel, labels, blankClass]);
  const padded = graph.op('Pad', [clean, graph.integers([0, 0, 0, 1]), blankClass]);
  const column = unsqueeze(graph, padded, 2);
  const pairs = graph.op('Pad', [column, graph.integers([0, 0, 1, 0, 0, 0]), blankClass]);
  const row = graph.op('Reshape', [pairs, graph.integers([0, -1])]);
  return slice(graph, row, 1, 0, -1);
}

/** Which of the positions 0 .. size-1 are below each row's count [B, 1]: bool [B, size]. */
function before(graph: GraphBuilder, size: string, count: string): string {
  return graph.op('Less', [positions(graph, size), count]);
}

/** 0 .. size-1 as int32. */
function positions(graph: GraphBuilder, size: string): string {
  const [from, step] = [graph.scalar('int32', 0), graph.scalar('int32', 1)];
  return graph.op('Range', [from, cast(graph, size, 'int32'), step]);
}

/** [B, L] to [B, T, L]. */
function overFrames(graph: GraphBuilder, states: string, z: string): string {
  const size = graph.op('Shape', [z]);
  const one = graph.integers([1]);
  const shape = graph.op('Concat', [one, slice(graph, size, 0, 1, 2), one], { axis: { int: 0 } });
  return graph.op('Expand', [unsqueeze(graph, states, 1), shape]);
}

function at(graph: GraphBuilder, value: string, classes: string): string {
  return graph.op('GatherElements', [value, classes], { axis: { int: 2 } });
}

/** Each state gets the sum over all states [B, T, L] of its class: blanks and repeated labels. */
function sumByClass(graph: GraphBuilder, value: string, states: string, dtype: Logits['dtype']) {
  const same = graph.op('Equal', [unsqueeze(graph, states, 1), unsqueeze(graph, states, 2)]);
  return graph.op('MatMul', [value, cast(graph, same, dtype)]);
}

/** The probability that a frame is in a state, given that the path spells the labels, [B, T, L]. */
function occupancyOf(
  graph: GraphBuilder,
  dtype: Logits['dtype'],
  { emissions }: Rows,
  { alpha, beta, logP }: Paths,
): string {
  const both = graph.op('Sub', [graph.op('Add', [alpha, beta]), emissions]);
  const log = graph.op('Sub', [both, logP]);
  // Behind a row's last frame it means nothing, and must not overflow before it is multiplied by 0.
  return graph.op('Exp', [graph.op('Min', [log, graph.scalar(dtype, 0)])]);
}

/**
 * α, β and log P. Read backwards in time and states, endings obey the recursion of beginnings: both run
 * as one, over 2B rows.
 */
function pathProbabilities(
  graph: GraphBuilder,
  dtype: Logits['dtype'],
  { states, labelCount, emissions, active }: Rows,
): Paths {
  const onTop = (a: string, b: string, axis: number) =>
    graph.op('Concat', [a, b], { axis: { int: axis } });
  const backwards = (value: string, axis: number) =>
    slice(graph, value, axis, -1, BEFORE_FIRST, -1);
  const framesFirst = (value: string) =>
    graph.op('Transpose', [value], { perm: { ints: [1, 0, 2] } });

  const frames = framesFirst(emissions);
  const isFrame = framesFirst(active);
  const allStates = onTop(states, backwards(states, 1), 0);
  const stateCount = sizeOf(graph, states, 1);
  // A path starts in state 0 and ends in state 2·labels, which is L-1 - 2·labels read backwards.
  const last = graph.op('Sub', [
    graph.op('Sub', [cast(graph, stateCount, 'int32'), graph.scalar('int32', 1)]),
    graph.op('Mul', [labelCount, graph.scalar('int32', 2)]),
  ]);
  const start = onTop(graph.op('Mul', [labelCount, graph.scalar('int32', 0)]), last, 0);
  const isStart = graph.op('Equal', [positions(graph, stateCount), start]);
  const { every, final } = addRecursion(graph, dtype, {
    start: logOf(graph, isStart, dtype),
    skip: logOf(graph, maySkip(graph, allStates), dtype),
    emissions: onTop(frames, backwards(backwards(frames, 0), 2), 1),
    active: onTop(isFrame, backwards(isFrame, 0), 1),
  });
  const [alpha, reversed] = halves(graph, every, 1);
  const beta = backwards(backwards(reversed, 0), 2);
  // The first blank and the first label, where every path starts.
  const starts = slice(graph, halves(graph, final, 0)[1], 1, -2, END);
  const logP = reduce(graph, 'ReduceLogSumExp', starts, [1]);
  return { alpha: framesFirst(alpha), beta: framesFirst(beta), logP: unsqueeze(graph, logP, 2) };
}

/** log 1 or log 0 */
function logOf(graph: GraphBuilder, condition: string, dtype: Logits['dtype']): string {
  return graph.op('Where', [condition, graph.scalar(dtype, 0), graph.scalar(dtype, LOG_ZERO)]);
}

/** Whether a path may leave out the state before: where two labels differ, the blank between them. */
function maySkip(graph: GraphBuilder, states: string): string {
  // It does not matter what the first two are compared to: no path enters them from before.
  const padded = graph.op('Pad', [states, graph.integers([0, 2, 0, 0]), graph.scalar('int32', 0)]);
  return graph.op('Not', [graph.op('Equal', [states, slice(graph, padded, 1, 0, -2)])]);
}

/** The two halves of an axis of even size. */
function halves(graph: GraphBuilder, value: string, axis: number): [string, string] {
  const equally = graph.opset >= 18 ? { num_outputs: { int: 2 } } : {};
  const [first, second] = graph.ops('Split', [value], 2, { axis: { int: axis }, ...equally });
  return [first!, second!];
}
