/** Adapters of Hugging Face PEFT as ours: LORA, GRALORA and HIRA. */
import { OnnxLoraError } from '../../errors.js';
import type { PeftConfig } from '../../formats/peft/config.js';
import {
  openPeftFolder,
  type PeftFolder,
  type PeftModule,
  type PeftTensor,
} from '../../formats/peft/folder.js';
import type { Part } from '../../formats/peft/keys.js';
import { patternValue } from '../../formats/peft/pattern.js';
import type { FactorName } from '../factors/factors.js';
import { product, transposed } from '../factors/plain.js';
import { kindEntry } from '../kinds/index.js';
import { scaleOf } from '../structure/structure.js';
import { type AdapterFile, readFinite, type StoredAdapter } from './adapter-file.js';
import type { ModuleParameter } from './module-parameter.js';

/**
 * Opens an adapter of PEFT; numbers are read when asked for.
 * @throws OnnxLoraError `invalid-adapter` for tensors that do not fit the config or each other,
 * `unsupported`, and those of reading files
 */
export function openPeftFile(path: string): AdapterFile {
  const folder = openPeftFolder(path);
  try {
    const adapters = folder.modules.flatMap((module) => adapterOf(folder, module) ?? []);
    const parameters = folder.modules.flatMap((module) => [
      ...trainedParameters(folder, module),
      ...embeddingChange(folder, module),
      ...biasChange(folder, module),
    ]);
    const { name: set, file } = folder;
    return {
      path: folder.path,
      set,
      adapters,
      parameters,
      extras: {},
      close: () => file.close(),
    };
  } catch (error) {
    folder.file.close();
    throw error;
  }
}

function adapterOf(folder: PeftFolder, module: PeftModule): StoredAdapter | undefined {
  const { config } = folder;
  const hasFactors = [...module.parts.keys()].some((part) => !part.includes('embedding'));
  if (!hasFactors) return undefined;
  if (config.type === 'GRALORA') return graloraAdapter(folder, module);
  return plainAdapter(folder, module, config.type === 'HIRA' ? 'hira' : 'lora');
}

/** LORA and HIRA: A [r, in], B [out, r], and for a 1x1 convolution axes of size 1 after them: `ΔW = s · B · A`. */
function plainAdapter(
  folder: PeftFolder,
  module: PeftModule,
  prefix: 'lora' | 'hira',
): StoredAdapter {
  const a = partOf(folder, module, `${prefix}_A`);
  const b = partOf(folder, module, `${prefix}_B`);
  const [ownRank = 0, inSize = 0] = a.shape;
  const [out = 0] = b.shape;
  // PEFT reads the pattern of ranks for HIRA and makes all modules with r: the file knows better.
  const strength = strengthOf(folder, module.module);
  const { rank, scale, alpha } =
    prefix === 'hira' ? { rank: ownRank, scale: 1, alpha: ownRank } : strength;
  checkKernel(folder, a);
  checkShape(folder, a, [rank, inSize, ...a.shape.slice(2)]);
  checkShape(folder, b, [out, rank, ...a.shape.slice(2)]);
  const plain = { structure: 'global', grid: [1, 1], blockRank: rank, hybridRank: 0 } as const;
  const read = (factor: FactorName) => {
    const values = readFinite(folder.file, folder.path, (factor === 'a' ? a : b).key);
    return factor === 'a' ? transposed(values, rank, inSize) : transposed(values, out, rank);
  };
  const magnitude = magnitudeOf(folder, module, out);
  return {
    record: {
      ...plain,
      ...kindEntry(magnitude ? 'dora' : prefix),
      ...{ name: module.module, weight: `${module.module}.weight`, in: inSize, out },
      ...{ rank, alpha, scaling: folder.config.scaling, scale },
    },
    nodes: [],
    values: read,
    ...(magnitude ? { own: { magnitude } } : {}),
  };
}

/** The parametrisation that ours is taken from: its tensors are stored as they are. */
function graloraAdapter(folder: PeftFolder, module: PeftModule): StoredAdapter {
  const { blocks: k, hybridRank } = folder.config;
  const { rank, scale, alpha } = strengthOf(folder, module.module);
  const tensors: Partial<Record<FactorName, PeftTensor>> = {
    a: partOf(folder, module, 'gralora_A'),
    b: partOf(folder, module, 'gralora_B'),
  };
  const [inSize, out] = [k * (tensors.a!.shape[1] ?? 0), k * (tensors.b!.shape[2] ?? 0)];
  checkShape(folder, tensors.a!, [k, inSize / k, rank]);
  checkShape(folder, tensors.b!, [k, rank, out / k]);
  if (hybridRank > 0) {
    tensors.generalA = partOf(folder, module, 'gralora_A_general');
    tensors.generalB = partOf(folder, module, 'gralora_B_general');
    checkShape(folder, tensors.generalA, [hybridRank, inSize]);
    checkShape(folder, tensors.generalB, [out, hybridRank]);
  }
  const read = (factor: FactorName) => {
    const values = readFinite(folder.file, folder.path, tensors[factor]!.key);
    if (factor === 'generalA') return transposed(values, hybridRank, inSize);
    return factor === 'generalB' ? transposed(values, out, hybridRank) : values;
  };
  const grid = [k, k] as const;
  return {
    record: {
      ...{ name: module.module, weight: `${module.module}.weight`, in: inSize, out },
      ...{ structure: 'localized', grid, rank, blockRank: rank / k, hybridRank },
      ...{ alpha, scaling: 'standard', scale },
    },
    nodes: [],
    values: read,
  };
}

