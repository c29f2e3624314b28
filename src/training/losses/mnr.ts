import { DEFAULT_IGNORE_INDEX } from '../../data/ignore-index.js';
import type { GraphBuilder } from '../../graph/builder.js';
import { option } from '../../options/option.js';
import { positive } from '../../options/schemas.js';
import { retrieval } from '../metrics/retrieval.js';
import { meanCrossEntropy } from './cross-entropy.js';
import type { Logits, Loss } from './loss.js';
import { cast, END, reduce, sizeOf, slice } from './operators.js';
import { PAIR } from './pairs.js';

// As PyTorch's normalize: a vector of zeros stays one.
const SHORTEST = 1e-12;

const options = {
  /** mnr: cosines are multiplied by it before the softmax; default 20. */
  scale: option(positive, {
    group: 'Loss',
    value: 'FACTOR',
    default: 20,
    summary: 'factor of the cosine similarities before their softmax, 1 / temperature',
    example: '--loss mnr --scale 50',
  }),
};

// Every anchor counts, and has one answer.
const plain = { ignoreIndex: DEFAULT_IGNORE_INDEX, labelSmoothing: 0, classWeights: undefined };

/**
 * Multiple-negatives ranking: of embeddings z [2B, H], rows 0..B-1 are anchors and rows B..2B-1 their
 * positives; of z [3B, H], rows 2B..3B-1 are texts that none of them is to find. Each anchor has to find
 * its own positive among all that are not anchors: the cross-entropy of the rows of S = scale · e_a·e_cᵀ,
 * e = z/‖z‖, with labels 0..B-1 (sentence-transformers' MultipleNegativesRankingLoss). The data need no
 * labels.
 */
export const mnr = {
  name: 'mnr',
  summary: 'embeddings in which an anchor finds its own text among those of the batch',
  labels: 'pairs',
  measures: 'recall',
  metric: retrieval,
  options,
  trainOptions: {},
  takes: '[2 · pairs, size]: the anchors, then their positives (then negatives)',
  ranks: [2, 2],
  add(graph, logits, _addInput, { scale, group = PAIR }) {
    const { dtype } = logits;
    const { norm, embeddings } = normalized(graph, logits);
    const [anchors, candidates] = parts(graph, logits, embeddings, group);
    const factor = graph.scalar(dtype, scale);
    const scaled = graph.op('Mul', [anchors, factor]);
    const scores = graph.op('MatMul', [scaled, transposed(graph, candidates)]);
    const ranking = meanCrossEntropy(
      graph,
      { name: scores, dtype, shape: null },
      pairNumbers(graph, scores),
      plain,
    );
    const slope = ranking.gradient[0]!.gradient;
    const ofAnchors = graph.op('MatMul', [graph.op('Mul', [slope, factor]), candidates]);
    const ofCandidates = graph.op('MatMul', [transposed(graph, slope), scaled]);
    const g = graph.op('Concat', [ofAnchors, ofCandidates], { axis: { int: 0 } });
    // With g = d loss / d e: d loss / d z = (g - e·Σ(g·e)) / ‖z‖
    const along = reduce(graph, 'ReduceSum', graph.op('Mul', [g, embeddings]), [-1]);
    const across = graph.op('Sub', [g, graph.op('Mul', [embeddings, along])]);
    return { ...ranking, gradient: graph.op('Div', [across, norm], {}, 'grad/loss') };
  },
} as const satisfies Loss<typeof options>;

function normalized(graph: GraphBuilder, { name: z, dtype }: Logits) {
  const length = reduce(graph, 'ReduceL2', z, [-1]);
  const norm = graph.op('Max', [length, graph.scalar(dtype, SHORTEST)]);
  return { norm, embeddings: graph.op('Div', [z, norm]) };
}

/** [G·B, H] to [B, H] and the rest; other numbers of rows than multiples of G fail in the Reshape. */
function parts(
  graph: GraphBuilder,
  { name: z }: Logits,
  embeddings: string,
  group: number,
): [anchors: string, candidates: string] {
  const width = graph.op('Reshape', [sizeOf(graph, z, 1), graph.integers([1])]);
  const shaped = (value: string, ...lead: number[]) => {
    const shape = graph.op('Concat', [graph.integers(lead), width], { axis: { int: 0 } });
    return graph.op('Reshape', [value, shape]);
  };
  const groups = shaped(embeddings, group, -1);
  const anchors = graph.op('Gather', [groups, graph.scalar('int64', 0)], { axis: { int: 0 } });
  return [anchors, shaped(slice(graph, groups, 0, 1, END), -1)];
}

function transposed(graph: GraphBuilder, value: string): string {
  return graph.op('Transpose', [value], { perm: { ints: [1, 0] } });
}

/** 0 .. B-1 for the B rows of `scores`. */
function pairNumbers(graph: GraphBuilder, scores: string): string {
  const [from, step] = [graph.scalar('int32', 0), graph.scalar('int32', 1)];
  return graph.op('Range', [from, cast(graph, sizeOf(graph, scores, 0), 'int32'), step]);
}
