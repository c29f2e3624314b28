/** The result of `patch`. */
import type { AdapterSummary, ParameterShare } from '../adapters/kinds/summary.js';
import type { SlotSummary } from '../adapters/slots/summary.js';
import type { Verification } from '../runtime/verification.js';
import type { GuardReport } from '../training/guard/guard.js';
import type { Skipped } from './chosen-layers.js';

/** Result of `patch`. */
export interface PatchResult {
  /** Path of the patched model. */
  readonly output: string;
  /** The adapters, in the order of the model. */
  readonly adapters: readonly AdapterSummary[];
  /** The slots, where those were asked for. */
  readonly slots?: readonly SlotSummary[];
  /** Nodes that were chosen and take no adapter, and why. */
  readonly skipped: readonly Skipped[];
  /** The parameters that train, and all. */
  readonly parameters: ParameterShare;
  /**
   * If `init: 'pissa'` split weights: the largest |W - (W' + ΔW)| / |W| of one, which is its rounding.
   */
  readonly deviation?: number;
  /** With `adapter`, tensors of the model that got other numbers. */
  readonly replaced?: readonly string[];
  /** Adapters that the model has no place for, where that is allowed; with `adapter`. */
  readonly unmatched?: readonly string[];
  /** The comparison of the graph of the gradients with the file; where adapters start from gradients. */
  readonly guard?: GuardReport;
  /** The comparison with the base model, where one was made. */
  readonly verification?: Verification;
}
