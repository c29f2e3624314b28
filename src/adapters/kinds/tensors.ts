/** The tensors that an adapter has, whatever its structure and kind. */
import type { TensorReader } from '../../onnx/tensor.js';
import {
  checkShape,
  type FactorName,
  type NewAdapter,
  type OwnNumbers,
} from '../factors/factors.js';
import type { PatchedAdapter } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import {
  type OwnTensorName,
  type Structure,
  shapeOfA,
  shapeOfB,
  structureOf,
} from '../structure/structure.js';
import { kindOf } from './index.js';

/** A tensor of an adapter. */
export interface AdapterTensor<K> {
  /** Its key in manifests. */
  readonly key: K;
  /** The ending of its names in models and files. */
  readonly leaf: string;
  readonly shape: number[];
}

type Record = Structure & Partial<Pick<PatchedAdapter, 'kind' | OwnTensorName>>;

/** A and B, and those of a hybrid's global part. */
export function factorTensors(record: Structure): AdapterTensor<FactorName>[] {
  const structure = structureOf(record);
  const { hybridRank, out } = structure;
  const grid: AdapterTensor<FactorName>[] = [
    { key: 'a', leaf: 'A', shape: shapeOfA(structure) },
    { key: 'b', leaf: 'B', shape: shapeOfB(structure) },
  ];
  if (hybridRank === 0) return grid;
  return [
    ...grid,
    { key: 'generalA', leaf: 'A_general', shape: [structure.in, hybridRank] },
    { key: 'generalB', leaf: 'B_general', shape: [hybridRank, out] },
  ];
}

/** Those that its kind has beside them. */
export function ownTensors(record: Record): AdapterTensor<OwnTensorName>[] {
  const entries = Object.entries(kindOf(record).tensors);
  return entries.map(([name, shape]) => {
    const key = name as OwnTensorName;
    return { key, leaf: key, shape: shape(structureOf(record)) };
  });
}

/** All of them, in the order in which they are written. */
export function tensorsOf(record: Record): AdapterTensor<FactorName | OwnTensorName>[] {
  return [...factorTensors(record), ...ownTensors(record)];
}

/** The trainable numbers of an adapter. */
export function adapterParameters(record: Record): number {
  const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  return tensorsOf(record).reduce((sum, { shape }) => sum + count(shape), 0);
}

/** The numbers of a tensor of an adapter that is made or read. */
export function numbersOf(
  { values, own = {} }: Pick<NewAdapter, 'values' | 'own'>,
  key: FactorName | OwnTensorName,
): Float64Array {
  const read = own[key as OwnTensorName];
  return read ? read() : values(key as FactorName);
}

/**
 * Readers of the tensors that an adapter in a model has beside its factors.
 * @throws OnnxLoraError `invalid-manifest` when they are read, for one of another shape
 */
export function ownNumbers(
  patched: PatchedModel,
  reader: TensorReader,
  adapter: PatchedAdapter,
): OwnNumbers {
  const entries = ownTensors(adapter).map(({ key, shape }) => {
    const read = () => {
      const tensor = patched.initializer(adapter[key] ?? '');
      checkShape(patched.model.source.label, tensor, shape);
      return reader.float64(tensor);
    };
    return [key, read] as const;
  });
  return Object.fromEntries(entries);
}
