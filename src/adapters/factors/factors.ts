/** The numbers of an adapter that is in a model. */

import type { Tensor } from '../../onnx/model.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { Layer } from '../model/layers.js';
import { type AdapterShape, invalidManifest, type PatchedAdapter } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import { shapeOfA, shapeOfB, structureOf } from '../structure/structure.js';
import type { Factors } from './norms.js';

/**
 * Reads the factors of one adapter.
 * @throws OnnxLoraError `invalid-manifest` where tensors do not have the shapes that the manifest
 * calls for; those of reading tensors
 */
export function readFactors(
  patched: PatchedModel,
  reader: TensorReader,
  adapter: PatchedAdapter,
): Factors {
  const structure = structureOf(adapter);
  const { generalA, generalB, hybridRank } = adapter;
  const { label } = patched.model.source;
  if (structure.structure === 'diagonal' && structure.grid[0] !== structure.grid[1]) {
    throw invalidManifest(label, `the diagonal adapter ${adapter.name} has no square grid`);
  }
  const read = (name: string, shape: readonly number[]) => {
    const tensor = patched.initializer(name);
    checkShape(label, tensor, shape);
    return reader.float64(tensor);
  };
  const a = read(adapter.a, shapeOfA(structure));
  const b = read(adapter.b, shapeOfB(structure));
  if (hybridRank === 0) return { a, b };
  if (!generalA || !generalB) {
    throw invalidManifest(label, `adapter ${adapter.name} names no tensors of its global part`);
  }
  return {
    a,
    b,
    generalA: read(generalA, [structure.in, hybridRank]),
    generalB: read(generalB, [hybridRank, structure.out]),
  };
}

/**
 * Reads the magnitudes of an adapter, [out]; undefined where it has none.
 * @throws OnnxLoraError when they are read, as {@link readFactors}
 */
export function magnitudeOf(
  patched: PatchedModel,
  reader: TensorReader,
  { magnitude, out }: PatchedAdapter,
): (() => Float64Array) | undefined {
  if (magnitude === undefined) return undefined;
  return () => {
    const tensor = patched.initializer(magnitude);
    checkShape(patched.model.source.label, tensor, [out]);
    return reader.float64(tensor);
  };
}

function checkShape(label: string, tensor: Tensor, shape: readonly number[]): void {
  const [found, expected] = [tensor.dims.join(', '), shape.join(', ')];
  if (found === expected) return;
  throw invalidManifest(label, `${tensor.name} has the shape [${found}], expected [${expected}]`);
}

/** The factors of an adapter that have numbers. */
export type FactorName = 'a' | 'b' | 'generalA' | 'generalB';

/** An adapter to insert: its record without the names it will get in the graph, and its numbers. */
export interface NewAdapter {
  readonly layer: Layer;
  readonly record: AdapterShape;
  /** Row-major values of a factor; called when the file is written, one factor at a time. */
  values(factor: FactorName): Float64Array;
  /** DoRA's magnitudes, [out]: the norm that each column of W + ΔW is brought to. */
  readonly magnitude?: (() => Float64Array) | undefined;
}

/** All numbers of an adapter. */
export function factorsOf({ record, values }: Pick<NewAdapter, 'record' | 'values'>): Factors {
  const factors = { a: values('a'), b: values('b') };
  if (record.hybridRank === 0) return factors;
  return { ...factors, generalA: values('generalA'), generalB: values('generalB') };
}
