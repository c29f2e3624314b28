/** The meaning of each input of a decoder, recognized by its name. */
import { allInputs } from '../../data/model-inputs.js';
import { joinedCache } from '../../data/settled-inputs.js';
import { isPast, pastInput, type Role, roleOf, sequenceInput } from '../../data/text/inputs.js';
import { OnnxLoraError } from '../../errors.js';
import { type DataTypeName, findDataType } from '../../onnx/dtype.js';
import { elementCount, type Model, type ValueInfo } from '../../onnx/model.js';
import {
  type Feeds,
  isFeedable,
  type TensorValue,
  tensorFromNumbers,
} from '../../runtime/tensor-value.js';

/** New tokens after those in the cache. */
export interface Step {
  readonly ids: readonly number[];
  /** Number of tokens in the cache. */
  readonly past: number;
  /** The length that the ids are padded to, where the model takes one length only. */
  readonly length?: number | undefined;
}

/** An input that is made of the step alone. */
interface Made {
  readonly name: string;
  readonly dtype: DataTypeName;
  /** Shape and values. */
  readonly make: (step: Step) => readonly [dims: readonly number[], values: ArrayLike<number>];
}

/** A cache of one row before the first token. */
export interface FirstCache {
  readonly name: string;
  readonly dtype: DataTypeName;
  readonly dims: readonly number[];
}

export interface DecoderInputs {
  readonly made: readonly Made[];
  readonly past: readonly FirstCache[];
  /** Whether one of two branches is taken by whether there is a cache. */
  readonly hasBranch: boolean;
  /** Number of tokens that a run takes, where it takes no other number. */
  readonly length: number | undefined;
  /** Number of positions of the model, where that is known. */
  readonly positions: number | undefined;
}

/**
 * @param own the inputs that are not made here: those of slots
 * @throws OnnxLoraError `unsupported` for a model that is not a decoder of texts alone, or whose cache
 * cannot be empty
 */
export function decoderInputs(model: Model, own: ReadonlySet<string> = new Set()): DecoderInputs {
  const { inputs, positions } = allInputs(model);
  const wanted = inputs.filter(({ name }) => !own.has(name));
  const [past, others] = [true, false].map((side) =>
    wanted.filter(({ name }) => (isPast(name) && !Object.hasOwn(single, name)) === side),
  ) as [ValueInfo[], ValueInfo[]];
  const ids = others.find(({ name }) => roleOf(name) === 'ids');
  if (!ids) throw notDecoder(model, 'it has no input input_ids');
  const length = ids.shape?.[1];
  return {
    made: others.map((input) => madeInput(model, input)),
    past: past.map((input) => atStart(input)),
    hasBranch: others.some(({ name }) => name === BRANCH),
    length: typeof length === 'number' ? length : undefined,
    positions,
  };
}

/** The inputs of a step, without the cache. */
export function stepFeeds({ made }: DecoderInputs, step: Step): Feeds {
  const feeds = made.map(({ name, dtype, make }): [string, TensorValue] => {
    const [dims, values] = make(step);
    return [name, tensorFromNumbers(dtype, dims, Float64Array.from(values))];
  });
  return new Map(feeds);
}

/** The cache before the first token: empty, or zeros where it has one size. */
export function emptyCache({ past }: DecoderInputs): Feeds {
  const feeds = past.map(({ name, dtype, dims }): [string, TensorValue] => {
    return [name, tensorFromNumbers(dtype, dims, new Float64Array(elementCount(dims)))];
  });
  return new Map(feeds);
}

/** The shape of a cache that holds no token; states and windows keep their size. */
function atStart(input: ValueInfo): FirstCache {
  const { name, shape } = input;
  const dtype = findDataType(input.dataType);
  const rest = shape?.slice(1) ?? [];
  const sizes = rest.filter((dim) => typeof dim === 'number');
  if (isFeedable(dtype) && shape && sizes.length === rest.length)
    return { name, dtype, dims: [1, ...sizes] };
  const [joined] = joinedCache(input);
  if (joined) return { name, dtype: joined.dtype, dims: [2, 1, ...joined.shape] };
  const past = pastInput(input);
  return { name, dtype: past.dtype, dims: [1, ...past.shape] };
}

const BRANCH = 'use_cache_branch';

/** The elements of an input of one row, a token each. */
const sequences: Readonly<Record<Role, (step: Step) => number[]>> = {
  ids: ({ ids, length = ids.length }) => padded(ids, length),
  mask: ({ ids, past, length = ids.length }) =>
    padded(Array<number>(past + ids.length).fill(1), past + length),
  types: ({ ids, length = ids.length }) => Array<number>(length).fill(0),
  positions: (step) => places(step),
};

/** Inputs that are a number, or numbers of no row, by their names. */
const single: Readonly<Record<string, (step: Step) => number | number[]>> = {
  [BRANCH]: ({ past }) => (past > 0 ? 1 : 0),
  cache_position: (step) => places(step),
  num_logits_to_keep: () => 1,
  logits_to_keep: () => 1,
  past_sequence_length: ({ past }) => past,
  total_sequence_length: ({ ids, past }) => past + ids.length,
  seqlens_k: ({ ids, past }) => past + ids.length - 1,
};

function madeInput(model: Model, input: ValueInfo): Made {
  const { name, shape, dataType } = input;
  const dtype = findDataType(dataType);
  const one = Object.hasOwn(single, name) ? single[name] : undefined;
  if (one && dtype && shape && shape.length <= 1) {
    return { name, dtype, make: (step) => ofRank(shape.length, one(step)) };
  }
  const role = roleOf(name);
  if (!role) throw notDecoder(model, `nothing in a text makes its input ${name}`);
  const make = sequences[role];
  return {
    ...{ name, dtype: sequenceInput(input).dtype },
    make: (step) => {
      const values = make(step);
      return [[1, values.length], values];
    },
  };
}

function ofRank(rank: number, value: number | number[]) {
  const values = Array.isArray(value) ? value : [value];
  return [rank === 0 ? [] : [values.length], values] as const;
}

function places({ ids, past, length = ids.length }: Step): number[] {
  return padded(
    ids.map((_, i) => past + i),
    length,
  );
}

function padded(values: readonly number[], length: number): number[] {
  return [...values, ...Array<number>(length - values.length).fill(0)];
}

export function notDecoder({ source }: Model, reason: string): OnnxLoraError {
  return new OnnxLoraError('unsupported', `${source.label} does not continue texts: ${reason}`, {
    hint: 'Texts are written by decoders exported for text generation: input_ids in, logits [batch, tokens, vocabulary] out.',
  });
}
