/**
 * DoRA (arXiv 2402.09353): `(W + ΔW) · diag(m / ‖W + ΔW‖)`, the norms those of its columns. They count as
 * constants in the backward pass (section 4.3), as in PEFT.
 */
import { OnnxLoraError } from '../../errors.js';
import { nodeLabel } from '../../onnx/model.js';
import { columnNorms, doraWeight } from '../fold/dora-weight.js';
import { layerWeight } from '../fold/layer-weight.js';
import { scaledColumns, scaledWeight } from '../subgraph/dora.js';
import type { LinearLayer } from '../targets/index.js';
import type { AdapterKind } from './kind.js';
import { lora } from './lora.js';

export const dora: AdapterKind = {
  name: 'dora',
  label: 'DoRA',
  tensors: { magnitude: ({ out }) => [out] },
  beyondFactors: 'a magnitude (DoRA)',
  readsWeight: {
    alone: 'DoRA scales what a layer computes by the norm of one weight and one adapter',
    needs: 'DoRA needs the norms of its columns',
  },
  notScalable: 'brings columns to a length and is not a sum that could be scaled',
  // V in training, of which the gain is taken.
  isSum: true,
  alpha: lora.alpha,
  changesProduct: true,
  // Norms that the runtime computes differ from those in the file by their rounding.
  startsExact: () => false,
  change: scaledColumns,
  weightChange: scaledWeight,
  fold: doraWeight,
  init: async (context, adapter) => {
    const { part, out } = adapter.record;
    const first = part?.first ?? 0;
    const all = await normsOf(context, adapter.layer.linear[0]!);
    const magnitude = all.slice(first, first + out);
    return { ...adapter, own: { ...adapter.own, magnitude: () => magnitude } };
  },
  peft: { ...lora.peft, keys: { magnitude: 'lora_magnitude_vector' } },
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
    // change = product · (gain - 1) + delta · gain, or a product of its own
    productReader: (nodes) => {
      const byOutput = new Map(nodes.map((node) => [node.outputs[0], node]));
      const change = byOutput.get(nodes.at(-1)!.inputs[1])!;
      return change.opType === 'Add' ? byOutput.get(change.inputs[0]) : undefined;
    },
    constants: (nodes) =>
      nodes.flatMap(({ opType, outputs }) => (opType === 'ReduceL2' ? outputs : [])),
  },
};

/** ‖W‖ of every column: what m starts as, with ΔW at 0. */
async function normsOf(
  context: Parameters<NonNullable<AdapterKind['init']>>[0],
  layer: LinearLayer,
): Promise<Float64Array> {
  const { constant, factor, name } = layer.weight;
  const { base, transposed } = layerWeight(context, layer, constant!);
  const norms = await columnNorms({ weight: base, transposed, factor });
  const column = norms.findIndex((norm) => !(norm > 0 && Number.isFinite(norm)));
  if (column < 0) return norms;
  const label = nodeLabel(layer.node);
  throw new OnnxLoraError(
    'unsupported',
    `${label}: column ${column} of its weight ${name} has the norm ${norms[column]}, and DoRA divides by it`,
    { node: label, hint: 'Leave the layer out, or take LoRA.' },
  );
}
