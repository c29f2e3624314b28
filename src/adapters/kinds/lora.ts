/** LoRA in every structure: `W + ΔW`. */
import type { AdapterKind } from './kind.js';

export const lora: AdapterKind = {
  name: 'lora',
  readsWeight: false,
  train: {
    isSum: true,
    weight: (graph, w, delta) => graph.op('Add', [w, delta], {}, 'adapted/weight'),
  },
};
