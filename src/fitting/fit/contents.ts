/** The result of a fit, as an adapter set to be written to a file. */

import { factorDtype } from '../../adapters/edit/insert.js';
import type {
  AdapterContents,
  OutgoingAdapter,
  TrainedTensor,
} from '../../adapters/files/adapter-contents.js';
import type { OpenedModel } from '../../adapters/model/opened.js';
import { uniqueName } from '../../adapters/targets/module-path.js';
import { dtypeOf } from '../../onnx/tensor.js';
import type { ChangedTensor } from './changed.js';
import { type FittedLayer, type LayerFit, rankOfFit } from './fit-layers.js';

/** The set; replaced tensors are copied from the tuned model's file when they are written. */
export function contentsOfFit(
  tuned: OpenedModel,
  set: string,
  layers: readonly FittedLayer[],
  replaced: readonly ChangedTensor[],
): AdapterContents {
  const names = new Map<string, number>();
  return {
    label: tuned.label,
    set,
    adapters: layers.flatMap((layer) => {
      const name = uniqueName(layer.changed.layer.module, names);
      return layer.fit ? adapterOf(layer, layer.fit, name) : [];
    }),
    trained: replaced.map((tensor) => replacement(tuned, tensor)),
    hasHead: false,
  };
}

function adapterOf({ changed }: FittedLayer, fit: LayerFit, name: string): OutgoingAdapter {
  const { linear, nodeNames } = changed.layer;
  const { weight, geometry, node } = linear[0]!;
  const rank = rankOfFit(fit);
  return {
    // alpha = R: the factors have the size of ΔW already.
    record: {
      ...{ ...fit.structure, name, weight: weight.name, rank },
      ...{ alpha: rank, scaling: 'standard', scale: 1 },
    },
    nodes: nodeNames,
    dtype: factorDtype(changed.layer),
    kernelAxes: geometry.kind === 'channels' ? geometry.spatial : 0,
    isConv1d: node.opType === 'Gemm' && !weight.transposed,
    values: (factor) => fit[factor]!,
  };
}

function replacement({ model, reader }: OpenedModel, changed: ChangedTensor): TrainedTensor {
  const { name, tuned } = changed;
  const data = reader.span(tuned) ?? reader.bytes(tuned);
  return { name, dtype: dtypeOf(tuned, model), dims: tuned.dims, data };
}
