/** Which inputs of a model are made of tokens, by their names. */
import { OnnxLoraError } from '../../errors.js';
import { type DataTypeName, findDataType } from '../../onnx/dtype.js';
import type { ValueInfo } from '../../onnx/model.js';
import { isFeedable } from '../../runtime/tensor-value.js';

/** Contents of an input of shape [batch, tokens]. */
export type Role = 'ids' | 'mask' | 'types' | 'positions';

export interface SequenceInput {
  readonly name: string;
  readonly dtype: DataTypeName;
  readonly role: Role;
}

/** Keys and values of tokens before the first one: there are none. */
export interface PastInput {
  readonly name: string;
  readonly dtype: DataTypeName;
  /** Without the batch axis; 0 at the axis of tokens, or the room that the cache must have. A state has no such axis. */
  readonly shape: readonly number[];
}

export interface TextInputs {
  readonly sequences: readonly SequenceInput[];
  readonly past: readonly PastInput[];
  /** The number of tokens that the model takes, where that is fixed. */
  readonly length: number | undefined;
}

const roles: Readonly<Record<string, Role>> = {
  input_ids: 'ids',
  attention_mask: 'mask',
  input_mask: 'mask',
  token_type_ids: 'types',
  segment_ids: 'types',
  position_ids: 'positions',
};

/** Whether one of the inputs is for the numbers of tokens. */
export function takesTokens(inputs: readonly Pick<ValueInfo, 'name'>[]): boolean {
  return inputs.some(({ name }) => roleOf(name) === 'ids');
}

export function roleOf(name: string): Role | undefined {
  return Object.hasOwn(roles, name) ? roles[name] : undefined;
}

const PAST = /^past_?key|^past[._]|^past_/;

/** Whether an input is a cache of earlier tokens. */
export function isPast(name: string): boolean {
  return PAST.test(name);
}

/**
 * @throws OnnxLoraError `unsupported` for a model that takes no tokens, or something else that no text
 * gives
 */
export function textInputs(inputs: readonly ValueInfo[]): TextInputs {
  const past = inputs.filter(({ name }) => PAST.test(name)).map(pastInput);
  const sequences = inputs.filter(({ name }) => !PAST.test(name)).map(sequenceInput);
  const ids = sequences.find(({ role }) => role === 'ids');
  if (!ids) throw unsupported('the model has no input input_ids');
  const length = inputs.find(({ name }) => name === ids.name)!.shape![1];
  return { sequences, past, length: typeof length === 'number' ? length : undefined };
}

export function sequenceInput({ name, shape, dataType }: ValueInfo): SequenceInput {
  const role = roleOf(name);
  const dtype = findDataType(dataType);
  if (!role) throw unsupported(`nothing in a text makes the model's input ${name}`);
  if (shape?.length === 2 && isFeedable(dtype)) return { name, dtype, role };
  const found = shape ? `[${shape.map((dim) => dim ?? '?').join(', ')}]` : 'of any shape';
  throw unsupported(
    `the model's input ${name} is ${dtype ?? 'no tensor'} ${found}, expected [batch, tokens]`,
  );
}

const CACHE_RANK = 4;
/** [batch, channels, width] */
const STATE_RANK = 3;

/** A cache that may have to hold some tokens from the start, whatever they are: no run reads them. */
export interface CacheInput extends ValueInfo {
  readonly room?: number | undefined;
}

/** [batch, heads, tokens, size] or with the axes of heads and tokens changed. */
export function pastInput({ name, shape, dataType, room = 0 }: CacheInput): PastInput {
  const dtype = findDataType(dataType);
  const rest = shape?.slice(1) ?? [];
  const free = rest.filter((dim) => typeof dim !== 'number');
  if (shape?.length === CACHE_RANK && free.length === 1 && isFeedable(dtype)) {
    return { name, dtype, shape: rest.map((dim) => (typeof dim === 'number' ? dim : room)) };
  }
  // States of convolutions and the like are zero before the first token.
  if (shape?.length === STATE_RANK && free.length === 0 && isFeedable(dtype)) {
    return { name, dtype, shape: rest as number[] };
  }
  if (name === PAGED) throw paged(name);
  const found = shape ? `[${shape.map((dim) => dim ?? '?').join(', ')}]` : 'of any shape';
  throw unsupported(
    `the model's input ${name} is ${found}, expected [batch, heads, tokens, size] with any number of tokens, so that it can be empty`,
  );
}

/** The lengths of the samples in a cache of pages. */
const PAGED = 'past_sequence_lengths';

function paged(name: string): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `the model's input ${name} belongs to PagedAttention, whose cache a server keeps in pages`,
    {
      hint: 'Train the same model built without it (GroupQueryAttention): its adapters fit this one as well.',
    },
  );
}

function unsupported(problem: string): OnnxLoraError {
  return new OnnxLoraError('unsupported', problem, {
    hint: `Texts feed ${Object.keys(roles).join(', ')} and empty past_key_values. Export the model with these alone (without a cache), or give arrays in a .safetensors or .npz file.`,
  });
}
