/** Choices by name. They are here because the command line lists them without loading their code. */
import { structures } from './structure.js';

/** Formats of adapters in files: ours, PEFT folders, and `.onnx_adapter` of ONNX Runtime. */
export const adapterFormats = ['safetensors', 'peft', 'onnx_adapter'] as const;
/** A format of adapters in files. */
export type AdapterFormat = (typeof adapterFormats)[number];

/** The kinds of adapters: ΔW = s·A·B, with normalized columns (DoRA), or times W element by element (HiRA). */
export const kindNames = ['lora', 'dora', 'hira'] as const;
/** Kinds: ways to combine a weight and the product of the factors; see `adapters/kinds`. */
export type KindName = (typeof kindNames)[number];

/** The types of PEFT folders that can be written. */
export const peftTypes = ['lora', 'gralora', 'hira'] as const;
/** A type of PEFT folder, its `peft_type` in lower case. */
export type PeftType = (typeof peftTypes)[number];

/**
 * The ways to combine adapter sets: `linear` is the exact sum, `svd` its best fit of a rank; TIES and DARE
 * drop entries.
 */
export const combineMethods = ['linear', 'svd', 'ties', 'dare'] as const;
/** A way to combine adapter sets. */
export type CombineMethod = (typeof combineMethods)[number];

/** `auto` tries them all. */
export const fitStructures = ['auto', ...structures] as const;
/** Divisions of weights into blocks that `fit` can choose. */
export type FitStructure = (typeof fitStructures)[number];

/** `auto` measures which structure suits which layer: on data where there are some. */
export const patchStructures = [...structures, 'auto'] as const;

export const randomInits = ['kaiming', 'gaussian', 'zero'] as const;
export type RandomInit = (typeof randomInits)[number];

/** `pissa`: in the principal parts of the weights. `gradient`: in those of the gradient on data. */
export const inits = [...randomInits, 'pissa', 'gradient'] as const;
/** Initial values of adapters. B is zero with `kaiming` and `gaussian`, so that the model starts unchanged. */
export type InitName = (typeof inits)[number];

/**
 * The ways to see a layer that computes several modules side by side (q, k and v; gate and up): `split`, an
 * adapter for each of them; `whole`, one for all; `auto`, as the modules of the original model are.
 */
export const partChoices = ['auto', 'split', 'whole'] as const;
/** A way to see a layer that computes several modules side by side. */
export type PartChoice = (typeof partChoices)[number];

/** The two kinds of slots. */
export const slotModes = ['required', 'optional'] as const;
/**
 * `required`: inputs without a default, for runtimes that ignore inputs with one (Node, the browser).
 * `optional`: inputs that are initializers too, of rank 0, for those that do not (Python, C#, C++).
 */
export type SlotMode = (typeof slotModes)[number];

/** The random initial values beside another `init`: they are used where that has none. */
export function randomInit(init: InitName | undefined): RandomInit {
  return randomInits.find((name) => name === init) ?? 'kaiming';
}
