import { bodyAttribute } from '../../graph/body.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { Logits } from './loss.js';
import { reduce, slice, squeeze, unsqueeze } from './operators.js';

/** The number used for log 0: finite, so that no difference of two of them is NaN, also after many frames. */
export const LOG_ZERO = -1e30;

/** Inputs of the recursion, for R rows of L states and T frames. */
export interface Recursion {
  /** Log probabilities before the first frame, [R, L]. */
  readonly start: string;
  /** log 1 where a path may leave out the state before, else log 0, [R, L]. */
  readonly skip: string;
  /** Log probability of each state's class, [T, R, L]. */
  readonly emissions: string;
  /** Whether the row has this frame, [T, R, 1]; where not, it stays as it is. */
  readonly active: string;
}

/**
 * Forward log probabilities: each frame, a path stays in its state, comes from the state before, or
 * from the one before that where it may skip:
 * a'[s] = log(exp a[s] + exp a[s-1] + skip[s]·exp a[s-2]) + y[s].
 * A Scan: it goes through any number of frames, and is not differentiated.
 * @returns a after each frame, [T, R, L], and after the last, [R, L]
 */
export function addRecursion(
  graph: GraphBuilder,
  dtype: Logits['dtype'],
  { start, skip, emissions, active }: Recursion,
): { every: string; final: string } {
  const [final, , every] = graph.ops(
    'Scan',
    [unsqueeze(graph, start, 0), unsqueeze(graph, skip, 0), emissions, active],
    3,
    {
      num_scan_inputs: { int: 2 },
      body: bodyAttribute(graph, 'body', (body) => addFrame(body, dtype)),
    },
  );
  return { every: squeeze(graph, every!, 1), final: squeeze(graph, final!, 0) };
}

/** One frame; a and skip are [1, R, L], so that three of them stack. */
function addFrame(body: GraphBuilder, dtype: Logits['dtype']): void {
  const input = (wanted: string, type: 'bool' | Logits['dtype'] = dtype) => {
    const name = body.fresh(wanted);
    body.inputs.push({ name, dtype: type, shape: null });
    return name;
  };
  const [a, skip, y, active] = [input('a'), input('skip'), input('y'), input('active', 'bool')];
  const logZero = body.scalar(dtype, LOG_ZERO);
  const padded = body.op('Pad', [a, body.integers([0, 0, 2, 0, 0, 0]), logZero]);
  const fromLast = slice(body, padded, 2, 1, -1);
  const fromBefore = body.op('Add', [slice(body, padded, 2, 0, -2), skip]);
  // ReduceLogSumExp in the operators that are vectorized.
  const most = body.op('Max', [a, fromLast, fromBefore]);
  const ways = body.op('Concat', [a, fromLast, fromBefore], { axis: { int: 0 } });
  const shares = body.op('Exp', [body.op('Sub', [ways, most])]);
  const sum = body.op('Log', [reduce(body, 'ReduceSum', shares, [0])]);
  const moved = body.op('Add', [body.op('Add', [sum, most]), y]);
  const next = body.op('Where', [active, moved, a]);
  for (const value of [next, skip, next]) {
    const name = body.op('Identity', [value]);
    body.outputs.push({ name, dtype, shape: null });
  }
}
