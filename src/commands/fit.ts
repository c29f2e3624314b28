import { checkAdapterOutput, writeAdapters } from '../adapters/files/adapter-output.js';
import type { PeftSummary } from '../adapters/files/export-peft.js';
import { storedPieces } from '../adapters/files/stored-pieces.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import type { AdapterFormat } from '../adapters/structure/choices.js';
import {
  DEFAULT_RANK,
  parameterCount,
  type StructureName,
} from '../adapters/structure/structure.js';
import { OnnxLoraError } from '../errors.js';
import { type Grid, gridsFor, structureAt } from '../fitting/fit/candidates.js';
import type { ChangedTensor } from '../fitting/fit/changed.js';
import { type Changes, findChanges } from '../fitting/fit/changes.js';
import { contentsOfFit } from '../fitting/fit/contents.js';
import {
  type Comparison,
  type FittedLayer,
  fitLayers,
  type Goal,
  rankOfFit,
  sizeOf,
} from '../fitting/fit/fit-layers.js';
import { changeNorm } from '../fitting/fit/weight-delta.js';
import { checkWithoutAdapters } from '../fitting/fit/without-adapters.js';
import { isConvertible } from '../onnx/dtype.js';
import { isSameFile } from '../onnx/same-file.js';
import { dtypeOf } from '../onnx/tensor.js';
import type { ResolvedOf } from '../options/option.js';
import { resolveOptions } from '../options/resolve.js';
import { type FitOptions, fitOptions } from './options/fit.js';
import { inputFiles } from './output.js';

export type { FitOptions };

type ResolvedOptions = ResolvedOf<typeof fitOptions>;

/** A layer whose weight changed. */
export interface FitLayer {
  /** Path of the module. */
  readonly module: string;
  /** The first node that uses the weight. */
  readonly node: string;
  /** Name of the weight's tensor. */
  readonly weight: string;
  /** Input features. */
  readonly in: number;
  /** Output features. */
  readonly out: number;
  /** |ΔW| and |W|, Frobenius norms. */
  readonly deltaNorm: number;
  /** |W|. */
  readonly weightNorm: number;
  /** null where budget or error leave the layer without an adapter. */
  readonly adapter: {
    /** The structure: how the weight is divided into blocks. */
    readonly structure: StructureName;
    /** Blocks along the inputs and along the outputs. */
    readonly grid: readonly [number, number];
    /** R, the LoRA-equivalent rank. */
    readonly rank: number;
    /** Rank of one block. */
    readonly blockRank: number;
    /** Numbers in the adapter. */
    readonly parameters: number;
  } | null;
  /** |ΔW − fit| / |ΔW|. */
  readonly error: number;
  /** The error that each structure would leave with as many parameters. */
  readonly errors: readonly Comparison[];
}

/** A constant that changed and that no adapter expresses. */
export interface FitRest {
  /** Name of the tensor. */
  readonly tensor: string;
  /** Its type. */
  readonly dtype: string;
  /** Its shape. */
  readonly shape: readonly number[];
  /** |change|; null for what is not a floating-point number. */
  readonly deltaNorm: number | null;
  /** Why no adapter expresses it. */
  readonly reason: string;
  /** Whether the file holds it. */
  readonly included: boolean;
}

/** The result of `fit`. */
export interface FitResult {
  /** Path of the file or folder. */
  readonly output: string;
  /** Its format. */
  readonly format: AdapterFormat;
  /** Name of the adapter set. */
  readonly set: string;
  /** One for each layer whose weight changed. */
  readonly layers: readonly FitLayer[];
  /** Other tensors that changed. */
  readonly rest: readonly FitRest[];
  /** Constants that are the same in both models. */
  readonly unchanged: number;
  /** Of the adapters. */
  readonly parameters: number;
  /** √(Σ|ΔW − fit|² / Σ|ΔW|²) over the layers. */
  readonly error: number;
  /** The contents of the folder; only for the format `peft`. */
  readonly peft?: PeftSummary | undefined;
}

/**
 * Two models of one architecture to adapters that make the first into the second, as close as their
 * parameters allow: every changed weight is fitted by singular values, block by block.
 * @param base path of the model that the adapters are for
 * @param tuned path of the model that it is to become
 * @throws OnnxLoraError `model-mismatch` where the graphs or types differ, saying where; `unchanged`
 * where nothing does; `unsupported` for quantized weights; `invalid-model` for NaN; `invalid-argument`;
 * those of reading and writing
 * @example
 * ```ts
 * import { fit } from 'onnx-lora';
 *
 * const { layers, error } = await fit('model.onnx', 'model.tuned.onnx', {
 *   rank: 8,
 *   output: 'tuned.safetensors',
 * });
 * console.log(`${layers.length} layers, ${(100 * error).toFixed(1)} % of the changes left out`);
 * ```
 */
export async function fit(base: string, tuned: string, given: FitOptions): Promise<FitResult> {
  const options = resolveOptions(fitOptions, given, 'fit');
  const goal = goalOf(options);
  checkDistinct(base, tuned);
  return await withModel(base, (first) => {
    checkWithoutAdapters(first);
    return withModel(tuned, (second) => {
      checkWithoutAdapters(second);
      return fitModels(first, second, goal, options);
    });
  });
}

