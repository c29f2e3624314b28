/** Random inputs, so that a model can be run without knowing what it is for. */

import { uniformInt } from 'pure-rand/distribution/uniformInt';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import { OnnxLoraError } from '../errors.js';
import { ValueIndex } from '../graph/uses.js';
import { generatorFor, normal } from '../lora/start/init.js';
import { type DataTypeName, isFloating } from '../onnx/dtype.js';
import { elementCount, type Model } from '../onnx/model.js';
import type { WorkOptions } from '../onnx/write.js';
import { type IndexBounds, IndexTracer } from './index-bounds.js';
import { InputShapes } from './input-sizes.js';
import type { Session, ValueMeta } from './session.js';
import {
  type Feeds,
  isFeedable,
  type TensorValue,
  tensorFromNumbers,
  tensorToFloat64,
} from './tensor-value.js';

export { loadSamples } from './load-samples.js';

/** Batches of inputs that `findWorkingInputs` makes, unless told otherwise. */
const DEFAULT_COUNT = 3;

const HINT =
  'Give real inputs in a .safetensors file with --samples, or skip the check with --no-verify.';

/** Makes random inputs for one model. */
export class InputSampler {
  private readonly shapes: InputShapes;
  private readonly ranges: ReadonlyMap<string, IndexBounds>;

  /** @throws OnnxLoraError `verification` for an input that is no tensor of numbers */
  constructor(
    model: Model,
    private readonly inputs: readonly ValueMeta[],
  ) {
    const unsuited = inputs.find(({ dtype }) => !isFeedable(dtype));
    if (unsuited) throw unsuitable(unsuited);
    const shapes = new Map(model.graph.inputs.map(({ name, shape }) => [name, shape]));
    const tracer = new IndexTracer(model, new ValueIndex(model));
    this.shapes = new InputShapes(inputs.map((input) => withRank(input, shapes.get(input.name))));
    this.ranges = new Map(inputs.map((input) => [input.name, integerRange(input, tracer)]));
  }

  /** How many combinations of sizes there are to try. */
  get variants(): number {
    return this.shapes.variants.length;
  }

  /**
   * One batch: floats are standard normal, integers within the tables that they index, masks one,
   * bools true. The same seed and variant give the same numbers.
   * @param variant which sizes the open dimensions get, from 0 (the likeliest) to `variants` - 1
   */
  feeds(seed: number, variant: number): Feeds {
    const sizes = this.shapes.variants[variant];
    if (!sizes) throw new RangeError(`variant ${variant} of ${this.variants}`);
    return new Map(
      this.inputs.map((input) => {
        const dims = this.shapes.dims(input.name, sizes);
        return [input.name, this.tensor(input, dims, generatorFor(seed, 'sample', input.name))];
      }),
    );
  }

  private tensor({ name, dtype }: ValueMeta, dims: number[], random: RandomGenerator): TensorValue {
    const next = this.element(name, dtype!, random);
    const values = Float64Array.from({ length: elementCount(dims) }, next);
    return tensorFromNumbers(dtype!, dims, values);
  }

  private element(name: string, dtype: DataTypeName, random: RandomGenerator): () => number {
    if (dtype === 'bool' || isMask(name)) return () => 1;
    if (isFloating(dtype)) return () => normal(random);
    const { min, limit } = this.ranges.get(name)!;
    return () => uniformInt(random, min, limit - 1);
  }
}

/**
 * One batch of random inputs for a model; see {@link InputSampler}, which makes several faster.
 * @throws OnnxLoraError `verification` for an input that is no tensor of numbers
 */
export function sampleInputs(
  model: Model,
  inputs: readonly ValueMeta[],
  seed: number,
  variant = 0,
): Feeds {
  return new InputSampler(model, inputs).feeds(seed, variant);
}

/**
 * Random inputs that the model has run with: sizes are tried until it accepts them and gives numbers.
 * @param count how many batches, all of the same sizes
 * @throws OnnxLoraError `verification` with ONNX Runtime's reason where it accepts none; `aborted`
 */
export async function findWorkingInputs(
  session: Session,
  model: Model,
  seed: number,
  count = DEFAULT_COUNT,
  options: WorkOptions = {},
): Promise<Feeds[]> {
  const sampler = new InputSampler(model, session.inputs);
  let refusal: OnnxLoraError | undefined;
  for (let variant = 0; variant < sampler.variants; variant++) {
    const batches: Feeds[] = [];
    for (let i = 0; i < count; i++) {
      if (options.signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
      const feeds = sampler.feeds(seed + i, variant);
      const problem = await tryFeeds(session, feeds);
      refusal ??= problem;
      if (problem) break;
      batches.push(feeds);
    }
    if (batches.length === count) return batches;
  }
  throw new OnnxLoraError(
    'verification',
    `could not make inputs that the model accepts: ${refusal?.message}`,
    { node: refusal?.node, hint: HINT, cause: refusal },
  );
}

/** Why the model does not give numbers for `feeds`; undefined where it does. */
async function tryFeeds(session: Session, feeds: Feeds): Promise<OnnxLoraError | undefined> {
  try {
    const outputs = await session.run(feeds);
    if (outputs.size === 0 || [...outputs.values()].some(hasNumbers)) return undefined;
    return new OnnxLoraError('verification', 'every output is empty or NaN');
  } catch (error) {
    if (error instanceof OnnxLoraError) return error;
    throw error;
  }
}

function hasNumbers(output: TensorValue): boolean {
  return tensorToFloat64(output).some((value) => !Number.isNaN(value));
}

function unsuitable({ name, dtype }: ValueMeta): OnnxLoraError {
  const what = dtype ? `${dtype} elements` : 'something that is no tensor';
  return new OnnxLoraError(
    'verification',
    `could not make inputs that the model accepts: input ${name} takes ${what}`,
    { hint: 'Skip the check with --no-verify.' },
  );
}

/** A file may leave the rank open, which a session shows like a scalar; most inputs are matrices. */
function withRank(input: ValueMeta, shape: readonly unknown[] | null | undefined): ValueMeta {
  return shape === null ? { ...input, shape: [null, null] } : input;
}

function isMask(name: string): boolean {
  return /mask/i.test(name);
}

function integerRange({ name, dtype, shape }: ValueMeta, tracer: IndexTracer): IndexBounds {
  if (!dtype || isFloating(dtype)) return { min: 0, limit: 1 };
  const bounds = tracer.bounds(name);
  if (!bounds && dtype === 'uint8' && shape.length >= 3) return { min: 0, limit: 256 };
  const small = !bounds || /token_type|segment/i.test(name) ? 2 : Number.POSITIVE_INFINITY;
  const min = Math.min(bounds?.min ?? 0, maxOf(dtype));
  const limit = Math.min(bounds?.limit ?? small, min + small, maxOf(dtype) + 1);
  // Tables that exclude each other leave nothing; then the model's own error says more.
  return { min, limit: Math.max(limit, min + 1) };
}

/** Below what the type holds and pure-rand's 32 bits. */
function maxOf(dtype: DataTypeName): number {
  if (dtype.endsWith('int8')) return 127;
  return dtype.endsWith('int16') ? 32_767 : 2 ** 31 - 2;
}
