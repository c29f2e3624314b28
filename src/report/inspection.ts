/** The result of `inspect`: the JSON of the public contract. */

import type { AdapterSummary } from '../adapters/kinds/summary.js';
import type { Head } from '../adapters/model/manifest.js';
import type { SlotSummary } from '../adapters/slots/summary.js';
import type { SlotMode } from '../adapters/structure/choices.js';
import type { DataTypeName } from '../onnx/dtype.js';
import type { Dim } from '../onnx/model.js';

export interface InspectResult {
  readonly model: ModelFacts;
  readonly inputs: readonly InspectedValue[];
  readonly outputs: readonly InspectedValue[];
  /** One for each node that multiplies with a weight, in the model's order. */
  readonly targets: readonly InspectedTarget[];
  readonly summary: InspectSummary;
  readonly sets: readonly InspectedSet[];
  /** The slots of a model that takes its adapters when it runs. */
  readonly slots: InspectedSlots | null;
}

export interface ModelFacts {
  readonly path: string;
  readonly irVersion: number;
  readonly opsets: readonly { readonly domain: string; readonly version: number }[];
  readonly producer: string;
  /** Size of the model file, without external data. */
  readonly bytes: number;
  /** `bytes` is null for a file that is missing or may not be read. */
  readonly externalData: readonly { readonly location: string; readonly bytes: number | null }[];
  readonly parameters: number;
}

export interface InspectedValue {
  readonly name: string;
  /** `unknown` for values that are not tensors. */
  readonly type: DataTypeName | 'unknown';
  readonly shape: readonly Dim[] | null;
}

export interface InspectedWeight {
  /** The stored tensor. */
  readonly name: string;
  /** in, out: whatever the layout in the file. */
  readonly shape: readonly [number, number];
  readonly dtype: DataTypeName;
  readonly bytes: number;
  /** Its origin and the nodes between: `initializer via Transpose`. */
  readonly source: string;
}

export interface InspectedTarget {
  readonly node: string;
  readonly op: string;
  readonly module: string;
  readonly weight: InspectedWeight | null;
  readonly eligible: boolean;
  /** Why it can take an adapter, or why not. */
  readonly reason: string;
  readonly adapter: AdapterSummary | null;
  /** All adapters of the node, where it carries more than one set. */
  readonly adapters: readonly AdapterSummary[];
  /** Name of the slot beside it. */
  readonly slot: string | null;
}

export interface InspectedSlots {
  readonly mode: SlotMode;
  readonly slots: readonly SlotSummary[];
  readonly createdBy: string;
}

export interface InspectSummary {
  readonly targets: number;
  readonly eligible: number;
  readonly adapted: number;
  readonly adapterParameters: number;
  /** Share of the adapters in all parameters. */
  readonly percent: number;
}

export interface InspectedSet {
  readonly name: string;
  readonly adapters: number;
  /** Numbers in its adapters. */
  readonly parameters: number;
  readonly head: InspectedHead | null;
  /** Tensors of the model that have other numbers with it: trained biases and the like. */
  readonly replaced: readonly string[];
  readonly createdBy: string;
}

export interface InspectedHead extends Pick<Head, 'classes' | 'pooling' | 'input' | 'output'> {
  readonly parameters: number;
}

/** |ΔW[n, j]| of adapters, where the grid is not too fine to draw. */
export type BlockNorms = ReadonlyMap<AdapterSummary, readonly Float64Array[]>;
