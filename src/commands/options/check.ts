/** Options of the comparison of a result with the model that it was made from. */
import { seedOption } from '../../options/common.js';
import { type OptionsOf, option, varied } from '../../options/option.js';
import { notNegative, path, toggle } from '../../options/schemas.js';
import { checkProviderOption } from '../../runtime/options.js';

export const checkOptions = {
  /** A .safetensors file with the model's inputs, instead of random ones. */
  samples: option(path, {
    group: 'Check',
    value: 'FILE',
    summary: 'inputs to compare with, a .safetensors file with one array for each model input',
    example: '--samples batch.safetensors',
  }),
  ...checkProviderOption,
  /** Seed of everything random; default 0. */
  seed: varied(seedOption.seed, { notWith: ['samples'] }),
};

/** Whether the model of the result is run beside the one that it was made of. */
export const verifyOption = {
  /** Run base and patched model, whose outputs must be equal. Default false. */
  verify: option(toggle, {
    group: 'Check',
    default: false,
    summary:
      'run both models and check that their outputs are equal: to the last bit, or to rounding for `init: pissa` and `kind: dora`',
    example: '--verify',
  }),
};

export const toleranceOption = {
  /** The largest difference that counts as rounding, relative to the outputs. */
  tolerance: option(notNegative, {
    group: 'Check',
    value: 'SHARE',
    defaultText: 'by the weights',
    summary: 'largest difference that counts as rounding, as a share of the largest output',
    example: '--tolerance 1e-4',
  }),
};

/** Options of comparing two models. */
export interface VerifyOptions
  extends OptionsOf<typeof checkProviderOption & typeof seedOption>,
    OptionsOf<typeof checkOptions & typeof toleranceOption> {}
