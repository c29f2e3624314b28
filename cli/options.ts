/** Options that several commands share, so that they read the same everywhere. */
import {
  adapterFormats,
  inits,
  kindNames,
  patchStructures,
} from '../src/adapters/structure/choices.js';
import { scalings } from '../src/adapters/structure/structure.js';
import { providerNames } from '../src/runtime/provider-names.js';
import type { LegacySpecs as OptionSpecs } from './legacy.js';

/** Which layers. */
export const selectionOptions = {
  targets: {
    type: 'string',
    group: 'Layers',
    value: 'PATTERN',
    repeatable: true,
    default: 'all-linear',
    summary:
      'layers by module path, dotted suffix, node name, re:REGEX, glob:GLOB, all-linear, or all (1x1 convolutions too)',
    example: '--targets query --targets self.value',
  },
  exclude: {
    type: 'string',
    group: 'Layers',
    value: 'PATTERN',
    repeatable: true,
    summary: 'layers to leave out, by the same patterns',
    example: '--exclude classifier',
  },
  layers: {
    type: 'string',
    group: 'Layers',
    value: 'LIST',
    summary: 'keeps the modules whose first numeric path segment is listed',
    example: '--layers 0-5,8',
  },
} as const satisfies OptionSpecs;

/** What the adapters are like. */
export const adapterOptions = {
  rank: {
    type: 'integer',
    group: 'Adapters',
    value: 'R',
    default: 16,
    summary: 'rank of the LoRA that has as many parameters',
    example: '--rank 8',
  },
  blocks: {
    type: 'integer',
    group: 'Adapters',
    value: 'K',
    default: 4,
    summary: 'most blocks along a dimension; 1 gives plain LoRA',
    example: '--blocks 2',
  },
  structure: {
    type: 'string',
    group: 'Adapters',
    value: 'NAME',
    choices: patchStructures,
    default: 'localized',
    summary:
      'how the blocks lie in the weight; auto measures what suits each layer, on --data or on the weights alone',
    example: '--structure diagonal',
  },
  kind: {
    type: 'string',
    group: 'Adapters',
    value: 'NAME',
    choices: kindNames,
    default: 'lora',
    summary:
      'lora adds to the weight, dora also trains the norms of its columns, hira multiplies it element by element',
    example: '--kind dora',
  },
  alpha: {
    type: 'number',
    group: 'Adapters',
    value: 'ALPHA',
    default: '2R, for hira R',
    summary: 'strength of the adapters',
    example: '--alpha 32',
  },
  scaling: {
    type: 'string',
    group: 'Adapters',
    value: 'NAME',
    choices: scalings,
    default: 'standard',
    summary: 'alpha/R, or alpha/sqrt(R) for rslora',
    example: '--scaling rslora',
  },
  hybrid: {
    type: 'integer',
    group: 'Adapters',
    value: 'H',
    default: 0,
    summary: 'rank of a global part beside the blocks',
    example: '--hybrid 4',
  },
  init: {
    type: 'string',
    group: 'Adapters',
    value: 'NAME',
    choices: inits,
    default: 'kaiming',
    summary:
      'how A starts, with B at zero; pissa starts both in the weights, gradient A where --data pull',
    example: '--init pissa',
  },
  rankPattern: {
    type: 'string',
    group: 'Adapters',
    value: 'PATTERN=R',
    repeatable: true,
    summary: 'another rank for some layers; the first match wins',
    example: '--rank-pattern query=8 --rank-pattern value=32',
  },
  structurePattern: {
    type: 'string',
    group: 'Adapters',
    value: 'PATTERN=NAME[:K]',
    repeatable: true,
    summary: 'another structure for some layers; the first match wins',
    example: '--structure-pattern value=localized:8',
  },
  alphaPattern: {
    type: 'string',
    group: 'Adapters',
    value: 'PATTERN=ALPHA',
    repeatable: true,
    summary: 'another alpha for some layers; the first match wins',
    example: '--alpha-pattern query=16',
  },
  perNode: {
    type: 'boolean',
    group: 'Adapters',
    summary: 'an adapter for each node, even where nodes share a weight',
    example: '--targets dense --per-node',
  },
} as const satisfies OptionSpecs;

/** A trainable output layer. */
export const headOption = {
  head: {
    type: 'string',
    group: 'Adapters',
    value: 'linear:N[:POOL]',
    summary:
      'a trainable layer of N classes on the hidden states, pooled by mean (default), cls or none',
    example: '--head linear:3:mean',
  },
} as const satisfies OptionSpecs;

/** Which adapter set of the model. */
export const nameOption = {
  name: {
    type: 'string',
    group: 'Adapters',
    value: 'NAME',
    default: 'all',
    summary: 'one adapter set of the model, by name',
    example: '--name default',
  },
} as const satisfies OptionSpecs;

/** How adapters of a file find their layers. */
export const bindOptions = {
  peftPrefix: {
    type: 'string',
    group: 'Adapters',
    value: 'OLD=NEW',
    default: 'as they fit',
    summary: 'module paths of the adapters that begin with OLD begin with NEW in the model',
    example: '--peft-prefix bert=auto_model',
  },
  allowUnmatched: {
    type: 'boolean',
    group: 'Adapters',
    summary: 'leave out adapters of a file that the model has no layer for, and name them',
    example: '--adapter peft-folder --allow-unmatched',
  },
} as const satisfies OptionSpecs;

/** How the result is checked against the model that it came from. */
export const checkOptions = {
  samples: {
    type: 'path',
    group: 'Check',
    value: 'FILE',
    summary: 'inputs to compare with, a .safetensors file with one array for each model input',
    example: '--samples batch.safetensors',
  },
  provider: {
    type: 'string',
    group: 'Check',
    value: 'NAME',
    choices: ['auto', ...providerNames],
    default: 'cpu',
    summary: 'what the models run on; see onnx-lora providers',
    example: '--provider cuda',
  },
} as const satisfies OptionSpecs;

/** Where the result goes. */
export function outputOptions<const D extends string>(byDefault: D) {
  return {
    output: {
      type: 'path',
      group: 'Output',
      value: 'FILE',
      short: 'o',
      default: byDefault,
      summary: 'file to write; it appears whole or not at all',
      example: `-o ${byDefault}`,
    },
    ...forceOption,
  } as const satisfies OptionSpecs;
}

/** Of adapters that are written. */
export const outputFormatOption = {
  format: {
    type: 'string',
    group: 'Output',
    value: 'NAME',
    choices: adapterFormats,
    default: 'by the ending',
    summary: 'format of the file',
    example: '--format safetensors',
  },
} as const satisfies OptionSpecs;

export const forceOption = {
  force: {
    type: 'boolean',
    group: 'Output',
    summary: 'replace an existing output',
    example: '-o model.onnx --force',
  },
} as const satisfies OptionSpecs;
