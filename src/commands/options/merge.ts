import { type BindOptions, bindOptions } from '../../adapters/binding/bind-options.js';
import { quantizedPolicies } from '../../adapters/fold/quantized-policy.js';
import { dataOption } from '../../data/data-options.js';
import {
  type OutputOptions,
  outputOption,
  type WriteOptions,
  writeOptions,
} from '../../onnx/write-options.js';
import { type OptionsOf, option, optional, restricted, varied } from '../../options/option.js';
import { choice, number, path, toggle } from '../../options/schemas.js';
import { lossDataOptions } from '../../training/loss-data-options.js';
import { batchSizeOption, modelOutputOption } from '../../training/loss-settings.js';
import { lossChoice, ownLossOptions } from '../../training/losses/index.js';
import { checkOptions, toleranceOption, type VerifyOptions } from './check.js';
import { nameOption } from './name.js';

// A fold has a scale of its own.
const { scale: _, ...lossOptions } = ownLossOptions;

export const foldTargets = ['q4', 'q8', 'fp16'] as const;
export type FoldTarget = (typeof foldTargets)[number];

export const mergeOptions = {
  /** Folds the adapters of this file instead of those in the model. */
  adapter: option(path, {
    group: 'Adapters',
    value: 'PATH',
    notWith: ['name'],
    summary: 'fold the adapters of this file or PEFT folder instead of those in the model',
    example: '--adapter adapter.safetensors',
  }),
  ...restricted(bindOptions, { needs: ['adapter'] }),
  ...nameOption,
  /** Multiplies every ΔW, and the difference of every tensor that was replaced; default 1. */
  scale: option(number, {
    group: 'Adapters',
    value: 'FACTOR',
    default: 1,
    summary: 'multiplies every change of a weight; -1 undoes a fold, to rounding',
    example: '--scale 0.5',
  }),
  /** Policy for folds into weights that are stored as integers; default `keep`, which refuses them. */
  quantized: option(choice(quantizedPolicies), {
    group: 'Adapters',
    value: 'HOW',
    default: 'keep',
    notWith: ['to'],
    summary:
      'weights stored as integers: refuse to fold into them (keep), make floats of them (dequantize), or round the sum to the same bits (requantize)',
    example: '--quantized requantize',
  }),
  /**
   * Numbers of the result: MatMul in blocks of 4 or 8 bits, or matrices stored as float16 and computed with in
   * float32. Adapted weights become floats first.
   */
  to: option(choice(foldTargets), {
    group: 'Output',
    value: 'FORM',
    except: { quantized: ['requantize'] },
    summary:
      'store the result in fewer bits: q4, q8: every MatMul becomes MatMulNBits, in blocks of 32, with the bytes of the quantizer of ONNX Runtime; fp16: matrices are stored as float16, with a Cast in front of what computes with them in float32',
    example: '--to q4',
  }),
  /** With `to` q4 and q8: no zero points; default true. */
  symmetric: option(toggle, {
    group: 'Output',
    default: true,
    only: { to: ['q4', 'q8'] },
    summary: 'store a zero point for each block, too',
    example: '--to q4 --no-symmetric',
  }),
  /** Run both models and compare; default true. */
  verify: option(toggle, {
    group: 'Check',
    default: true,
    summary: 'fold without comparing the models',
    example: 'onnx-lora merge model.lora.onnx --no-verify',
  }),
  ...restricted({ ...toleranceOption, ...checkOptions }, { needs: ['verify'] }),
  /** The execution provider; default `cpu`. */
  provider: varied(checkOptions.provider, { needs: ['verify', 'data'] }),
  /** Samples: the loss of the model before and after the fold is measured on them. */
  data: varied(optional(dataOption.data), { requires: ['loss'], notWith: ['adapter', 'name'] }),
  ...restricted(
    {
      ...{ ...lossDataOptions, loss: optional(lossChoice.loss), ...lossOptions },
      ...{ ...modelOutputOption, ...batchSizeOption },
    },
    { needs: ['data'] },
  ),
  ...outputOption('model.merged.onnx'),
  ...writeOptions,
};

/** Options of `merge`. */
export interface MergeOptions
  extends BindOptions,
    VerifyOptions,
    OutputOptions,
    WriteOptions,
    OptionsOf<typeof nameOption>,
    OptionsOf<typeof mergeOptions> {}
