/** LoRA in every structure: `W + ΔW`. */
import { foldedWeight } from '../fold/folded-weight.js';
import { product } from '../subgraph/subgraph.js';
import type { AdapterKind } from './kind.js';

export const lora: AdapterKind = {
  name: 'lora',
  label: 'LoRA',
  tensors: {},
  changesProduct: false,
  startsExact: true,
  change: product,
  fold: foldedWeight,
  peft: { keys: {} },
  train: {
    isSum: true,
    weight: (graph, w, delta) => graph.op('Add', [w, delta], {}, 'adapted/weight'),
  },
};
