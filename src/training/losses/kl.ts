import type { GraphBuilder } from '../../graph/builder.js';
import { option, type ResolvedOf } from '../../options/option.js';
import { positive } from '../../options/schemas.js';
import { agreement } from '../metrics/agreement.js';
import { ignoreIndexOption } from './class-options.js';
import { countedLabels, divisorOf } from './counting.js';
import type { AddInput, Logits, Loss, LossData } from './loss.js';
import { cast, reduce } from './operators.js';
import { softmax } from './softmax.js';

const trainOptions = {
  /** kl: the logits of both models are divided by it; default 1. */
  temperature: option(positive, {
    group: 'Loss',
    value: 'T',
    default: 1,
    summary: 'the logits of both models are divided by it',
    example: '--loss kl --temperature 2',
  }),
};

/**
 * Distillation: T² · KL(softmax(teacher/T) ‖ softmax(z/T)), the mean over all positions (all axes but
 * the last; PyTorch's `batchmean` of [positions, classes]). `teacher` holds the logits of the teacher
 * in the shape of z. The gradient is T·(p - q) over the number of positions, with the softmaxes p of
 * the student and q of the teacher (Hinton, Vinyals, Dean 2015).
 */
export const kl = {
  name: 'kl',
  summary: 'the outputs of a larger model, its teacher',
  labels: 'teacher',
  measures: 'agreement with the teacher',
  metric: agreement,
  options: ignoreIndexOption,
  trainOptions,
  takes: '[batch, .., classes]',
  ranks: [2, Number.POSITIVE_INFINITY],
  contains: 'Softmax',
  add(graph, logits, addInput, options) {
    const { dtype, shape } = logits;
    const { temperature } = options;
    const given = addInput('teacher', 'float32', shape);
    const student = cooled(logits.name);
    const teacher = cooled(dtype === 'float32' ? given : cast(graph, given, dtype));
    const [p, q] = [softmax(graph, student), softmax(graph, teacher)];
    const counted = countedPositions(graph, logits, addInput, options, q.logSumExp);
    const weight = reduce(graph, 'ReduceSum', counted);
    const divisor = divisorOf(graph, weight, dtype);
    // Σ q·(log q - log p), with log q = teacher - lse(teacher) and Σ q = 1
    const further = graph.op('Mul', [q.probabilities, graph.op('Sub', [teacher, student])]);
    const divergence = graph.op('Add', [
      reduce(graph, 'ReduceSum', further, [-1]),
      graph.op('Sub', [p.logSumExp, q.logSumExp]),
    ]);
    const total = reduce(graph, 'ReduceSum', graph.op('Mul', [divergence, counted]));
    const mean = graph.op('Div', [total, divisor]);
    const loss = graph.op('Mul', [mean, graph.scalar(dtype, temperature ** 2)], {}, 'loss');
    const difference = graph.op('Sub', [p.probabilities, q.probabilities]);
    const share = graph.op('Div', [counted, divisor]);
    const factor = graph.op('Mul', [share, graph.scalar(dtype, temperature)]);
    return { loss, weight, gradient: graph.op('Mul', [difference, factor], {}, 'grad/loss') };

    function cooled(value: string): string {
      return temperature === 1 ? value : graph.op('Div', [value, graph.scalar(dtype, temperature)]);
    }
  },
} as const satisfies Loss<typeof ignoreIndexOption, typeof trainOptions>;

/** 1 for each position, [.., 1]; 0 where the data have labels and the position's is ignored. */
function countedPositions(
  graph: GraphBuilder,
  { dtype, shape }: Logits,
  addInput: AddInput,
  { dataKeys, ignoreIndex }: LossData & ResolvedOf<typeof ignoreIndexOption>,
  perPosition: string,
): string {
  if (!dataKeys?.includes('labels')) {
    const size = graph.op('Shape', [perPosition]);
    return graph.op('Expand', [graph.scalar(dtype, 1), size]);
  }
  const labels = cast(graph, addInput('labels', 'int64', shape?.slice(0, -1) ?? null), 'int32');
  return countedLabels(graph, labels, dtype, ignoreIndex).counted;
}
