import type { GraphBuilder } from '../graph/builder.js';
import { Arithmetic } from './optimizers/arithmetic.js';

/** The L2 norm of a vector, a scalar. */
export function normOf(graph: GraphBuilder, vector: string): string {
  const squares = graph.op('Mul', [vector, vector], {}, 'optimizer/squares');
  const sum = graph.op('ReduceSum', [squares], { keepdims: { int: 0 } }, 'optimizer/sum');
  return graph.op('Sqrt', [sum], {}, 'gradient_norm');
}

/** `g · min(1, clip / (|g| + 1e-6))`, as torch.nn.utils.clip_grad_norm_; 0 for no limit. */
export function clipped(graph: GraphBuilder, g: string, norm: string, clip: number): string {
  if (clip === 0) return g;
  const { number, add, div, mul } = new Arithmetic(graph);
  const factor = div(number(clip), add(norm, number(1e-6)));
  return mul(g, graph.op('Min', [factor, number(1)], {}, 'optimizer/factor'));
}
