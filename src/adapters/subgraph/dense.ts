/** `s·A·B` as a matrix: nodes on constants, which a runtime folds when it loads. */
import { swapsOf } from '../../graph/constants.js';
import { isPlain, type Structure } from '../structure/structure.js';
import type { LinearLayer } from '../targets/index.js';
import { wideColumns } from './part.js';
import { stackedA, stackedB } from './stacked.js';
import type { AdaptedLayer, WeightChange } from './subgraph.js';
import type { SubgraphBuilder } from './subgraph-builder.js';
import type { AdapterTensors } from './tensors.js';

/** Whether the node reads its weight as [out, in]. */
export function isReadTransposed({ transposed, constant }: LinearLayer['weight']): boolean {
  const turns = constant ? swapsOf(constant) : 0;
  return transposed !== (turns % 2 === 1);
}

/** `s·A·B` as the node reads its weight: [in, out], or [out, in]. */
export function updateAsRead(
  b: SubgraphBuilder,
  weight: LinearLayer['weight'],
  structure: Structure,
  tensors: AdapterTensors,
): string {
  const update = denseUpdate(b, structure, tensors);
  return isReadTransposed(weight) ? b.transpose('update_turned', update, [1, 0]) : update;
}

/** `s·A·B` in its columns of a weight that the node reads as [in, out]. */
export const weightUpdate: WeightChange = (b, adapted) => {
  return amongColumns(b, denseUpdate(b, adapted.structure, adapted.tensors), adapted);
};

/** The change of an adapter's own columns as one of the whole weight, in the weight's type. */
export function amongColumns(
  b: SubgraphBuilder,
  change: string,
  { layer: { weight }, structure, tensors }: AdaptedLayer,
): string {
  const wide = wideColumns(b, 'change_wide', change, structure);
  return b.cast('change_cast', wide, tensors.dtype, weight.dtype);
}

/** `s·A·B`, [in, out] */
function denseUpdate(b: SubgraphBuilder, structure: Structure, tensors: AdapterTensors): string {
  const { a, b: second, generalA, generalB, scale, dtype } = tensors;
  const stack = !isPlain(structure);
  const product = b.node('update', 'MatMul', [
    stack ? stackedA(b, a, structure, dtype) : a,
    stack ? stackedB(b, second, structure, dtype) : second,
  ]);
  const sum =
    generalA && generalB
      ? b.node('update_sum', 'Add', [
          product,
          b.node('general_update', 'MatMul', [generalA, generalB]),
        ])
      : product;
  return scale === undefined ? sum : b.node('update_scaled', 'Mul', [sum, scale]);
}
