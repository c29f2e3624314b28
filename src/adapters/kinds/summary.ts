/** Adapters in the results of inspect, patch and apply: the JSON of the public contract. */

import { findDataType, isFloating } from '../../onnx/dtype.js';
import { allTensors } from '../../onnx/external.js';
import { elementCount, type Model } from '../../onnx/model.js';
import {
  type Head,
  type ModelManifest,
  type PatchedAdapter,
  readManifests,
} from '../model/manifest.js';
import type { KindName } from '../structure/choices.js';
import type { LayerPart, StructureName } from '../structure/structure.js';
import { kindOf } from './index.js';
import { adapterParameters, ownTensors } from './tensors.js';

/** An adapter of one weight. */
export interface AdapterSummary {
  /** Name of the adapter, after the path of the module where it is known. */
  readonly name: string;
  /** The adapter set that it belongs to. */
  readonly set: string;
  /** in, out */
  readonly shape: readonly [number, number];
  /** The columns of the layer that it changes, where the layer computes several modules. */
  readonly part?: LayerPart;
  /** LoRA, DoRA or HiRA. */
  readonly kind: KindName;
  /** The blocks that the weight is divided into. */
  readonly structure: StructureName;
  /** Blocks along the inputs and along the outputs. */
  readonly grid: readonly [number, number];
  /** R: a plain LoRA of this rank has as many parameters. */
  readonly rank: number;
  /** Rank of one block. */
  readonly blockRank: number;
  /** Rank of the part that spans the whole weight, beside the blocks; 0 for none. */
  readonly hybridRank: number;
  /** α, which the scale is computed from. */
  readonly alpha: number;
  /** The factor of A · B. */
  readonly scale: number;
  /** Numbers that train. */
  readonly parameters: number;
  /** Names of the tensors. */
  readonly a: string;
  /** Name of B's initializer, the same way. */
  readonly b: string;
  /** DoRA's magnitudes, where it has some. */
  readonly magnitude?: string;
  /** Names of the nodes that it works beside. */
  readonly nodes: readonly string[];
  /** Frobenius norm of s·A·B. */
  readonly norm: number;
}

export function adapterSummary(set: string, adapter: PatchedAdapter, norm: number): AdapterSummary {
  const { name, structure, grid, rank, blockRank, hybridRank, alpha, scale, a, b } = adapter;
  const parameters = adapterParameters(adapter);
  const nodes = adapter.sites.map(({ node }) => node);
  return {
    name,
    set,
    shape: [adapter.in, adapter.out],
    ...(adapter.part ? { part: adapter.part } : {}),
    kind: kindOf(adapter).name,
    structure,
    grid,
    rank,
    blockRank,
    hybridRank,
    alpha,
    scale,
    parameters,
    a,
    b,
    ...Object.fromEntries(ownTensors(adapter).map(({ key }) => [key, adapter[key]!])),
    nodes,
    norm,
  };
}

/** The numbers in a head: its weight and its bias. */
export function headParameters({ features, classes }: Head): number {
  return classes * (features + 1);
}

/** The number of parameters that train. */
export interface ParameterShare {
  /** Numbers in the adapters. */
  readonly trainable: number;
  /** Weights of the model, adapters included. */
  readonly total: number;
  /** `trainable` in percent of all parameters. */
  readonly percent: number;
}

export function parameterShare(trainable: number, total: number): ParameterShare {
  return { trainable, total, percent: total === 0 ? 0 : (100 * trainable) / total };
}

/** Bookkeeping: indices, shapes, masks. */
const NOT_PARAMETERS = new Set(['int32', 'int64', 'uint64', 'uint32', 'bool', 'string', undefined]);

/**
 * The numbers in the model's weights: all tensors but scalars, integers that count or index, and those
 * that an adapter set replaced.
 */
export function parametersOf(model: Model): number {
  const replaced = readManifests(model).flatMap((set) => set.replaced ?? []);
  const originals = new Set(replaced.map((one) => (one.share ? one.tensor : one.original)));
  let count = 0;
  for (const { tensor, graph, node } of allTensors(model)) {
    if (graph === model.graph && originals.has(node ? node.outputs[0]! : tensor.name)) continue;
    const { dims, dataType } = tensor;
    const dtype = findDataType(dataType);
    if (NOT_PARAMETERS.has(dtype) || (dims.length === 0 && dtype && isFloating(dtype))) continue;
    count += elementCount(dims);
  }
  return count;
}

/** The adapters of a manifest and their share of the model's parameters. */
export function describeAdapters(
  model: Model,
  manifest: ModelManifest,
  norm: (adapterIndex: number) => number,
): { adapters: AdapterSummary[]; parameters: ParameterShare } {
  const adapters = manifest.adapters.map((a, i) => adapterSummary(manifest.set, a, norm(i)));
  const inHead = manifest.head ? headParameters(manifest.head) : 0;
  const trainable = adapters.reduce((sum, { parameters }) => sum + parameters, inHead);
  return { adapters, parameters: parameterShare(trainable, parametersOf(model) + trainable) };
}