/** Rank and scale of a module: patterns first, then what the config says for all. */
function strengthOf({ config, configPath }: PeftFolder, module: string) {
  const rank = patternValue(config.rankPatterns, module, configPath) ?? config.rank;
  const alpha = patternValue(config.alphaPatterns, module, configPath) ?? config.alpha;
  return { rank, alpha, scale: scaleOf(alpha, rank, config.hybridRank, config.scaling) };
}

function magnitudeOf(folder: PeftFolder, module: PeftModule, out: number) {
  const tensor = module.parts.get('lora_magnitude_vector');
  if (!tensor && folder.config.isDora) partOf(folder, module, 'lora_magnitude_vector');
  if (!tensor) return undefined;
  const count = tensor.shape.reduce((a, b) => a * b, 1);
  if (count !== out) checkShape(folder, tensor, [out]);
  return () => readFinite(folder.file, folder.path, tensor.key);
}

/** Parameters that were trained whole: `modules_to_save`, biases, resized embeddings. */
function trainedParameters(folder: PeftFolder, module: PeftModule): ModuleParameter[] {
  return [...module.parameters].map(([parameter, { key, shape }]) => ({
    ...{ module: module.module, parameter, shape, change: 'replace' as const },
    mayBeTurned: folder.config.fanInFanOut,
    values: () => readFinite(folder.file, folder.path, key),
  }));
}

/** An adapter beside a table: rows are looked up, not multiplied, so it becomes a change of the table. */
function embeddingChange(folder: PeftFolder, module: PeftModule): ModuleParameter[] {
  const { parts } = module;
  if (parts.has('hira_embedding_A')) {
    throw foldInPython(folder, module, 'is an embedding that HiRA multiplies element by element');
  }
  if (!parts.has('lora_embedding_A') && !parts.has('lora_embedding_B')) return [];
  const a = partOf(folder, module, 'lora_embedding_A');
  const b = partOf(folder, module, 'lora_embedding_B');
  const { rank, scale } = strengthOf(folder, module.module);
  const [, rows = 0] = a.shape;
  const [columns = 0] = b.shape;
  checkShape(folder, a, [rank, rows]);
  checkShape(folder, b, [columns, rank]);
  if (parts.has('lora_magnitude_vector')) {
    throw foldInPython(folder, module, 'is an embedding with a magnitude vector (DoRA)');
  }
  const values = () => {
    const left = transposed(readFinite(folder.file, folder.path, a.key), rank, rows);
    const right = transposed(readFinite(folder.file, folder.path, b.key), columns, rank);
    return product(
      left,
      right.map((value) => scale * value),
      rows,
      rank,
      columns,
    );
  };
  const change = { module: module.module, parameter: 'weight', change: 'add' } as const;
  return [{ ...change, shape: [rows, columns], mayBeTurned: false, values }];
}

function foldInPython(
  { path }: PeftFolder,
  { module }: PeftModule,
  problem: string,
): OnnxLoraError {
  return new OnnxLoraError('unsupported', `${path}: ${module} ${problem}`, {
    hint: 'Fold it in Python (model.merge_and_unload()) and export the model again.',
  });
}

/** `lora_bias`: a bias after B, which joins the layer's own. */
function biasChange(folder: PeftFolder, module: PeftModule): ModuleParameter[] {
  const tensor = module.parts.get('lora_B.bias');
  if (!tensor) return [];
  const { scale } = strengthOf(folder, module.module);
  const [out = 0] = partOf(folder, module, 'lora_B').shape;
  checkShape(folder, tensor, [out]);
  const values = () => {
    return readFinite(folder.file, folder.path, tensor.key).map((value) => scale * value);
  };
  const change = { module: module.module, parameter: 'bias', change: 'add' } as const;
  return [{ ...change, shape: [out], mayBeTurned: false, values }];
}

function partOf({ path, config }: PeftFolder, { module, parts }: PeftModule, part: Part) {
  const tensor = parts.get(part);
  if (tensor) return tensor;
  throw new OnnxLoraError(
    'invalid-adapter',
    `${path}: ${module} has no ${part}, which the ${config.type} that its config describes has; found ${[...parts.keys()].join(', ')}`,
    { hint: 'Take weights and config from the same folder.' },
  );
}

function checkShape({ path, config }: PeftFolder, tensor: PeftTensor, expected: number[]): void {
  const isEmpty = expected.includes(0);
  if (tensor.shape.join() === expected.join() && !isEmpty) return;
  throw new OnnxLoraError(
    'invalid-adapter',
    `${path}: tensor ${JSON.stringify(tensor.key)} has the shape [${tensor.shape.join(', ')}], expected [${isEmpty ? shapeText(config) : expected.join(', ')}]`,
    { hint: `${CONFIG_SAYS[config.type]} Take weights and config from the same folder.` },
  );
}

const CONFIG_SAYS = {
  LORA: 'Ranks are those of r and rank_pattern in the config.',
  GRALORA: 'Sizes are those of r, gralora_k and hybrid_r in the config.',
  HIRA: 'A is [rank, in] and B [out, rank].',
} as const;

function shapeText({ type }: PeftConfig): string {
  return type === 'GRALORA' ? 'gralora_k, size, rank' : 'rank, size';
}

function checkKernel({ path }: PeftFolder, { key, shape }: PeftTensor): void {
  const kernel = shape.slice(2);
  if (kernel.every((size) => size === 1)) return;
  throw new OnnxLoraError(
    'unsupported',
    `${path}: ${JSON.stringify(key)} is for a convolution with a kernel of ${kernel.join(' x ')}, expected 1x1`,
    { hint: 'Fold it in Python (model.merge_and_unload()) and export the model again.' },
  );
}
