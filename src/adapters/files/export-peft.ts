/**
 * Adapters for Hugging Face PEFT: the contents of a folder that `PeftModel.from_pretrained` loads.
 *
 * PEFT says two of our structures as they are: global ones as LORA, localized ones with a square grid
 * as GRALORA, where one rank and one number of blocks hold for all modules. Everything else becomes
 * LORA too: its blocks lie below each other in factors that are zero elsewhere, which is the same ΔW
 * at a higher rank; or its singular values are cut off at a rank.
 */

import { OnnxLoraError } from '../../errors.js';
import { factorsOf } from '../factors/factors.js';
import { type PlainFactors, padded, plainFactors, plainRank } from '../factors/plain.js';
import { truncated } from '../factors/truncate.js';
import { kindOf } from '../kinds/index.js';
import type { AdapterKind } from '../kinds/kind.js';
import type { PeftType } from '../structure/choices.js';
import { isPlain, structureOf } from '../structure/structure.js';
import { pathInPyTorch } from '../targets/built-names.js';
import type { AdapterContents, OutgoingAdapter } from './adapter-contents.js';
import {
  alphaFor,
  graloraConfig,
  hiraConfig,
  loraConfig,
  type PeftConfig,
} from './export-peft/config.js';
import {
  peftModules,
  renamer,
  type TrainedParameters,
  trainedParameters,
} from './export-peft/names.js';
import {
  graloraTensors,
  loraTensors,
  type PeftTensor,
  parameterTensor,
} from './export-peft/tensors.js';
import type { PeftOptions } from './output-options.js';

export type { PeftOptions };

/** An adapter in a PEFT folder. */
export interface PeftModule {
  /** Path of the module, as the configuration names it. */
  readonly name: string;
  /** Its module path in PyTorch. */
  readonly module: string;
  /** Factor for factor; blocks stacked, which is the same ΔW; or cut off at a rank. */
  readonly form: 'same' | 'stacked' | 'truncated';
  /** Rank of its matrices in the folder. */
  readonly rank: number;
  /** |ΔW - what was written| / |ΔW| by the Frobenius norm. */
  readonly error: number;
}

/** The contents of a PEFT folder that was written. */
export interface PeftSummary {
  /** The `peft_type` of its configuration, in lower case. */
  readonly type: PeftType;
  /** Why GRALORA cannot say the adapters. */
  readonly reason?: string | undefined;
  /** One for each layer. */
  readonly modules: readonly PeftModule[];
}

/** Contents of a PEFT folder. */
export interface PeftContents {
  readonly summary: PeftSummary;
  readonly config: PeftConfig;
  readonly tensors: readonly PeftTensor[];
}

/**
 * The folder's contents for an adapter set. Numbers are read when they are written, but for those that
 * are cut off.
 * @throws OnnxLoraError `unsupported` for what PEFT cannot say, `invalid-argument` for options that do
 * not fit the adapters
 */
export async function peftContents(
  contents: AdapterContents,
  options: PeftOptions = {},
): Promise<PeftContents> {
  const { label, adapters, hasHead, isBuilt } = contents;
  if (hasHead) throw headless(label);
  if (adapters.length === 0) throw withoutAdapters(label);
  const asModel = renamer(options.peftPrefix);
  const renamed = isBuilt ? (path: string) => pathInPyTorch(asModel(path)) : asModel;
  const modules = peftModules(contents, renamed);
  const trained = trainedParameters(contents, new Set(modules), renamed);
  const common = {
    baseModel: options.baseModel,
    isConv1d: adapters.every(({ isConv1d }) => isConv1d),
    ...trained,
  };
  const reason = whyNotGralora(adapters);
  const kind = kindOfAll(adapters);
  if (!kind.peft.hasScale) checkHira(label, kind, trained, options);
  const chosen = kind.peft.type === 'HIRA' ? 'hira' : typeFor(label, reason, options);
  const { tensors, config, summary } =
    chosen === 'gralora'
      ? asGralora(adapters, modules, common)
      : await asPlain(kind, adapters, modules, common, options.peftRank);
  return {
    summary: { type: chosen, reason: chosen === 'hira' ? undefined : reason, modules: summary },
    config,
    tensors: [...tensors, ...trained.parameters.map(parameterTensor)],
  };
}

