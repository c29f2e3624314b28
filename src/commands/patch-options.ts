/** Options of `patch` and what it returns. */

import type { BindOptions } from '../adapters/binding/bind-options.js';
import type { AdapterOptions } from '../adapters/edit/new-adapters.js';
import type { AdapterSummary, ParameterShare } from '../adapters/kinds/summary.js';
import type { SlotSummary } from '../adapters/slots/summary.js';
import type { patchStructures, SlotMode } from '../adapters/structure/choices.js';
import type { StartData } from '../fitting/init/start.js';
import type { WriteOptions } from '../onnx/write.js';
import type { Verification } from '../runtime/verification.js';
import type { GuardReport } from '../training/guard/guard.js';
import type { Skipped } from './chosen-layers.js';
import type { VerifyOptions } from './verify.js';

/** Options of `patch`. */
export interface PatchOptions
  extends Omit<AdapterOptions, 'structure'>,
    WriteOptions,
    Pick<VerifyOptions, 'samples' | 'provider'>,
    BindOptions,
    StartData {
  /** How weights are divided into blocks; `auto` measures it for each layer. Default `localized`. */
  readonly structure?: (typeof patchStructures)[number] | undefined;
  /** Default `<model>.lora.onnx` beside the model. */
  readonly output?: string | undefined;
  /** Name of the adapter set. Default `default`. */
  readonly name?: string | undefined;
  /**
   * Slots instead of adapters: each layer takes its factors as graph inputs, run by run. `required`
   * (or true) for AdapterSession and the browser, `optional` for ONNX Runtime in Python, C# and C++.
   */
  readonly slots?: SlotMode | boolean | undefined;
  /** Take the adapters of this file instead of new ones. */
  readonly adapter?: string | undefined;
  /** A trainable output layer: `linear:CLASSES[:mean|cls|none]`. */
  readonly head?: string | undefined;
  /**
   * The hidden states that the head reads, or the output that the loss of `init: 'gradient'` looks at.
   * May be left out where the model has one.
   */
  readonly modelOutput?: string | undefined;
  /** Run base and patched model, whose outputs must be equal. Default false. */
  readonly verify?: boolean | undefined;
}

/** What `patch` wrote. */
export interface PatchResult {
  /** Path of the patched model. */
  readonly output: string;
  /** The adapters, in the order of the model. */
  readonly adapters: readonly AdapterSummary[];
  /** The slots, where those were asked for. */
  readonly slots?: readonly SlotSummary[];
  /** Nodes that were chosen and take no adapter, and why. */
  readonly skipped: readonly Skipped[];
  /** How many parameters train. */
  readonly parameters: ParameterShare;
  /**
   * Where `init: 'pissa'` split weights: the largest |W - (W' + ΔW)| / |W| of one, which is its rounding.
   */
  readonly deviation?: number;
  /** With `adapter`, tensors of the model that got other numbers. */
  readonly replaced?: readonly string[];
  /** What the model has no place for, where that is allowed; with `adapter`. */
  readonly unmatched?: readonly string[];
  /** How the graph of the gradients compares with the file; where adapters start from gradients. */
  readonly guard?: GuardReport;
  /** The comparison with the base model, where one was made. */
  readonly verification?: Verification;
}
