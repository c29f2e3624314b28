/** Options of commands that compute a loss on data. */
import type { Dataset } from '../data/dataset.js';
import { groupOf } from '../data/match.js';
import type { ValueInfo } from '../onnx/model.js';
import { type OptionsOf, option } from '../options/option.js';
import { text, toggle, whole } from '../options/schemas.js';
import {
  type LossName,
  type LossOptions,
  lossChoice,
  losses,
  ownLossOptions,
} from './losses/index.js';
import { PAIR, TRIPLE } from './losses/pairs.js';

export const modelOutputOption = {
  /** The output that the loss looks at. May be left out where the model has one. */
  modelOutput: option(text, {
    group: 'Loss',
    value: 'NAME',
    defaultText: 'the only one',
    summary: 'the output of the model that the loss reads',
    example: '--model-output logits',
  }),
};

/** The loss, and what is the same whether it is to become small or is only measured. */
export const lossSettings = { ...lossChoice, ...ownLossOptions, ...modelOutputOption };

/** Options of a loss that is computed on data. */
export interface LossSettings extends OptionsOf<typeof lossSettings> {}

export const guardOption = {
  /** false: do not compare the graph that computes the loss with the file itself on the first batch. */
  guard: option(toggle, {
    group: 'Check',
    default: true,
    summary: 'do not compare what computes the loss with the model file itself on the first batch',
    example: '--no-guard',
  }),
};

/** The option of the guard. */
export interface GuardSetting extends OptionsOf<typeof guardOption> {}

export const batchSizeOption = {
  /** Samples in a batch; default 8. */
  batchSize: option(whole(1), {
    group: 'Training',
    value: 'N',
    default: 8,
    summary: 'samples in a batch',
    example: '--batch-size 32',
  }),
};

/**
 * The options of the loss for some data.
 * @param inputs of the model
 */
export function lossOptions(
  { loss, ...options }: { readonly loss: LossName } & LossOptions,
  inputs: readonly ValueInfo[],
  { keys }: Dataset,
): LossOptions {
  const isTriple = inputs.some(
    ({ name, shape }) => groupOf(keys.get(name)?.shape ?? [], shape) === TRIPLE,
  );
  const own = Object.keys({ ...losses[loss].options, ...losses[loss].trainOptions });
  const given = Object.fromEntries(own.map((key) => [key, options[key as keyof LossOptions]]));
  return { ...given, dataKeys: [...keys.keys()], group: isTriple ? TRIPLE : PAIR };
}
