/** Weights that a fold rounded to integers, read back from its file and held against W + ΔW. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { WeightContext } from '../adapters/fold/dequantize.js';
import type { FoldRule } from '../adapters/fold/folded-weight.js';
import { tensorName } from '../adapters/fold/folding.js';
import { numbersOfLayer } from '../adapters/fold/layer-weight.js';
import { judgeRounding, numbersOf, type RoundedWell } from '../adapters/fold/requantize.js';
import { type StoredCodes, storedCodes } from '../adapters/fold/stored-codes.js';
import { withModel } from '../adapters/model/opened.js';
import { findLinearLayers, type LinearLayer } from '../adapters/targets/index.js';
import { ValueIndex } from '../graph/uses.js';
import { type DataTypeName, type FloatName, fromFloat64, toFloat64 } from '../onnx/dtype.js';
import type { Computed } from '../onnx/edit.js';
import { elementCount, type Model, type Tensor } from '../onnx/model.js';
import { temporaryFolder } from '../onnx/temporary.js';
import type { WorkOptions } from '../onnx/write.js';
import type { Verification } from '../runtime/verification.js';
import { foldInto } from './fold-adapters.js';
import type { Unmerged } from './unmerged.js';

/** One weight, and the quality of its rounding. */
export interface ReadBack extends RoundedWell {
  readonly weight: string;
}

/**
 * Writes the model with its adapters folded as a product of floats wherever `output` has integers: the floats
 * are those that the integers of the file stand for.
 * @param use gets the path of that model
 */
export async function withReadBack<T>(
  unmerged: Unmerged,
  output: string,
  { signal }: WorkOptions,
  use: (reference: string, weights: readonly ReadBack[]) => Promise<T>,
): Promise<T> {
  const folder = temporaryFolder('onnx-lora-check-');
  try {
    const reference = join(folder, 'reference.onnx');
    const weights: ReadBack[] = [];
    await withModel(output, async ({ model, reader }) => {
      const context = { model, reader, values: new ValueIndex(model) };
      const written = layersIn(model, context.values);
      const ruleFor = ({ weight }: LinearLayer, rule: FoldRule): FoldRule => {
        const layers = written.get(tensorName(weight)) ?? [];
        const stored = layers.length > 0 ? storedCodes(context, layers) : 'is not there';
        if (typeof stored === 'string') return rule;
        return readBackRule(context, layers[0]!, stored, rule, weights);
      };
      await foldInto(unmerged, { output: reference, quantized: 'dequantize', ruleFor, signal });
    });
    return await use(reference, weights);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function layersIn(model: Model, values: ValueIndex): Map<string, LinearLayer[]> {
  const layers = new Map<string, LinearLayer[]>();
  for (const finding of findLinearLayers(model, values)) {
    if ('refusal' in finding) continue;
    const name = tensorName(finding.weight);
    layers.set(name, [...(layers.get(name) ?? []), finding]);
  }
  return layers;
}

/** Gives the numbers in the file, after they were compared with those of another rule. */
function readBackRule(
  context: WeightContext,
  layer: LinearLayer,
  stored: StoredCodes,
  rule: FoldRule,
  weights: ReadBack[],
): FoldRule {
  return (fold) => {
    const exact = rule(fold);
    async function* chunks() {
      const { base, transposed } = numbersOfLayer(context, layer);
      const wanted = await numbersOf(fold.weight, exact);
      const bytes = (await base.readRows(0, base.rows)).slice();
      const read = toFloat64(base.dtype, bytes, wanted.length);
      // Models that were patched by an earlier version may see a layer in another layout than the result.
      const isTurned = transposed !== fold.transposed;
      const found = isTurned ? turned(read, base.rows, base.columns) : read;
      const layout = { base: fold.weight, transposed: fold.transposed };
      const scales = numbersIn(context, stored.scales.tensor, stored.scaleDtype);
      const well = judgeRounding({ stored, scales, layout, wanted, found }, UNITS[base.dtype]);
      weights.push({ weight: tensorName(layer.weight), ...well });
      yield isTurned ? fromFloat64(base.dtype, found) : bytes;
    }
    return { length: exact.length, chunks } satisfies Computed;
  };
}

function turned(matrix: Float64Array, rows: number, columns: number): Float64Array {
  return matrix.map((_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!);
}

function numbersIn({ reader }: WeightContext, tensor: Tensor, dtype: DataTypeName): Float64Array {
  return toFloat64(dtype, reader.bytes(tensor), elementCount(tensor.dims));
}

/** Bounds the rounding of a number when it is dequantized and when it is summed. */
const UNITS: Readonly<Record<FloatName, number>> = {
  bfloat16: 2 ** -7,
  float16: 2 ** -10,
  float32: 2 ** -22,
  float64: 2 ** -51,
};

/** The findings of runs and of weights as one. */
export function withWeights(found: Verification, weights: readonly ReadBack[]): Verification {
  const wrong = weights.find(({ off, worst }) => off > 0 || !(worst <= 1));
  const { reason, ...rest } = found;
  const passed = found.passed && !wrong;
  const worst = Math.max(0, ...weights.map((one) => one.worst));
  const why = wrong ? reasonFor(wrong) : found.passed ? undefined : reason;
  return {
    ...rest,
    passed,
    proven: passed && weights.length > 0,
    ...(weights.length > 0 ? { weights: { count: weights.length, worst } } : {}),
    ...(why === undefined ? {} : { reason: why }),
  };
}

function reasonFor({ weight, off, worst }: ReadBack): string {
  if (off > 0)
    return `${off} numbers of ${weight} are not the nearest to W + ΔW that its integers can say`;
  return `${weight} is ${worst.toPrecision(2)} times as far from W + ΔW as plain rounding is`;
}
