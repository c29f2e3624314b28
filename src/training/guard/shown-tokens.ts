/** Inputs for a comparison where the file leaves some numbers to chance. */
import { roleOf } from '../../data/text/inputs.js';
import { allGraphs, type Model } from '../../onnx/model.js';
import type { Feeds } from '../../runtime/tensor-value.js';
import { tensorFromNumbers } from '../../runtime/tensor-value.js';

/**
 * The batch with all tokens shown, for a model with GroupQueryAttention: ONNX Runtime's kernel gives the
 * rows of padding what its memory held before. No other row reads them, so that nothing of the model stays
 * without comparison.
 */
export function withTokensShown(model: Model, feeds: Feeds): Feeds {
  const nodes = [...allGraphs(model.graph)].flatMap((graph) => graph.nodes);
  if (!nodes.some(({ opType }) => opType === 'GroupQueryAttention')) return feeds;
  return new Map(
    [...feeds].map(([name, value]) => {
      if (roleOf(name) !== 'mask') return [name, value] as const;
      const ones = new Float64Array(value.data.length).fill(1);
      return [name, tensorFromNumbers(value.dtype, value.dims, ones)] as const;
    }),
  );
}
