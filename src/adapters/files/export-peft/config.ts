/** PEFT's `adapter_config.json`. */

import { scaleOf } from '../../structure/structure.js';
import type { TrainedParameters } from './names.js';

export type PeftConfig = Readonly<Record<string, unknown>>;

/** Fields that both types have in common. */
export interface CommonConfig extends Omit<TrainedParameters, 'parameters'> {
  readonly baseModel: string | undefined;
  readonly isConv1d: boolean;
}

/** A module of LORA: its scale is alpha/rank, or alpha/√rank for rslora. */
export interface LoraModule {
  readonly module: string;
  readonly rank: number;
  readonly alpha: number;
}

/** LORA: the most frequent rank and alpha hold for all modules, patterns name the others. */
export function loraConfig(
  modules: readonly LoraModule[],
  { isRslora, isDora }: { readonly isRslora: boolean; readonly isDora: boolean },
  common: CommonConfig,
): PeftConfig {
  const rank = mostFrequent(modules.map((module) => module.rank));
  const alpha = mostFrequent(modules.map((module) => module.alpha));
  return {
    ...shared('LORA', modules, common),
    bias: common.bias === 'only' ? 'lora_only' : common.bias,
    r: rank,
    lora_alpha: alpha,
    use_rslora: isRslora,
    use_dora: isDora,
    rank_pattern: patterns(modules, (module) => module.rank, rank),
    alpha_pattern: patterns(modules, (module) => module.alpha, alpha),
    lora_dropout: 0,
    init_lora_weights: true,
  };
}

/** HIRA: one rank for all modules, and no scale. */
export function hiraConfig(
  rank: number,
  modules: readonly string[],
  common: CommonConfig,
): PeftConfig {
  const named = modules.map((module) => ({ module }));
  return {
    ...shared('HIRA', named, common),
    r: rank,
    rank_pattern: {},
    hira_dropout: 0,
    init_weights: true,
  };
}

/** GRALORA: one shape for all modules, a scale of alpha/(rank + hybridRank). */
export function graloraConfig(
  modules: readonly string[],
  shape: {
    readonly rank: number;
    readonly alpha: number;
    readonly blocks: number;
    readonly hybridRank: number;
  },
  common: CommonConfig,
): PeftConfig {
  return {
    ...shared(
      'GRALORA',
      modules.map((module) => ({ module })),
      common,
    ),
    bias: common.bias === 'only' ? 'gralora_only' : common.bias,
    r: shape.rank,
    alpha: shape.alpha,
    gralora_k: shape.blocks,
    hybrid_r: shape.hybridRank,
    gralora_dropout: 0,
    init_weights: true,
  };
}

function shared(
  type: string,
  modules: readonly { readonly module: string }[],
  { baseModel, isConv1d, modulesToSave }: CommonConfig,
): PeftConfig {
  return {
    peft_type: type,
    base_model_name_or_path: baseModel ?? null,
    task_type: null,
    inference_mode: true,
    // Whole paths: a suffix might name layers of the PyTorch model that were not adapted.
    target_modules: modules.map(({ module }) => module).sort(),
    fan_in_fan_out: isConv1d,
    modules_to_save: modulesToSave.length > 0 ? modulesToSave : null,
  };
}

/** Keys are regular expressions that may match the end of a path; `^` keeps them to the whole. */
function patterns(
  modules: readonly LoraModule[],
  value: (module: LoraModule) => number,
  usual: number,
): Record<string, number> {
  const others = modules.filter((module) => value(module) !== usual);
  return Object.fromEntries(
    others.map((module) => [`^${module.module.replace(SPECIAL, '\\$&')}`, value(module)]),
  );
}

const SPECIAL = /[\\^$.*+?()[\]{}|]/g;

function mostFrequent(values: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0];
}

/** The alpha that gives a scale: the adapter's own where it does, so that files come back as they were. */
export function alphaFor(
  { alpha, scale }: { readonly alpha: number; readonly scale: number },
  rank: number,
  isRslora: boolean,
): number {
  const scaling = isRslora ? 'rslora' : 'standard';
  if (scaleOf(alpha, rank, 0, scaling) === scale) return alpha;
  return scale * (isRslora ? Math.sqrt(rank) : rank);
}
