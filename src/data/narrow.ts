/** Feeds for graphs that take int32 where their model takes int64. */
import { OnnxLoraError } from '../errors.js';
import { type Feeds, type TensorValue, tensorToFloat64 } from '../runtime/tensor-value.js';

/**
 * The feeds of these names as int32; see `narrowInputs`.
 * @throws OnnxLoraError `unsupported` for a number that int32 does not hold
 */
export function narrowFeeds(feeds: Feeds, names: ReadonlySet<string>): Feeds {
  if (names.size === 0) return feeds;
  const narrowed = [...feeds].map(([name, value]): [string, TensorValue] =>
    names.has(name) ? [name, narrowed32(name, value)] : [name, value],
  );
  return new Map(narrowed);
}

function narrowed32(name: string, value: TensorValue): TensorValue {
  const numbers = tensorToFloat64(value);
  const data = Int32Array.from(numbers);
  const at = numbers.findIndex((number, i) => number !== data[i]);
  if (at < 0) return { dtype: 'int32', dims: value.dims, data };
  throw new OnnxLoraError(
    'unsupported',
    `${name} holds ${numbers[at]}, which GPU providers do not compute with: they take int32`,
    { hint: "Use `provider: 'cpu'`." },
  );
}
