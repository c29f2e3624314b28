/** Random inputs, so that a model can be run without knowing what it is for. */

import { uniformInt } from 'pure-rand/distribution/uniformInt';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import { OnnxLoraError } from '../errors.js';
import { ValueIndex } from '../graph/uses.js';
import { type DataTypeName, isFloating } from '../onnx/dtype.js';
import { elementCount, type Model } from '../onnx/model.js';
import type { WorkOptions } from '../onnx/write.js';
import { generatorFor, normal } from '../random.js';
import { cacheSizes } from './cache-sizes.js';
import { type CountedInput, countedInput, countedTensor } from './counted-inputs.js';
import { type IndexBounds, IndexTracer } from './index-bounds.js';
import { InputShapes, type Sizes } from './input-sizes.js';
import { plainMessage } from './ort-error.js';
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
  'Give real inputs in a .safetensors file with `samples`, or skip the check with `verify: false`.';

/** Of one batch: random numbers for more take gigabytes and minutes, and prove nothing that fewer do not. */
const MAX_ELEMENTS = 2 ** 25;

/** Inputs [rows, tokens, ..] of decoders. */
const TOKENS = new Set(['input_ids', 'inputs_embeds']);

/** Makes random inputs for one model. */
export class InputSampler {
  private readonly shapes: InputShapes;
  private readonly ranges: ReadonlyMap<string, IndexBounds>;
  private readonly counted: ReadonlyMap<string, CountedInput>;
  /** The combinations of sizes to try, the likeliest first. */
  readonly variants: readonly number[];

  /**
   * @throws OnnxLoraError `verification` for an input that is not a tensor of numbers, or has more elements
   * than random ones are made of
   */
  constructor(
    model: Model,
    private readonly inputs: readonly ValueMeta[],
  ) {
    const unsuited = inputs.find(({ dtype }) => !isFeedable(dtype));
    if (unsuited) throw unsuitable(unsuited);
    const shapes = new Map(model.graph.inputs.map(({ name, shape }) => [name, shape]));
    const values = new ValueIndex(model);
    const tracer = new IndexTracer(model, values);
    const ranked = inputs.map((input) => withRank(input, shapes.get(input.name)));
    this.shapes = new InputShapes(ranked, { ...cacheSizes(model, values) });
    this.variants = [...this.shapes.variants.keys()].filter(
      (i) => this.elementsOf(i) <= MAX_ELEMENTS,
    );
    if (this.variants.length === 0) throw this.tooLarge();
    this.ranges = new Map(inputs.map((input) => [input.name, integerRange(input, tracer)]));
    this.counted = new Map(
      model.graph.inputs.flatMap(countedInput).map((input) => [input.name, input]),
    );
  }

  /** Whether an input is a single bool: it mostly says which branch of the model to take. */
  get hasFlags(): boolean {
    return this.inputs.some(isFlag);
  }

  /**
   * One batch: floats are standard normal, integers within the tables that they index, masks one,
   * bools true, and what counts the tokens does so. The same seed and variant give the same numbers.
   * @param variant which sizes the open dimensions get, one of `variants`
   * @param flag of inputs that are a single bool
   */
  feeds(seed: number, variant: number, flag = true): Feeds {
    const sizes = this.shapes.variants[variant];
    if (!sizes) throw new RangeError(`variant ${variant} of ${this.shapes.variants.length}`);
    return new Map(
      this.inputs.map((input) => {
        const counted = this.counts(input.name, sizes);
        if (counted) return [input.name, counted];
        const dims = this.shapes.dims(input.name, sizes);
        const random = generatorFor(seed, 'sample', input.name);
        return [input.name, this.tensor(input, dims, random, flag)];
      }),
    );
  }

  /** Of an input that counts the tokens, all of which the mask shows. */
  private counts(name: string, sizes: Sizes): TensorValue | undefined {
    const counted = this.counted.get(name);
    const tokens = this.inputs.find((input) => TOKENS.has(input.name));
    if (!counted || !tokens) return undefined;
    const [rows = 1, length = 1] = this.shapes.dims(tokens.name, sizes);
    const { past } = sizes;
    const ends = new Array<number>(rows).fill(past + length - 1);
    return countedTensor(counted, { past, length, ends });
  }

  private tensor(
    input: ValueMeta,
    dims: number[],
    random: RandomGenerator,
    flag: boolean,
  ): TensorValue {
    const next = isFlag(input) && !flag ? () => 0 : this.element(input, random);
    const values = new Float64Array(elementCount(dims));
    for (let i = 0; i < values.length; i++) values[i] = next();
    return tensorFromNumbers(input.dtype!, dims, values);
  }

