/** Options of the commands that read data: train and eval. */
import { providerNames } from '../src/runtime/provider-names.js';
import { lossNames } from '../src/training/losses/index.js';
import type { OptionSpecs } from './command.js';

/** What is computed, and on what. */
export const lossOptions = {
  loss: {
    type: 'string',
    group: 'Loss',
    value: 'NAME',
    required: true,
    choices: lossNames,
    summary: 'what is to become small',
    example: '--loss cross-entropy',
  },
  ignoreIndex: {
    type: 'integer',
    group: 'Loss',
    value: 'N',
    default: -100,
    summary: 'labels with this value do not count',
    example: '--ignore-index -1',
  },
  modelOutput: {
    type: 'string',
    group: 'Loss',
    value: 'NAME',
    summary: 'the output that the loss looks at, where the model has more than one',
    example: '--model-output logits',
  },
} as const satisfies OptionSpecs;

/** How the work is done. */
export const runtimeOptions = {
  provider: {
    type: 'string',
    group: 'General',
    value: 'NAME',
    choices: ['auto', ...providerNames],
    default: 'auto',
    summary: 'what runs the model; auto measures what is fastest here',
    example: '--provider cuda',
  },
  threads: {
    type: 'integer',
    group: 'General',
    value: 'N',
    default: 'all cores',
    summary: 'CPU threads',
    example: '--threads 2',
  },
} as const satisfies OptionSpecs;
