/** The manifest in an emitted step graph, for those that write it and those that run it. */

import type { AdapterRecord } from '../adapters/model/manifest.js';
import type { ValueSpec } from '../graph/builder.js';
import type { OptimizerName } from './optimizers/index.js';
import type { Parameter } from './parameters.js';

/** The metadata key of the manifest. */
export const STEP_MANIFEST_KEY = 'onnx_lora.step';

/** The initializer with the adapters as they are before the first step; nothing in the graph reads it. */
export const INITIAL_THETA = 'theta_initial';

/** Inputs to feed, state to carry from step to step, and the place of each trainable tensor. */
export interface StepManifest {
  /**
   * 2 where batches are accumulated by their weight; in version 1 each counts the same. 3 where inputs are
   * `renamed`.
   */
  readonly version: 1 | 2 | 3;
  readonly createdBy: string;
  /** Fed anew at each step. */
  readonly data: readonly ValueSpec[];
  /** float32 [size]: feed `initial`, and at the next step what came out as `output`. */
  readonly state: {
    readonly size: number;
    readonly vectors: readonly {
      readonly input: string;
      readonly output: string;
      readonly initial: 0 | { readonly initializer: string };
    }[];
  };
  /** Inputs without dimensions, with what to feed. */
  readonly scalars: Readonly<Record<string, string>>;
  /**
   * Inputs by their names in the graph, with what they are called in other graphs: where the model has a
   * value `lr`, the learning rate is `{ "lr_1": "lr" }`.
   */
  readonly renamed?: Readonly<Record<string, string>>;
  readonly optimizer: {
    readonly name: OptimizerName;
    readonly betas: readonly [number, number];
    /** Batches that make one update. */
    readonly accumulate: number;
    /** The learning rate of B over that of A, where it is not 1; the graph multiplies `lr` by it. */
    readonly lrRatio?: number;
  };
  /** Random numbers that dropout takes. */
  readonly noise?: { readonly input: string; readonly size: number; readonly values: string };
  readonly outputs: {
    readonly loss: string;
    readonly gradientNorm: string;
    /**
     * Number of elements that the loss is the mean of: the mean over batches is Σ loss·weight / Σ weight. Where
     * an update has weight 0, nothing in it counted: the state stays as it was. Not in older graphs.
     */
    readonly weight?: string;
  };
  /** Stretches of theta, by the names of the patched model's initializers. */
  readonly parameters: readonly Pick<Parameter, 'name' | 'shape' | 'offset' | 'length'>[];
  readonly adapters: readonly AdapterRecord[];
  /** The adapter file to make of the result: safetensors with this metadata and parameters by these names. */
  readonly adapterFile: {
    readonly metadata: Readonly<Record<string, string>>;
    readonly tensors: Readonly<Record<string, string>>;
  };
}