  private element({ name, dtype }: ValueMeta, random: RandomGenerator): () => number {
    if (dtype === 'bool' || isMask(name)) return () => 1;
    if (isFloating(dtype!)) return () => normal(random);
    const { min, limit } = this.ranges.get(name)!;
    return () => uniformInt(random, min, limit - 1);
  }

  private elementsOf(variant: number): number {
    const sizes = this.shapes.variants[variant]!;
    const counts = this.inputs.map(({ name }) => elementCount(this.shapes.dims(name, sizes)));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  private tooLarge(): OnnxLoraError {
    const sizes = this.shapes.variants[0]!;
    const shapes = this.inputs.map(({ name }) => ({ name, dims: this.shapes.dims(name, sizes) }));
    const [largest] = shapes.sort((a, b) => elementCount(b.dims) - elementCount(a.dims));
    const { name, dims } = largest!;
    return new OnnxLoraError(
      'verification',
      `could not make inputs that the model accepts: input ${name} has shape [${dims.join(', ')}], and random inputs are made of at most ${MAX_ELEMENTS} elements a batch`,
      { hint: HINT },
    );
  }
}

function isFlag({ dtype, shape }: ValueMeta): boolean {
  return dtype === 'bool' && shape.every((dim) => dim === 1);
}

/**
 * Random inputs that the model has run with: sizes are tried until it accepts them and gives numbers.
 * If single bools choose a branch, there are inputs for both values of them, if the model accepts both.
 * @param count how many batches of each kind, all of the same sizes
 * @throws OnnxLoraError `verification` with ONNX Runtime's reason where it accepts none, or where its sizes
 * are beyond what random inputs are made for; `aborted`
 */
export async function findWorkingInputs(
  session: Session,
  model: Model,
  seed: number,
  count = DEFAULT_COUNT,
  options: WorkOptions = {},
): Promise<Feeds[]> {
  const sampler = new InputSampler(model, session.inputs);
  const found: Feeds[] = [];
  let refusal: OnnxLoraError | undefined;
  for (const flag of sampler.hasFlags ? [true, false] : [true]) {
    for (const variant of sampler.variants) {
      const make = (i: number) => sampler.feeds(seed + i, variant, flag);
      const tried = await workingBatches(session, make, count, options);
      if (Array.isArray(tried)) {
        found.push(...tried);
        break;
      }
      refusal ??= tried;
    }
  }
  if (found.length > 0) return found;
  const { length } = sampler.variants;
  const tries = length === 1 ? '' : ` (the likeliest of ${length} combinations of sizes)`;
  throw new OnnxLoraError(
    'verification',
    `could not make inputs that the model accepts: ${refusal?.message}${tries}`,
    { node: refusal?.node, hint: HINT, cause: refusal },
  );
}

/** Batches that the model runs with, or why it does not. */
async function workingBatches(
  session: Session,
  make: (batch: number) => Feeds,
  count: number,
  { signal }: WorkOptions,
): Promise<Feeds[] | OnnxLoraError> {
  const batches: Feeds[] = [];
  for (let i = 0; i < count; i++) {
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
    const feeds = make(i);
    const problem = await tryFeeds(session, feeds);
    if (problem) return problem;
    batches.push(feeds);
  }
  return batches;
}

/** Why the model does not give numbers for `feeds`; undefined where it does. */
async function tryFeeds(session: Session, feeds: Feeds): Promise<OnnxLoraError | undefined> {
  try {
    const outputs = await session.run(feeds);
    if (outputs.size === 0 || [...outputs.values()].some(hasNumbers)) return undefined;
    return new OnnxLoraError('verification', 'every output is empty or NaN');
  } catch (error) {
    if (!(error instanceof OnnxLoraError)) throw error;
    const { node, cause } = error;
    // The message names the file, as if that were at fault; the inputs are ours.
    const reason = cause instanceof Error ? plainMessage(cause.message) : error.message;
    return new OnnxLoraError(error.code, reason, { node, cause });
  }
}

function hasNumbers(output: TensorValue): boolean {
  return tensorToFloat64(output).some((value) => !Number.isNaN(value));
}

function unsuitable({ name, dtype }: ValueMeta): OnnxLoraError {
  const what = dtype ? `${dtype} elements` : 'something that is not a tensor';
  return new OnnxLoraError(
    'verification',
    `could not make inputs that the model accepts: input ${name} takes ${what}`,
    { hint: 'Skip the check with `verify: false`.' },
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
