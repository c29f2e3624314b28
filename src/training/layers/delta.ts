/** ΔW of an adapter as a matrix, from its factors: work that does not grow with the batch. */

import { isPlain, type Structure } from '../../adapters/structure/structure.js';
import type { GraphBuilder } from '../../graph/builder.js';

/** Value names of an adapter's tensors. */
export interface FactorValues {
  readonly a: string;
  readonly b: string;
  readonly generalA?: string | undefined;
  readonly generalB?: string | undefined;
  readonly scale: string;
}

/** `s · A · B` [in, out] for any structure. */
export function deltaMatrix(graph: GraphBuilder, s: Structure, factors: FactorValues): string {
  const { a, b, generalA, generalB, scale } = factors;
  const op = (type: string, ...inputs: string[]) => graph.op(type, inputs, {}, `delta/${type}`);
  const scaled = op('Mul', b, scale);
  const blocks = isPlain(s) ? op('MatMul', a, scaled) : gridDelta(graph, s, a, scaled);
  if (generalA === undefined || generalB === undefined) return blocks;
  return op('Add', blocks, op('MatMul', generalA, op('Mul', generalB, scale)));
}

function gridDelta(graph: GraphBuilder, s: Structure, a: string, b: string): string {
  const [kIn, kOut] = s.grid;
  const [height, width] = [s.in / kIn, s.out / kOut];
  const op = (type: string, ...inputs: string[]) => graph.op(type, inputs, {}, `delta/${type}`);
  const reshape = (value: string, ...shape: number[]) =>
    op('Reshape', value, graph.integers(shape));
  if (s.structure === 'diagonal') {
    const apart = reshape(op('MatMul', a, b), kIn, height, 1, width);
    return reshape(op('Mul', apart, identity(graph, [kIn, 1, kIn, 1])), s.in, s.out);
  }
  return reshape(op('MatMul', a, rowsOfBlocks(graph, s, b)), s.in, s.out);
}

/**
 * B [Kout, Kin·r, out/Kout] as [Kin, Kout·r, out]: for each input block n the B[n, j] of all j, each
 * in its own columns with zeros around it, so that `A[n] · it` is a row of blocks of ΔW as it lies in
 * memory.
 */
function rowsOfBlocks(graph: GraphBuilder, s: Structure, b: string): string {
  const [kIn, kOut] = s.grid;
  const r = s.blockRank;
  const width = s.out / kOut;
  const reshape = (value: string, ...shape: number[]) =>
    graph.op('Reshape', [value, graph.integers(shape)], {}, 'delta/reshape');
  const split = reshape(b, kOut, kIn, r, width);
  const perm = { perm: { ints: [1, 0, 2, 3] } };
  const transposed = graph.op('Transpose', [split], perm, 'delta/transpose');
  if (kOut === 1) return reshape(transposed, kIn, r, s.out);
  const apart = reshape(transposed, kIn, kOut, r, 1, width);
  const mask = identity(graph, [1, kOut, 1, kOut, 1]);
  return reshape(graph.op('Mul', [apart, mask], {}, 'delta/mul'), kIn, kOut * r, s.out);
}

/** Ones where the two long axes agree. */
function identity(graph: GraphBuilder, shape: readonly number[]): string {
  const k = Math.max(...shape);
  const values = Array.from({ length: k * k }, (_, i) => (i % (k + 1) === 0 ? 1 : 0));
  return graph.constant('float32', shape, values);
}
