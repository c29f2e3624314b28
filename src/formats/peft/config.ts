/** `adapter_config.json` of Hugging Face PEFT: the fields that define what an adapter computes. */
import * as v from 'valibot';
import { OnnxLoraError } from '../../errors.js';
import { JsonProblem, parseStrictJson, show } from '../json.js';

/** A config lists modules at most; its deepest fields are lists in objects in objects. */
const MAX_DEPTH = 32;

/** Beyond this an adapter is larger than any weight it could join. */
const MAX_RANK = 65536;

const rank = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(MAX_RANK));
const rankOrNone = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MAX_RANK));
const finite = v.pipe(v.number(), v.finite());
const flag = v.nullish(v.boolean(), false);

/** Defaults are those of PEFT, which leaves out nothing but may be asked to read what others wrote. */
const fields = v.looseObject({
  peft_type: v.string(),
  fan_in_fan_out: flag,
  // LORA
  lora_alpha: v.nullish(finite, 8),
  use_rslora: flag,
  use_dora: flag,
  rank_pattern: v.nullish(v.record(v.string(), rank), {}),
  alpha_pattern: v.nullish(v.record(v.string(), finite), {}),
  // GRALORA
  alpha: v.nullish(finite, 64),
  gralora_alpha: v.nullish(finite),
  gralora_k: v.nullish(rank, 2),
  hybrid_r: v.nullish(rankOrNone, 0),
  // both
  r: v.nullish(rank),
});

type Fields = v.InferOutput<typeof fields>;

/** A setting by patterns of module paths; the first that matches counts. */
export type Patterns = readonly (readonly [pattern: string, value: number])[];

/** The types that two factors a layer can express. */
const types = ['LORA', 'GRALORA', 'HIRA'] as const;
export type PeftType = (typeof types)[number];

/** The config of an adapter that two factors a layer can express. */
export interface PeftConfig {
  readonly type: PeftType;
  readonly rank: number;
  /** Means nothing to HIRA, which has no scale. */
  readonly alpha: number;
  readonly scaling: 'standard' | 'rslora';
  readonly rankPatterns: Patterns;
  readonly alphaPatterns: Patterns;
  /** GRALORA's k, and the rank of its general part. */
  readonly blocks: number;
  readonly hybridRank: number;
  /** Every layer has a magnitude vector. */
  readonly isDora: boolean;
  /** Weights of adapted modules are [in, out] in PyTorch, as in GPT-2. */
  readonly fanInFanOut: boolean;
}

/**
 * Reads a config; unknown fields are ignored, as in PEFT.
 * @throws OnnxLoraError `invalid-adapter` for what is not a config, `unsupported` for adapters that are
 * more than two factors beside a layer, with the reason
 */
export function parsePeftConfig(text: string, path: string): PeftConfig {
  const config = checked(text, path);
  refuseUnsupported(config, path);
  switch (config.peft_type as PeftType) {
    case 'LORA':
      return loraConfig(config);
    case 'GRALORA':
      return graloraConfig(config, path);
    case 'HIRA':
      return hiraConfig(config);
  }
}

function checked(text: string, path: string): Fields {
  const json = parseJson(text, path);
  // An array is an object to the schema.
  const kind = Array.isArray(json) ? 'array' : typeof json;
  if (kind !== 'object' || json === null) throw invalid(path, `it is ${kind}, expected an object`);
  const result = v.safeParse(fields, json);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw invalid(path, `${v.getDotPath(issue)}: ${issue.message}`);
}

function parseJson(text: string, path: string): unknown {
  try {
    return parseStrictJson(text, MAX_DEPTH);
  } catch (error) {
    if (error instanceof JsonProblem) throw invalid(path, `it ${error.message}`, error);
    throw error;
  }
}

function invalid(path: string, problem: string, cause?: unknown): OnnxLoraError {
  return new OnnxLoraError('invalid-adapter', `${path} is not a config of PEFT: ${problem}`, {
    hint: 'PEFT writes it beside the weights: save_pretrained(FOLDER). Take both files from there.',
    cause,
  });
}

