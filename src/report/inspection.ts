/** The result of `inspect`: the JSON of the public contract. */

import type { AdapterSummary } from '../adapters/kinds/summary.js';
import type { Head } from '../adapters/model/manifest.js';
import type { SlotSummary } from '../adapters/slots/summary.js';
import type { SlotMode } from '../adapters/structure/choices.js';
import type { DataTypeName } from '../onnx/dtype.js';
import type { Dim } from '../onnx/model.js';

/** The findings of `inspect`. */
export interface InspectResult {
  /** The file. */
  readonly model: ModelFacts;
  /** The inputs of the model. */
  readonly inputs: readonly InspectedValue[];
  /** The outputs of the model. */
  readonly outputs: readonly InspectedValue[];
  /** One for each node that multiplies with a weight, in the model's order. */
  readonly targets: readonly InspectedTarget[];
  /** Counts over `targets`. */
  readonly summary: InspectSummary;
  /** The adapter sets, in the order they were added. */
  readonly sets: readonly InspectedSet[];
  /** The slots of a model that takes its adapters when it runs. */
  readonly slots: InspectedSlots | null;
  /** Modules beside which the exporter has put adapters of its own, where there are any. */
  readonly exportedAdapters?: readonly string[];
}

/** Facts about the file. */
export interface ModelFacts {
  /** Path of the file. */
  readonly path: string;
  /** The `ir_version` of the file. */
  readonly irVersion: number;
  /** The operators that it uses. */
  readonly opsets: readonly {
    /** `''` for the standard operators. */
    readonly domain: string;
    /** Version of the set. */
    readonly version: number;
  }[];
  /** The `producer_name` of the file. */
  readonly producer: string;
  /** Size of the model file, without external data. */
  readonly bytes: number;
  /** The files that hold weights beside the model. */
  readonly externalData: readonly {
    /** Path of the file, from the folder of the model. */
    readonly location: string;
    /** Size of the file; null where it is missing or may not be read. */
    readonly bytes: number | null;
  }[];
  /** Numbers in all initializers. */
  readonly parameters: number;
}

/** An input or output of the model. */
export interface InspectedValue {
  /** Name of the value. */
  readonly name: string;
  /** `unknown` for values that are not tensors. */
  readonly type: DataTypeName | 'unknown';
  /** Sizes and symbols; null where the rank is not known. */
  readonly shape: readonly Dim[] | null;
}

/** A weight of the model. */
export interface InspectedWeight {
  /** The stored tensor. */
  readonly name: string;
  /** in, out: whatever the layout in the file. */
  readonly shape: readonly [number, number];
  /** Type of the stored numbers. */
  readonly dtype: DataTypeName;
  /** Bytes of the stored numbers. */
  readonly bytes: number;
  /** Its origin and the nodes between: `initializer via Transpose`. */
  readonly source: string;
}

/** A node that multiplies with a weight. */
export interface InspectedTarget {
  /** Name of the node. */
  readonly node: string;
  /** Type of the operator. */
  readonly op: string;
  /** Path of the module. */
  readonly module: string;
  /** The weight; null where it is not a constant. */
  readonly weight: InspectedWeight | null;
  /** Whether it can take an adapter. */
  readonly eligible: boolean;
  /** Why it can take an adapter, or why not. */
  readonly reason: string;
  /** The adapter of the node; the first one, where there are several. */
  readonly adapter: AdapterSummary | null;
  /** All adapters of the node, where it carries more than one set. */
  readonly adapters: readonly AdapterSummary[];
  /** Name of the slot beside it. */
  readonly slot: string | null;
}

/** The slots of a model. */
export interface InspectedSlots {
  /** Whether the inputs of the slots may be left out. */
  readonly mode: SlotMode;
  /** The slots, in the order of the model. */
  readonly slots: readonly SlotSummary[];
  /** The program that added them, with its version. */
  readonly createdBy: string;
}

/** Counts over the nodes that multiply with a weight. */
export interface InspectSummary {
  /** Nodes that multiply with a weight. */
  readonly targets: number;
  /** Those that can take an adapter. */
  readonly eligible: number;
  /** Those that have one. */
  readonly adapted: number;
  /** Numbers in the adapters. */
  readonly adapterParameters: number;
  /** Share of the adapters in all parameters. */
  readonly percent: number;
}

/** An adapter set of the model. */
export interface InspectedSet {
  /** Name of the set. */
  readonly name: string;
  /** Number of adapters. */
  readonly adapters: number;
  /** Numbers in its adapters. */
  readonly parameters: number;
  /** The classification head that came with the set. */
  readonly head: InspectedHead | null;
  /** Tensors of the model that have other numbers with it: trained biases and the like. */
  readonly replaced: readonly string[];
  /** The program that added it, with its version. */
  readonly createdBy: string;
}

/** A classification head. */
export interface InspectedHead extends Pick<Head, 'classes' | 'pooling' | 'input' | 'output'> {
  /** Numbers in its weight and bias. */
  readonly parameters: number;
}

/** |ΔW[n, j]| of adapters, where the grid is not too fine to draw. */
export type BlockNorms = ReadonlyMap<AdapterSummary, readonly Float64Array[]>;
