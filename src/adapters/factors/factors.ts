/** The numbers of an adapter that is in a model. */

import type { Tensor } from '../../onnx/model.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { Layer } from '../model/layers.js';
import { type AdapterShape, invalidManifest, type PatchedAdapter } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import { type OwnTensorName, shapeOfA, shapeOfB, structureOf } from '../structure/structure.js';
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

/** @throws OnnxLoraError `invalid-manifest` for a tensor of another shape than the manifest calls for */
export function checkShape(label: string, tensor: Tensor, shape: readonly number[]): void {
  const [found, expected] = [tensor.dims.join(', '), shape.join(', ')];
  if (found === expected) return;
  throw invalidManifest(label, `${tensor.name} has the shape [${found}], expected [${expected}]`);
}

/** The factors of an adapter that have numbers. */
export type FactorName = 'a' | 'b' | 'generalA' | 'generalB';

/** An adapter to insert: its record without the names it will get in the graph, and its numbers. */
export interface NewAdapter {
  /** The layer that it is for. */
  readonly layer: Layer;
  /** Its name, structure, rank and scale. */
  readonly record: AdapterShape;
  /** Row-major values of a factor; called when the file is written, one factor at a time. */
  values(factor: FactorName): Float64Array;
  /** Those of the tensors that its kind has beside the factors. */
  readonly own?: OwnNumbers | undefined;
}

/** Readers of the tensors that a kind of adapter has beside the factors. */
export type OwnNumbers = Readonly<Partial<Record<OwnTensorName, () => Float64Array>>>;

/** All numbers of an adapter. */
export function factorsOf({ record, values }: Pick<NewAdapter, 'record' | 'values'>): Factors {
  const factors = { a: values('a'), b: values('b') };
  if (record.hybridRank === 0) return factors;
  return { ...factors, generalA: values('generalA'), generalB: values('generalB') };
}
