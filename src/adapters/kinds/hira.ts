/**
 * HiRA (https://openreview.net/forum?id=TwJrTz9cRS): `W + W ∘ (s·A·B)`, element by element, so that the
 * change has the rank of W times that of A·B. PEFT's has no scale: s is 1 where nothing is said of alpha.
 */
import { hadamardWeight } from '../fold/hadamard-weight.js';
import { hadamardChange, hadamardProduct } from '../subgraph/hadamard.js';
import { isComputed } from '../targets/weight.js';
import type { AdapterKind } from './kind.js';

export const hira: AdapterKind = {
  name: 'hira',
  label: 'HiRA',
  tensors: {},
  beyondFactors: 'a product with the weight (HiRA)',
  readsWeight: {
    alone: 'HiRA multiplies the numbers of one weight with one adapter',
    needs: 'HiRA needs its numbers',
  },
  notUndoable: 'multiplies the numbers of its weight, which a negative scale does not undo',
  isSum: false,
  alpha: ({ rank, hybridRank, scaling }) =>
    scaling === 'rslora' ? Math.sqrt(rank + hybridRank) : rank + hybridRank,
  changesProduct: false,
  // A dequantized weight that two nodes read is not drawn into the layer's kernel any more.
  startsExact: (weight) => !isComputed(weight),
  change: hadamardProduct,
  weightChange: hadamardChange,
  fold: hadamardWeight,
  peft: { type: 'HIRA', hasScale: false, factors: ['hira_A', 'hira_B'], keys: {} },
  train: {
    weight: (graph, w, delta) => {
      const change = graph.op('Mul', [w, delta], {}, 'adapted/change');
      return graph.op('Add', [w, change], {}, 'adapted/weight');
    },
  },
};