function goalOf({ rank = DEFAULT_RANK, budget, error }: FitOptions): Goal {
  if (budget !== undefined) return { kind: 'budget', parameters: budget };
  return error === undefined ? { kind: 'rank', rank } : { kind: 'error', error };
}

function checkDistinct(base: string, tuned: string): void {
  if (!isSameFile(base, tuned)) return;
  throw new OnnxLoraError('invalid-argument', `${base} and ${tuned} are the same file`, {
    hint: 'Name the model before training and the one after it.',
  });
}

async function fitModels(
  base: OpenedModel,
  tuned: OpenedModel,
  goal: Goal,
  options: ResolvedOptions,
): Promise<FitResult> {
  const inputs = [base, tuned].flatMap(({ model }) => inputFiles(model));
  checkAdapterOutput(options, inputs);
  const { targets, structure, seed, name: set } = options;
  const changes = await findChanges(base, tuned, { ...options, targets }, options);
  checkChanged(base, tuned, changes, options);
  const grids = gridsFor(structure, options.blocks);
  const layers = await fitLayers(base, tuned, changes.layers, { ...options, goal, grids, seed });
  checkFitted(layers, goal, grids);
  const rest = await restOf(base, tuned, changes.rest, options);
  const replaced = options.includeRest ? changes.rest : [];
  const contents = contentsOfFit(tuned, set, layers, replaced);
  const written = await writeAdapters(contents, () => storedPieces(contents), inputs, options);
  return {
    ...written,
    set,
    layers: layers.map(described),
    rest,
    unchanged: changes.unchanged,
    parameters: layers.reduce((sum, layer) => sum + layer.parameters, 0),
    error: totalError(layers),
  };
}

function checkChanged(
  base: OpenedModel,
  tuned: OpenedModel,
  { layers, rest }: Changes,
  { includeRest, allowEmpty }: ResolvedOptions,
): void {
  if (layers.length > 0 || allowEmpty || (includeRest && rest.length > 0)) return;
  const [first] = rest;
  if (!first) {
    throw new OnnxLoraError('unchanged', `${base.label} and ${tuned.label} have the same weights`, {
      hint: 'With `allowEmpty: true` this is not an error, and the file has no adapters.',
    });
  }
  throw new OnnxLoraError(
    'unchanged',
    `${base.label} and ${tuned.label} differ in no weight of a linear layer; ${rest.length} other tensors differ, the first is ${first.name}: ${first.reason}`,
    { hint: 'Take them into the file with `includeRest: true`.' },
  );
}

/** A budget may be too small for a single adapter. */
function checkFitted(layers: readonly FittedLayer[], goal: Goal, grids: readonly Grid[]): void {
  if (goal.kind === 'error' || layers.length === 0 || layers.some(({ fit }) => fit)) return;
  const units = layers.flatMap(({ changed }) =>
    grids.map((grid) => parameterCount(structureAt(grid, sizeOf(changed), 1))),
  );
  const { kind } = goal;
  const given = kind === 'rank' ? goal.rank : goal.parameters;
  throw new OnnxLoraError(
    'invalid-argument',
    `${kind} ${given} leaves no layer an adapter: the smallest has ${Math.min(...units)} parameters`,
    { hint: `Take a larger ${kind}, or fewer blocks.` },
  );
}

async function restOf(
  base: OpenedModel,
  tuned: OpenedModel,
  rest: readonly ChangedTensor[],
  { includeRest }: ResolvedOptions,
): Promise<FitRest[]> {
  const described: FitRest[] = [];
  for (const changed of rest) {
    const dtype = dtypeOf(changed.base, base.model);
    const { name, reason, obstacle } = changed;
    if (includeRest && obstacle !== undefined) {
      throw new OnnxLoraError(
        'unsupported',
        `${base.label}: ${name} differs and ${obstacle}, so that no adapter file replaces it`,
        { hint: 'Leave out `includeRest`; what the file does not hold is listed.' },
      );
    }
    const deltaNorm = isConvertible(dtype) ? await changeNorm(base, tuned, changed) : null;
    const shape = changed.base.dims;
    described.push({ tensor: name, dtype, shape, deltaNorm, reason, included: includeRest });
  }
  return described;
}

function described(layer: FittedLayer): FitLayer {
  const { changed, fit, parameters } = layer;
  const { weight } = changed.layer.linear[0]!;
  const adapter = fit && {
    structure: fit.structure.structure,
    grid: fit.structure.grid,
    rank: rankOfFit(fit),
    blockRank: fit.structure.blockRank,
    parameters,
  };
  return {
    module: changed.layer.module,
    node: changed.layer.nodeNames[0]!,
    weight: weight.name,
    in: weight.in,
    out: weight.out,
    deltaNorm: layer.deltaNorm,
    weightNorm: layer.weightNorm,
    adapter: adapter ?? null,
    error: layer.error,
    errors: layer.comparisons,
  };
}

function totalError(layers: readonly FittedLayer[]): number {
  const squares = layers.reduce((sum, { deltaNorm }) => sum + deltaNorm ** 2, 0);
  const left = layers.reduce((sum, { deltaNorm, error }) => sum + (deltaNorm * error) ** 2, 0);
  return squares === 0 ? 0 : Math.sqrt(left / squares);
}
