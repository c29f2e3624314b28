/** A parameter of a module with its new numbers, not yet bound to a tensor of the model. */
export interface ModuleParameter {
  /** Path of the module, as the file names it. */
  readonly module: string;
  /** `weight`, `bias`, or what the module calls it. */
  readonly parameter: string;
  /** As PyTorch has it: the weight of a linear layer is [out, in]. */
  readonly shape: readonly number[];
  /** Whether the numbers replace the old ones or are added to them. */
  readonly change: 'replace' | 'add';
  /** The weight of a linear layer may be [in, out] instead: the adapter is for a model that mixes both. */
  readonly mayBeTurned: boolean;
  /** Its numbers, row by row. */
  values(): Float64Array;
}
