/** LoRA in every structure: `W + ΔW`. */
import { foldedWeight } from '../fold/folded-weight.js';
import { weightUpdate } from '../subgraph/dense.js';
import { product } from '../subgraph/subgraph.js';
import type { AdapterKind } from './kind.js';

export const lora: AdapterKind = {
  name: 'lora',
  label: 'LoRA',
  tensors: {},
  isSum: true,
  alpha: ({ rank }) => 2 * rank,
  changesProduct: false,
  startsExact: () => true,
  change: product,
  weightChange: weightUpdate,
  fold: foldedWeight,
  peft: {
    ...{ type: 'LORA', hasScale: true, keys: {} },
    factors: ['lora_A.weight', 'lora_B.weight'],
  },
  train: {
    weight: (graph, w, delta) => graph.op('Add', [w, delta], {}, 'adapted/weight'),
  },
};
