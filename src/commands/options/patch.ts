import { bindOptions } from '../../adapters/binding/bind-options.js';
import {
  headOption,
  partsOption,
  perNodeOption,
  shapeOptions,
} from '../../adapters/edit/adapter-options.js';
import { selectionOptions } from '../../adapters/targets/selection-options.js';
import { dataOption } from '../../data/data-options.js';
import { noteOption, outputOption, writeOptions } from '../../onnx/write-options.js';
import { seedOption } from '../../options/common.js';
import {
  type Condition,
  type OptionsOf,
  option,
  optional,
  restricted,
  varied,
} from '../../options/option.js';
import { path, text, toggle, union } from '../../options/schemas.js';
import { gradientOptions } from '../../training/gradient-options.js';
import { modelOutputOption } from '../../training/loss-settings.js';
import { checkOptions, verifyOption } from './check.js';
import { DEFAULT_NAME } from './name.js';
import { DEFAULT_SLOT_MODE, slotMode } from './slots.js';

/** Instead of new adapters. */
const sources = {
  /** Take the adapters of this file instead of new ones. */
  adapter: option(path, {
    group: 'Adapters',
    value: 'PATH',
    notWith: ['slots'],
    summary: 'insert the adapters of this file or PEFT folder instead of new ones',
    example: '--adapter adapter.safetensors',
  }),
  ...restricted(bindOptions, { needs: ['adapter'] }),
  /**
   * Slots instead of adapters: each layer takes its factors as graph inputs, run by run. `required`
   * (or true) for AdapterSession and the browser, `optional` for ONNX Runtime in Python, C# and C++.
   */
  slots: option(union([slotMode, toggle], 'required or optional'), {
    group: 'Adapters',
    value: 'KIND',
    implied: DEFAULT_SLOT_MODE,
    summary:
      'instead of adapters, graph inputs that take them run by run: required ones for Node and the browser, optional ones for ONNX Runtime in other languages',
    example: '--slots optional',
  }),
};

// Those of every patch are in other tables, or described here in another way.
const {
  data: _data,
  loss,
  seed,
  provider,
  signal,
  onProgress,
  onNote,
  modelOutput,
  ...ofData
} = gradientOptions;
const notNew = { notWith: ['slots', 'adapter'] };

/** The data and the loss of `init: 'gradient'` and of `structure: 'auto'`. */
const startData = {
  /** Samples for `init: 'gradient'` and `structure: 'auto'`; see `openDataset`. */
  data: varied(optional(dataOption.data), {
    only: { init: ['gradient'], structure: ['auto'] },
    requires: ['loss'],
    summary: 'samples to compute the gradient on, in the formats of train',
    example: '--init gradient --data samples.safetensors --loss cross-entropy',
  }),
  ...restricted({ loss: optional(loss), ...ofData }, { needs: ['data'] }),
};

/** Plain LoRA has one block, but for layers that a pattern gives another structure. */
const hasBlocks: Condition = {
  holds: ({ structure, structurePattern = [] }) =>
    structure !== 'global' || (structurePattern as readonly string[]).length > 0,
  otherwise: 'with `structure` global, which is one block',
  remedy: 'choose another structure',
};

/** Slots begin empty. */
const isCheckOfSlots: Condition = {
  holds: ({ slots, verify }) => !slots || verify === true,
  otherwise: 'with `slots` without `verify`',
  remedy: 'add `verify`',
};

/** Zeros are the same whatever the seed. */
const isRandom: Condition = {
  holds: ({ init, structure, head, verify }) =>
    init !== 'zero' || structure === 'auto' || head !== undefined || verify === true,
  otherwise: 'with `init` zero: nothing is drawn at random',
  remedy: 'choose other initial values',
};

export const patchOptions = {
  ...restricted(selectionOptions, { notWith: ['adapter'] }),
  ...restricted(shapeOptions, notNew),
  /** K, the most blocks along a dimension; default 4. */
  blocks: varied(shapeOptions.blocks, {
    ...notNew,
    except: { structure: ['auto'] },
    when: [hasBlocks],
  }),
  ...restricted(perNodeOption, { notWith: ['adapter'] }),
  ...restricted(partsOption, notNew),
  ...restricted(headOption, notNew),
  /**
   * The hidden states that the head reads, or the output that the loss of `init: 'gradient'` looks at.
   * May be left out where the model has one.
   */
  modelOutput: varied(modelOutputOption.modelOutput, {
    ...notNew,
    group: 'Adapters',
    needs: ['head', 'data'],
    summary: 'the output of the model that the head or the loss reads',
    example: '--head linear:3 --model-output last_hidden_state',
  }),
  /** Name of the adapter set. Default `default`; of the adapters of a file, as in it. */
  name: option(text, {
    group: 'Adapters',
    value: 'NAME',
    notWith: ['slots'],
    defaultText: `"${DEFAULT_NAME}", or as in the file of \`adapter\``,
    summary: 'name of the adapter set; a model can carry several',
    example: '--name german',
  }),
  ...sources,
  ...restricted(startData, notNew),
  ...restricted(verifyOption, { notWith: ['adapter'] }),
  ...restricted({ samples: checkOptions.samples }, { needs: ['verify'], notWith: ['adapter'] }),
  /** The execution provider. Default `cpu`; for the gradient on `data` `auto`. */
  provider: varied(optional(checkOptions.provider), {
    defaultText: 'cpu; for the gradient on `data` auto',
    needs: ['verify', 'data'],
    notWith: ['adapter'],
  }),
  ...outputOption('model.lora.onnx', 'model.lora.onnx, with `slots` model.slots.onnx'),
  ...writeOptions,
  ...noteOption,
  ...restricted(seedOption, { notWith: ['adapter'], when: [isCheckOfSlots, isRandom] }),
};

/** Options of `patch`. */
export interface PatchOptions extends OptionsOf<typeof patchOptions> {}
