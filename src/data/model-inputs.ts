/** Facts about a model's inputs beyond their declarations. */
import { ValueIndex } from '../graph/uses.js';
import type { Model, ValueInfo } from '../onnx/model.js';
import { cacheRooms } from '../runtime/cache-sizes.js';
import { IndexTracer } from '../runtime/index-bounds.js';
import { sizedInputs } from './cache-shapes.js';
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
  const inputs = sizedInputs(model);
  const past = inputs.filter(({ name }) => isPast(name));
  const positions = inputs.find(({ name }) => roleOf(name) === 'positions');
  const rooms = cacheRooms(model);
  const roomy = (input: ValueInfo): CacheInput => {
    const room = rooms.get(input.name);
    return room === undefined ? input : { ...input, room };
  };
  return {
    inputs: inputs.map(roomy),
    hasCache: past.length > 0,
    positions:
      positions && new IndexTracer(model, new ValueIndex(model)).bounds(positions.name)?.limit,
  };
}