type Common = Parameters<typeof loraConfig>[2];

interface Written {
  readonly summary: readonly PeftModule[];
  readonly config: PeftConfig;
  readonly tensors: readonly PeftTensor[];
}

/** HIRA multiplies the weight: no other type says it, and it has no place for biases. */
function checkHira(
  label: string,
  { peft }: AdapterKind,
  { bias }: Pick<TrainedParameters, 'bias'>,
  { peftType, peftRank }: PeftOptions,
): void {
  if (peftType !== undefined && peftType !== 'hira') {
    const problem = `${label} is ${peft.type}, whose product with the weight ${peftType.toUpperCase()} cannot say`;
    throw new OnnxLoraError('unsupported', problem, { hint: 'Leave `peftType` out.' });
  }
  if (peftRank !== undefined) {
    const problem = `${label} is ${peft.type}: what is cut off A·B by its singular values is not the least that its product with the weight can lose`;
    throw new OnnxLoraError('unsupported', problem, { hint: 'Leave `peftRank` out.' });
  }
  if (bias === 'none') return;
  throw new OnnxLoraError(
    'unsupported',
    `${label} has trained biases, for which the config of ${peft.type} has no field`,
    { hint: 'Adapters with such tensors travel as .safetensors.' },
  );
}

function typeFor(label: string, reason: string | undefined, options: PeftOptions): PeftType {
  const { peftRank, peftType } = options;
  if (peftType === 'hira') {
    throw new OnnxLoraError('unsupported', `${label}: HIRA cannot say it: it is not HiRA`, {
      hint: 'Leave `peftType` out.',
    });
  }
  const type = options.peftType ?? (reason !== undefined || peftRank ? 'lora' : 'gralora');
  if (type === 'lora') return type;
  if (peftRank !== undefined) {
    throw new OnnxLoraError('invalid-argument', 'a rank to cut off at makes LORA, not GRALORA', {
      hint: "Leave out `peftRank`, or take `peftType: 'lora'`.",
    });
  }
  if (reason === undefined) return type;
  throw new OnnxLoraError('unsupported', `${label}: GRALORA cannot say it: ${reason}`, {
    hint: 'Leave out `peftType`: LORA can hold every structure.',
  });
}

/** GRALORA has one rank and one number of blocks for all modules, along both sides. */
function whyNotGralora(adapters: readonly OutgoingAdapter[]): string | undefined {
  const first = adapters[0]!.record;
  if (adapters.every(({ record }) => isPlain(structureOf(record)))) return 'there are no blocks';
  for (const { record, kernelAxes } of adapters) {
    const { name, structure, grid, blockRank, hybridRank } = record;
    const [kIn, kOut] = grid;
    if (structure !== 'localized') return `${name} is ${structure}`;
    const { beyondFactors } = kindOf(record);
    if (beyondFactors) return `${name} has ${beyondFactors}`;
    if (kernelAxes > 0) return `${name} is a convolution`;
    if (kIn !== kOut) return `the grid of ${name} is ${kIn} x ${kOut}`;
    const differs = [
      kIn !== first.grid[0] && `${kIn} and ${first.grid[0]} blocks`,
      blockRank !== first.blockRank && `block ranks ${blockRank} and ${first.blockRank}`,
      hybridRank !== first.hybridRank && `global ranks ${hybridRank} and ${first.hybridRank}`,
    ].find((difference) => difference !== false);
    if (differs) return `${name} and ${first.name} have ${differs}`;
  }
  return undefined;
}

