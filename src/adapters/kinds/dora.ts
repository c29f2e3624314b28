/**
 * DoRA (arXiv 2402.09353): `(W + ΔW) · diag(m / ‖W + ΔW‖)`, the norms those of its columns. They count as
 * constants in the backward pass (section 4.3), as in PEFT.
 */
import type { AdapterKind } from './kind.js';
import { lora } from './lora.js';

export const dora: AdapterKind = {
  name: 'dora',
  readsWeight: true,
  train: {
    ...lora.train,
    gain: (graph, { magnitude }, { weight, axis }) => {
      const keep = { keepdims: { int: 0 } };
      const constant =
        graph.opset < 18
          ? graph.op('ReduceL2', [weight], { ...keep, axes: { ints: [axis] } }, 'adapted/norms')
          : graph.op('ReduceL2', [weight, graph.integers([axis])], keep, 'adapted/norms');
      return { gain: graph.op('Div', [magnitude!, constant], {}, 'adapted/gain'), constant };
    },
    // change = product · (gain - 1) + delta · gain
    productReader: (nodes) => {
      const byOutput = new Map(nodes.map((node) => [node.outputs[0], node]));
      const change = byOutput.get(nodes.at(-1)!.inputs[1])!;
      return byOutput.get(change.inputs[0])!;
    },
    constants: (nodes) =>
      nodes.flatMap(({ opType, outputs }) => (opType === 'ReduceL2' ? outputs : [])),
  },
};
