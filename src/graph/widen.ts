/**
 * bfloat16 as float32, which holds all of it: CPUs have hardly any kernels for it, and the binding no arrays.
 * Roundings to bfloat16 between operators are left out.
 */
import { type DataTypeName, dataTypeNumber, fromFloat32, toFloat32 } from '../onnx/dtype.js';
import type { AttributeValue, NewNode } from '../onnx/encode.js';
import { elementCount, type Model } from '../onnx/model.js';
import { onnx } from '../onnx/proto.js';

const NARROW = dataTypeNumber('bfloat16');
const WIDE = dataTypeNumber('float32');

/** The type that values of a type are computed in. */
export function wideType<T extends DataTypeName | undefined>(dtype: T): T | 'float32' {
  return dtype === 'bfloat16' ? 'float32' : dtype;
}

/** The number of a type, as declarations have it. */
export function wideNumber(dataType: number): number {
  return dataType === NARROW ? WIDE : dataType;
}

// Larger ones stay in their file, and a Cast reads them.
const MOST_CONVERTED = 2 ** 20;

/** Whether a constant is converted at once. */
export function isConvertedAtOnce(dims: readonly number[]): boolean {
  return elementCount(dims) <= MOST_CONVERTED;
}

/** A Cast of the constant `from` to the value `to`. */
export function widening(from: string, to: string): NewNode {
  return {
    ...{ name: `${to}/float32`, opType: 'Cast', domain: '', inputs: [from], outputs: [to] },
    attributes: { to: { int: WIDE } },
  };
}

/** Attributes that name the type of an output. */
const TYPES = new Set(['to', 'dtype', 'output_dtype', 'stash_type']);

/** The attribute of a node that makes float32 where it made bfloat16. */
export function wideAttribute(name: string, value: AttributeValue): AttributeValue {
  if ('int' in value)
    return TYPES.has(name) && Number(value.int) === NARROW ? { int: WIDE } : value;
  return 'raw' in value ? wideRaw(name, value) : value;
}

/** The number of ConstantOfShape. */
const NUMBER = 'value';

function wideRaw(
  name: string,
  value: Extract<AttributeValue, { readonly raw: Uint8Array }>,
): AttributeValue {
  // Bodies, which may hold weights, are not looked at.
  if (name !== NUMBER && !TYPES.has(name)) return value;
  const attribute = onnx.AttributeProto.decode(value.raw);
  const { t } = attribute;
  if (TYPES.has(name) && Number(attribute.i) === NARROW) return { int: WIDE };
  if (t?.dataType !== NARROW) return value;
  const codes = t.rawData?.length
    ? t.rawData
    : new Uint8Array(Uint16Array.from(t.int32Data ?? []).buffer);
  const bytes = fromFloat32('float32', toFloat32('bfloat16', codes, codes.byteLength / 2));
  const wide = { ...t, dataType: WIDE, rawData: bytes, int32Data: [] };
  return { ...value, raw: onnx.AttributeProto.encode({ ...attribute, t: wide }).finish() };
}

/** Whether there is bfloat16 in a model. */
export function hasBfloat16({ graph }: Model): boolean {
  const values = [...graph.inputs, ...graph.outputs, ...graph.initializers.values()];
  return (
    values.some(({ dataType }) => dataType === NARROW) ||
    graph.nodes.some(
      ({ opType, attributes }) => opType === 'Cast' && attributes.get('to')?.i === NARROW,
    )
  );
}