function asGralora(
  adapters: readonly OutgoingAdapter[],
  modules: readonly string[],
  common: Common,
): Written {
  const { grid, blockRank, hybridRank, ...first } = adapters[0]!.record;
  const rank = grid[0] * blockRank;
  const alpha = alphaFor(first, rank + hybridRank, false);
  return {
    summary: adapters.map(({ record }, i) => ({
      name: record.name,
      module: modules[i]!,
      form: 'same',
      rank,
      error: 0,
    })),
    config: graloraConfig(modules, { rank, alpha, blocks: grid[0], hybridRank }, common),
    tensors: adapters.flatMap((adapter, i) =>
      graloraTensors(modules[i]!, adapter, adapter.record.scale / first.scale),
    ),
  };
}

/** LORA or HIRA: one pair of factors a module. */
async function asPlain(
  kind: AdapterKind,
  adapters: readonly OutgoingAdapter[],
  modules: readonly string[],
  common: Common,
  limit: number | undefined,
): Promise<Written> {
  const isRslora = adapters.every(({ record }) => record.scaling === 'rslora');
  const forms: LoraForm[] = [];
  for (const adapter of adapters) forms.push(await loraForm(adapter, limit));
  const isHira = kind.peft.type === 'HIRA';
  if (isHira) forms.splice(0, forms.length, ...ofOneRank(forms));
  const scales = adapters.map(({ record }, i) => ({
    module: modules[i]!,
    rank: forms[i]!.rank,
    alpha: alphaFor(record, forms[i]!.rank, isRslora),
  }));
  return {
    summary: adapters.map(({ record }, i) => {
      const { form, rank, error } = forms[i]!;
      return { name: record.name, module: modules[i]!, form, rank, error };
    }),
    config: isHira
      ? hiraConfig(forms[0]!.rank, modules, common)
      : loraConfig(scales, { isRslora, isDora: kind.name === 'dora' }, common),
    tensors: adapters.flatMap((adapter, i) =>
      loraTensors(modules[i]!, adapter, forms[i]!.rank, forms[i]!.factors),
    ),
  };
}

/** PEFT makes all modules of HIRA with one rank, whatever `rank_pattern` says. */
function ofOneRank(forms: readonly LoraForm[]): LoraForm[] {
  const rank = Math.max(...forms.map((form) => form.rank));
  return forms.map((form) => {
    if (form.rank === rank) return form;
    return { ...form, form: 'stacked', rank, factors: () => padded(form.factors(), rank) };
  });
}

interface LoraForm extends Pick<PeftModule, 'form' | 'rank' | 'error'> {
  factors(): PlainFactors;
}

async function loraForm(
  adapter: OutgoingAdapter,
  limit = Number.POSITIVE_INFINITY,
): Promise<LoraForm> {
  const structure = structureOf(adapter.record);
  const exact = () => plainFactors(structure, factorsOf(adapter));
  const rank = plainRank(structure);
  if (rank > limit) {
    const { factors, error } = await truncated(exact(), structure.in, structure.out, limit);
    return { form: 'truncated', rank: limit, error, factors: () => factors };
  }
  const isSame = isPlain(structure) && structure.hybridRank === 0;
  return { form: isSame ? 'same' : 'stacked', rank, error: 0, factors: exact };
}

/** PEFT has one kind for all modules of a folder. */
function kindOfAll(adapters: readonly OutgoingAdapter[]): AdapterKind {
  const [first] = adapters as [OutgoingAdapter];
  const kind = kindOf(first.record);
  const other = adapters.find(({ record }) => kindOf(record) !== kind);
  if (!other) return kind;
  throw new OnnxLoraError(
    'unsupported',
    `${first.record.name} is ${kind.label} and ${other.record.name} is ${kindOf(other.record).label}, and a PEFT folder holds adapters of one kind`,
    { hint: 'Such adapters travel as .safetensors.' },
  );
}

function headless(label: string): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${label} has a head of its own, for which the PyTorch model has no module`,
    { hint: 'Adapters with a head travel as .safetensors.' },
  );
}

/** PEFT loads no folder that targets nothing. */
function withoutAdapters(label: string): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${label} has an adapter set without adapters, of replaced tensors alone, which PEFT does not load`,
    { hint: 'Such sets travel as .safetensors.' },
  );
}
