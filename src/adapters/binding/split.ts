/** An adapter of one module that an ONNX model computes in several layers, part by part of its output. */
import type { FactorName, NewAdapter, OwnNumbers } from '../factors/factors.js';
import { factorsOf } from '../factors/factors.js';
import { plainFactors, plainRank } from '../factors/plain.js';
import type { StoredAdapter } from '../files/adapter-file.js';
import { numbersOf, ownTensors } from '../kinds/tensors.js';
import type { Layer } from '../model/layers.js';
import { structureOf } from '../structure/structure.js';

/**
 * One adapter for each layer: the same A, and the columns of B that are the layer's. Blocks become plain
 * LoRA, because a layer may end within one.
 * @param layers from the first column of the module's output on
 * @returns the problem where they do not fit the adapter
 */
export function splitAdapter(
  layers: readonly Layer[],
  adapter: StoredAdapter,
): NewAdapter[] | string {
  const { record } = adapter;
  const weights = layers.map(({ linear }) => linear[0]!.weight);
  const widths = weights.map((weight) => weight.out);
  const total = widths.reduce((sum, width) => sum + width, 0);
  if (total !== record.out || weights.some((weight) => weight.in !== record.in)) {
    const sizes = weights.map((weight) => `${weight.in} x ${weight.out}`).join(', ');
    return `it is ${record.in} x ${record.out}, its layers are ${sizes}`;
  }
  let end = 0;
  return layers.map((layer, i) => {
    const start = end;
    end += widths[i]!;
    return partOf(layer, adapter, start, end);
  });
}

function partOf(layer: Layer, adapter: StoredAdapter, start: number, end: number): NewAdapter {
  const structure = structureOf(adapter.record);
  const rank = plainRank(structure);
  const { scale } = adapter.record;
  const columns = (values: Float64Array) => columnsOf(values, structure.out, start, end);
  const plain = () => plainFactors(structure, factorsOf(adapter));
  const record: NewAdapter['record'] = {
    ...adapter.record,
    ...{ name: layer.module, weight: layer.linear[0]!.weight.name, out: end - start },
    ...{ structure: 'global', grid: [1, 1], rank, blockRank: rank, hybridRank: 0 },
    ...{ alpha: scale * rank, scaling: 'standard' },
  };
  return {
    layer,
    record,
    values: (factor: FactorName) => (factor === 'a' ? plain().a : columns(plain().b)),
    own: ownOf(adapter, columns),
  };
}

/** The tensors of a kind beside the factors have a number for each column. */
function ownOf(
  adapter: StoredAdapter,
  columns: (values: Float64Array) => Float64Array,
): OwnNumbers {
  const entries = ownTensors(adapter.record).map(({ key }) => {
    return [key, () => columns(numbersOf(adapter, key))] as const;
  });
  return Object.fromEntries(entries);
}

/** Some columns of a matrix, row by row. */
function columnsOf(values: Float64Array, width: number, start: number, end: number): Float64Array {
  const result = new Float64Array((values.length / width) * (end - start));
  for (let row = 0; row * width < values.length; row++) {
    result.set(values.subarray(row * width + start, row * width + end), row * (end - start));
  }
  return result;
}
