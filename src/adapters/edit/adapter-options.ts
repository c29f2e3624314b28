/** Options of new adapters. */
import { seedOption } from '../../options/common.js';
import { type OptionsOf, option } from '../../options/option.js';
import { choice, list, number, text, toggle, whole } from '../../options/schemas.js';
import { inits, kindNames, partChoices, patchStructures } from '../structure/choices.js';
import { DEFAULT_BLOCKS, DEFAULT_RANK, scalings, structures } from '../structure/structure.js';
import { selectionOptions } from '../targets/selection-options.js';

/** Of every layer, where a slot is as well. */
export const perNodeOption = {
  /** An adapter for each node, even where nodes share a weight. */
  perNode: option(toggle, {
    group: 'Adapters',
    default: false,
    summary: 'an adapter for each node, even where nodes share a weight',
    example: '--targets dense --per-node',
  }),
};

/** Of layers that compute several modules. */
export const partsOption = {
  /**
   * `split`: an adapter for each of the modules that a layer computes side by side (q, k and v; gate and
   * up). `whole`: one for all of them. Default `auto`: as the modules of the original model are.
   */
  parts: option(choice(partChoices), {
    group: 'Adapters',
    value: 'auto|split|whole',
    default: 'auto',
    summary:
      'adapters of a layer that computes several modules side by side, as qkv_proj: split gives each its own, whole one for all, auto as in the model before a builder packed them',
    example: '--parts whole',
  }),
};

const DEFAULT_STRUCTURE = 'localized';

/** The adapters themselves. */
export const shapeOptions = {
  /** R, the rank of the LoRA with as many parameters; default 16. */
  rank: option(whole(1), {
    group: 'Adapters',
    value: 'R',
    default: DEFAULT_RANK,
    summary: 'rank of the plain LoRA with as many parameters',
    example: '--rank 8',
  }),
  /** K, the most blocks along a dimension; default 4. */
  blocks: option(whole(1), {
    group: 'Adapters',
    value: 'K',
    default: DEFAULT_BLOCKS,
    summary: 'most blocks along a dimension; 1 gives plain LoRA',
    example: '--blocks 2',
  }),
  /** The blocks of the weight that have adapters; default `localized`. */
  structure: option(choice(patchStructures), {
    group: 'Adapters',
    value: 'NAME',
    default: DEFAULT_STRUCTURE,
    summary:
      'how the weight is divided into blocks; auto measures what suits each layer, on `data` or on the weights alone',
    example: '--structure diagonal',
  }),
  /** The way to combine the weight and the product of the factors; default `lora`. */
  kind: option(choice(kindNames), {
    group: 'Adapters',
    value: 'NAME',
    default: 'lora',
    summary:
      'kind of adapter: plain LoRA; dora trains the norms of columns too; hira multiplies the weight',
    example: '--kind dora',
  }),
  /** Strength of the adapters; default 2R, for HiRA R, or what else makes the scale 1. */
  alpha: option(number, {
    group: 'Adapters',
    value: 'ALPHA',
    defaultText: '2R, for hira R',
    summary: 'strength of the adapters',
    example: '--alpha 32',
  }),
  /** The scale is alpha/R, or alpha/√R for `rslora`; default `standard`. */
  scaling: option(choice(scalings), {
    group: 'Adapters',
    value: 'NAME',
    default: 'standard',
    summary: 'scale of the adapters: alpha/R, or alpha/sqrt(R) for rslora',
    example: '--scaling rslora',
  }),
  /** Rank of a global part beside the grid (GraLoRA's `hybrid_r`); default 0. */
  hybrid: option(whole(0), {
    group: 'Adapters',
    value: 'H',
    default: 0,
    summary: 'rank of a global adapter added to the blocks',
    example: '--hybrid 4',
  }),
  /** The initial values; default `kaiming`. */
  init: option(choice(inits), {
    group: 'Adapters',
    value: 'NAME',
    default: 'kaiming',
    summary:
      'initial values: A at random with B zero; pissa takes both from the weights, gradient takes A from the gradient on `data`',
    example: '--init pissa',
  }),
  /** `PATTERN=R`, for layers that want another rank. The first that matches wins. */
  rankPattern: option(list(text, 0), {
    group: 'Adapters',
    value: 'PATTERN=R',
    summary: 'another rank for some layers; the first match wins',
    example: '--rank-pattern query=8 --rank-pattern value=32',
  }),
  /** `PATTERN=STRUCTURE[:K]`, for layers that want another. The first that matches wins. */
  structurePattern: option(list(text, 0), {
    group: 'Adapters',
    value: 'PATTERN=NAME[:K]',
    summary: 'another structure for some layers; the first match wins',
    example: '--structure-pattern value=localized:8',
  }),
  /** `PATTERN=ALPHA`, for layers that want another. The first that matches wins. */
  alphaPattern: option(list(text, 0), {
    group: 'Adapters',
    value: 'PATTERN=ALPHA',
    summary: 'another alpha for some layers; the first match wins',
    example: '--alpha-pattern query=16',
  }),
};

export const adapterOptions = {
  ...selectionOptions,
  ...shapeOptions,
  ...perNodeOption,
  ...seedOption,
};

/** Those of adapters whose structure is settled. */
export const plannedOptions = {
  ...adapterOptions,
  /** The blocks of the weight that have adapters; default `localized`. */
  structure: option(choice(structures), {
    ...shapeOptions.structure,
    default: DEFAULT_STRUCTURE,
  }),
};

/** Which layers get adapters, and of which kind, structure, rank and initial values. */
export interface AdapterOptions extends OptionsOf<typeof plannedOptions> {}

/** A trainable output layer. */
export const headOption = {
  /** A trainable output layer: `linear:CLASSES[:mean|cls|none]`. */
  head: option(text, {
    group: 'Adapters',
    value: 'linear:N[:POOL]',
    summary:
      'add a trainable output layer of N classes on the hidden states, pooled by mean (default), cls or none',
    example: '--head linear:3:mean',
  }),
};
