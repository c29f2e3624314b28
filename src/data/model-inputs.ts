/** Facts about a model's inputs beyond their declarations. */
import { ValueIndex } from '../graph/uses.js';
import type { Dim, Model, ValueInfo } from '../onnx/model.js';
import { cacheRooms, cacheSizes } from '../runtime/cache-sizes.js';
import { IndexTracer } from '../runtime/index-bounds.js';
import { settledInputs, settledNames } from './settled-inputs.js';
import { type CacheInput, isPast, roleOf } from './text/inputs.js';

export interface ModelInputs {
  /** With the sizes of caches that the rest of the model shows. */
  readonly inputs: readonly ValueInfo[];
  /** Whether the model takes a cache, be it one that no text leaves empty. */
  readonly hasCache: boolean;
  /** Number of positions in the model's table, where that is known. */
  readonly positions: number | undefined;
}

/** Of a run of whole texts, which settles some of the inputs. */
export function modelInputs(model: Model): ModelInputs {
  const { inputs, ...rest } = allInputs(model);
  const settled = settledNames(settledInputs(model));
  return { ...rest, inputs: inputs.filter(({ name }) => !settled.has(name)) };
}

/** Of any run. */
export function allInputs(model: Model): ModelInputs {
  const { inputs } = model.graph;
  const values = new ValueIndex(model);
  const past = inputs.filter(({ name }) => isPast(name));
  const positions = inputs.find(({ name }) => roleOf(name) === 'positions');
  const isOpen = past.some(({ shape }) => openAxes(shape).length > 1);
  const sizes = isOpen ? cacheSizes(model, values) : undefined;
  const rooms = cacheRooms(model);
  const sized = (input: ValueInfo): CacheInput => {
    const shaped = sizes ? withSizes(input, sizes) : input;
    const room = rooms.get(input.name);
    return room === undefined ? shaped : { ...shaped, room };
  };
  return {
    inputs: inputs.map((input) => (past.includes(input) ? sized(input) : input)),
    hasCache: past.length > 0,
    positions: positions && new IndexTracer(model, values).bounds(positions.name)?.limit,
  };
}

function openAxes(shape: readonly Dim[] | null): number[] {
  return (shape ?? []).flatMap((dim, axis) => (axis > 0 && typeof dim !== 'number' ? [axis] : []));
}

/** The axes of heads and of their size, which are 1 and 3, unless they are named otherwise. */
function withSizes(input: ValueInfo, { head, heads }: ReturnType<typeof cacheSizes>): ValueInfo {
  const { shape } = input;
  if (shape?.length !== 4 || openAxes(shape).length < 2) return input;
  const sized = shape.map((dim, axis) => {
    if (typeof dim === 'number') return dim;
    if (axis === 1) return heads[0] ?? dim;
    return axis === 3 ? (head[0] ?? dim) : dim;
  });
  return { ...input, shape: sized };
}