function loraConfig(config: Fields): PeftConfig {
  return {
    type: 'LORA',
    rank: config.r ?? 8,
    alpha: config.lora_alpha,
    scaling: config.use_rslora ? 'rslora' : 'standard',
    rankPatterns: Object.entries(config.rank_pattern),
    alphaPatterns: Object.entries(config.alpha_pattern),
    blocks: 1,
    hybridRank: 0,
    isDora: config.use_dora,
    fanInFanOut: config.fan_in_fan_out,
  };
}

/**
 * PEFT's GRALORA counts the rank of the general part beside `r`; in the config of GraLoRA's authors,
 * whose alpha is called `gralora_alpha`, it is a part of `r`.
 */
function graloraConfig(config: Fields, path: string): PeftConfig {
  const { gralora_alpha: authorsAlpha, hybrid_r: hybridRank, gralora_k: blocks } = config;
  const total = config.r ?? 32;
  const ofBlocks = authorsAlpha === undefined || authorsAlpha === null ? total : total - hybridRank;
  if (ofBlocks < 1 || ofBlocks % blocks !== 0) {
    throw invalid(path, `its rank ${ofBlocks} is not a multiple of gralora_k ${blocks}`);
  }
  return {
    type: 'GRALORA',
    rank: ofBlocks,
    alpha: authorsAlpha ?? config.alpha,
    scaling: 'standard',
    rankPatterns: [],
    alphaPatterns: [],
    blocks,
    hybridRank,
    isDora: false,
    fanInFanOut: config.fan_in_fan_out,
  };
}

/** PEFT's HIRA has no scale. */
function hiraConfig(config: Fields): PeftConfig {
  const plain = loraConfig({ ...config, use_dora: false, use_rslora: false });
  return { ...plain, type: 'HIRA', rank: config.r ?? 32, alphaPatterns: [] };
}

/** Kinds of LORA that compute something else, by the field that asks for them. */
const otherKinds: Readonly<Record<string, string>> = {
  use_qalora: 'QA-LoRA averages groups of inputs in front of its adapters',
  alora_invocation_tokens: 'aLoRA adapts only the tokens after its invocation tokens',
  layer_replication: 'it repeats layers of the model, which the ONNX model does not',
  target_parameters: 'it adapts parameters outside of layers, such as those of experts',
  trainable_token_indices: 'it trains single rows of the embeddings',
  use_bdlora: 'BD-LoRA keeps one of its factors in blocks',
  arrow_config: 'Arrow chooses among adapters token by token',
  kasa_config: 'KaSA cuts singular values off the base weights',
  monteclora_config: 'MonteCLoRA draws its adapters at random',
};

/** Starts that move a part of the base weights into the adapter. */
const CHANGES_BASE = /^(pissa|olora|corda|loftq|lora_ga)/i;

function refuseUnsupported(config: Fields, path: string): void {
  const { peft_type: type, init_lora_weights: init } = config;
  if (!types.some((known) => known === type)) {
    throw unsupported(path, `its peft_type is ${show(type)}, expected LORA, GRALORA or HIRA`);
  }
  if (type !== 'LORA') return;
  const other = Object.entries(otherKinds).find(([field]) => isSet(config[field]));
  if (other) throw unsupported(path, `${other[0]} is set: ${other[1]}`);
  if (typeof init !== 'string' || !CHANGES_BASE.test(init)) return;
  throw new OnnxLoraError(
    'unsupported',
    `${path}: init_lora_weights is ${show(init)}, which changed the base weights too, and the ONNX model has the old ones`,
    {
      hint: 'Save it with save_pretrained(FOLDER, path_initial_model_for_weight_conversion=…): PEFT makes a plain LoRA of it.',
    },
  );
}

function isSet(value: unknown): boolean {
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0;
  return value !== undefined && value !== null && value !== false;
}

function unsupported(path: string, problem: string): OnnxLoraError {
  return new OnnxLoraError('unsupported', `${path}: ${problem}`, {
    hint: 'Fold it in Python (model.merge_and_unload()) and export the model again.',
  });
}
