import { rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { FoldNorms } from '../adapters/fold/folded-weight.js';
import type { Folded, FoldKind } from '../adapters/fold/folding.js';
import type { FloatName } from '../onnx/dtype.js';
import { nodeLabel } from '../onnx/model.js';
import { temporaryFolder } from '../onnx/temporary.js';
import { checkOutput } from '../onnx/write.js';
import { resolveOptions } from '../options/resolve.js';
import type { Verification } from '../runtime/verification.js';
import type { QuantizedWeight } from './converted.js';
import { foldInto } from './fold-adapters.js';
import { filesOfModel } from './inputs.js';
import { onModel, withTokenizer } from './model-folder.js';
import { type FoldTarget, mergeOptions } from './options/merge.js';
import { defaultOutput } from './output.js';
import { type MergeOptions, type Unmerged, withUnmerged } from './unmerged.js';

/** A weight that adapters were folded into. */
export interface MergedWeight {
  /** The first node that uses the weight. */
  readonly node: string;
  /** The nodes that read it. */
  readonly nodes: readonly string[];
  /** Path of the module. */
  readonly module: string;
  /** Name of the tensor. */
  readonly weight: string;
  /** The way it was folded. */
  readonly kind: FoldKind;
  /** Frobenius norms of ΔW and of the weight before. */
  readonly deltaNorm: number;
  /** |W| before, the Frobenius norm. */
  readonly weightNorm: number;
  /**
   * |Q(W + ΔW) - W - ΔW| / |ΔW| of a sum that is rounded to integers again: 0 if all of ΔW survived, 1 if
   * as much was lost as was added.
   */
  readonly lost?: number;
  /**
   * If the scale is negative: the weight is at most this far (Frobenius) from what it was before the
   * fold that this one undoes.
   */
  readonly undoneWithin?: number;
}

/** The result of `merge`. */
export interface MergeResult {
  /** Path of the folded model. */
  readonly output: string;
  /** One for each weight. */
  readonly merged: readonly MergedWeight[];
  /** Tensors of the model that came with the adapters and took the places of its own. */
  readonly replaced: readonly string[];
  /** Names that the model has no place for, where that is allowed; with `adapter`. */
  readonly unmatched?: readonly string[];
  /** The comparison with the model before, unless that was left out. */
  readonly verification?: Verification;
  /** The loss on `data`. */
  readonly loss?: {
    /** With the adapters beside the weights. */
    readonly before: number;
    /** Of the output. */
    readonly after: number;
  };
  /** The rounding of `to`. */
  readonly quantized?: QuantizedResult;
}

/** The result's weights in fewer bits. */
export interface QuantizedResult {
  /** As asked for. */
  readonly to: 'q4' | 'q8' | 'fp16';
  /** Products that read integers now; with `fp16`, nodes that read numbers of float16. */
  readonly nodes: number;
  /** Their weights, unless the check was left out. */
  readonly weights?: readonly QuantizedWeight[];
  /** The comparison with the folded model in floats, unless that was left out. */
  readonly verification?: Verification;
}

/**
 * Folds adapters into the weights of the model at `path`: `W + s·A·B`, added up in float64 and
 * rounded once to the weight's type. The result has the base model's graph; only bytes of weights
 * differ, except where a weight had to be split off or dequantized (`kind`). Then runs the model
 * with its adapters and the merged one on the same inputs, unless told not to.
 * @throws OnnxLoraError `no-adapter`, `invalid-adapter`, `adapter-mismatch`, `unsupported`, and
 * those of reading and writing. A failed verification is in the result.
 * @example
 * ```ts
 * import { merge } from 'onnx-lora';
 *
 * const { output, verification } = await merge('model.lora.onnx');
 * if (!verification?.passed) throw new Error(`${output}: ${verification?.reason}`);
 * ```
 */
export async function merge(path: string, given: MergeOptions = {}): Promise<MergeResult> {
  const options = resolveOptions(mergeOptions, given, 'merge');
  return await onModel(path, options, 'merged', async (located, options) => {
    const result = await mergeFile(located.file, options);
    if (options.data === undefined) return result;
    const { lossOf } = await import('./loss-of.js');
    const measured = withTokenizer(given, located);
    const before = await lossOf(located.file, measured);
    return { ...result, loss: { before, after: await lossOf(result.output, measured) } };
  });
}

async function mergeFile(path: string, options: MergeOptions): Promise<MergeResult> {
  const { to, ...rest } = options;
  return await (to ? mergeTo(path, to, rest) : mergeAsIs(path, rest));
}

/** Folds into floats beside the output, which the result is made of. */
async function mergeTo(path: string, to: FoldTarget, options: MergeOptions): Promise<MergeResult> {
  const { output = defaultOutput(path, 'merged') } = options;
  checkOutput(output, filesOfModel(path), options.force ?? false);
  const { write, check } = await conversionTo(to, options.symmetric ?? true);
  const folder = temporaryFolder('onnx-lora-merge-');
  try {
    const floats = join(folder, basename(output));
    const folded = await mergeAsIs(path, { ...options, output: floats, quantized: 'dequantize' });
    const nodes = await write(floats, output, options);
    const result = { ...folded, output, quantized: { to, nodes } };
    if (options.verify === false) return result;
    const { weights, verification } = await check(floats, output, options);
    const lost = new Map(weights.map(({ node, error }) => [node, error]));
    const merged = folded.merged.map((one) => withLost(one, lost));
    return { ...result, merged, quantized: { to, nodes, weights, verification } };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Writes a model of floats in another form, and proves the result. */
async function conversionTo(to: FoldTarget, symmetric: boolean) {
  if (to === 'fp16') {
    const { checkHalf: check, writeInHalf: write } = await import('./convert-half.js');
    return { check, write };
  }
  const { checkBlocks, writeInBlocks } = await import('./convert-blocks.js');
  const format = { bits: to === 'q4' ? 4 : 8, blockSize: 32, symmetric } as const;
  return {
    check: (floats: string, output: string, options: MergeOptions) =>
      checkBlocks(floats, output, format, options),
    write: async (floats: string, output: string, options: MergeOptions) =>
      (await writeInBlocks(floats, output, format, options)).length,
  };
}

function withLost(one: MergedWeight, errors: ReadonlyMap<string, number>): MergedWeight {
  const error = one.nodes.map((node) => errors.get(node)).find((found) => found !== undefined);
  return error === undefined || one.deltaNorm === 0 ? one : { ...one, lost: error / one.deltaNorm };
}

async function mergeAsIs(path: string, options: MergeOptions): Promise<MergeResult> {
  return await withUnmerged(path, options, async (unmerged) => {
    const result = await fold(unmerged, path, options);
    if (options.verify === false) return result;
    const { verifyMerged } = await import('./references.js');
    const requantized = result.merged.some(({ kind }) => kind === 'requantized');
    const check = { ...options, requantized };
    const verification = await verifyMerged(unmerged, path, result.output, check);
    return { ...result, verification };
  });
}

/** The fold alone, which makes floats of quantized weights where nothing else is said. */
export async function foldAdapters(path: string, options: MergeOptions = {}): Promise<MergeResult> {
  return await withUnmerged(path, options, (unmerged) => fold(unmerged, path, options));
}

async function fold(
  unmerged: Unmerged,
  path: string,
  { output = defaultOutput(path, 'merged'), quantized = 'dequantize', ...options }: MergeOptions,
): Promise<MergeResult> {
  const { unmatched } = unmerged;
  const { folded, replaced } = await foldInto(unmerged, { ...options, output, quantized });
  const isUndoing = (options.scale ?? 1) < 0;
  const merged = folded.map((one) => describe(one, isUndoing));
  return { output, merged, replaced, ...(unmatched ? { unmatched } : {}) };
}

function describe({ sites, weight, kind, norms }: Folded, isUndoing: boolean): MergedWeight {
  const nodes = sites.map(({ layer }) => nodeLabel(layer.node));
  const { module, layer } = sites[0]!;
  const { storedDtype, dtype } = layer.weight;
  const type = kind === 'dequantized' ? dtype : (storedDtype as FloatName);
  return {
    node: nodes[0]!,
    nodes,
    module,
    weight,
    kind,
    deltaNorm: norms.delta,
    weightNorm: norms.weight,
    ...(norms.lost === undefined ? {} : { lost: norms.delta > 0 ? norms.lost / norms.delta : 0 }),
    ...(isUndoing && norms.lost === undefined ? { undoneWithin: undoneWithin(norms, type) } : {}),
  };
}

/** Half the distance from 1 to the next number: rounding moves a number by at most this share of it. */
const ROUNDOFF: Readonly<Record<FloatName, number>> = {
  bfloat16: 2 ** -8,
  float16: 2 ** -11,
  float32: 2 ** -24,
  float64: 2 ** -53,
};

/** Two roundings: of W + ΔW, the weight now, when it was folded, and of W, at most |W + ΔW| + |ΔW|. */
function undoneWithin({ weight, delta }: FoldNorms, dtype: FloatName): number {
  return ROUNDOFF[dtype] * (weight + (weight + delta));
}
