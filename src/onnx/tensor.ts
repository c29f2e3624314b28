/** The numbers of a tensor, wherever the file keeps them. */
import { OnnxLoraError } from '../errors.js';
import type { ByteSource } from './byte-source.js';
import {
  byteLength,
  type DataTypeName,
  type FloatName,
  findDataType,
  isConvertible,
  toFloat32,
  toFloat64,
} from './dtype.js';
import type { Span } from './edit.js';
import { type ExternalFiles, tooShort } from './external.js';
import { TensorField } from './fields.js';
import { elementCount, type Model, type Tensor } from './model.js';
import { eachVarint, type Field, type Range } from './wire.js';

/** Reads the tensors of one model; keeps external data files open until closed. */
export class TensorReader {
  constructor(
    private readonly model: Model,
    private readonly files: ExternalFiles,
  ) {}

  /**
   * The place of the tensor's little-endian bytes, if they lie in one piece; undefined for typed fields, whose
   * numbers are not stored as such.
   * @throws OnnxLoraError `invalid-model`, `external-data`, `unsupported`
   */
  span(tensor: Tensor): Span | undefined {
    const { data } = tensor;
    const length = expectedBytes(tensor, this.model);
    switch (data.kind) {
      case 'raw':
        this.checkLength(tensor, length, data.field.end - data.field.value, 'raw_data');
        return { source: this.model.source, start: data.field.value, end: data.field.end };
      case 'external': {
        if (data.length !== undefined) this.checkLength(tensor, length, data.length, 'length');
        const source = this.files.source(data.location, tensor.name);
        const end = data.offset + length;
        if (end > source.size) throw tooShort(this.model, tensor, data.offset, end, source);
        return { source, start: data.offset, end };
      }
      case 'typed':
        return undefined;
      case 'empty':
        this.checkLength(tensor, length, 0, 'no data');
        return { source: this.model.source, start: 0, end: 0 };
      case 'segmented':
        throw new OnnxLoraError(
          'unsupported',
          `${this.model.source.label}: tensor ${tensor.name} is stored in segments, which no runtime reads`,
        );
    }
  }

  /** The tensor's little-endian bytes, copied. */
  bytes(tensor: Tensor): Uint8Array {
    const span = this.span(tensor);
    return span ? span.source.read(span.start, span.end) : this.typedBytes(tensor);
  }

  /** The values of a floating-point tensor as float32. */
  float32(tensor: Tensor): Float32Array {
    return toFloat32(dtypeOf(tensor, this.model), this.bytes(tensor), elementCount(tensor.dims));
  }

  /** The values of a floating-point tensor as float64. */
  float64(tensor: Tensor): Float64Array {
    return toFloat64(dtypeOf(tensor, this.model), this.bytes(tensor), elementCount(tensor.dims));
  }

  private typedBytes(tensor: Tensor): Uint8Array {
    const dtype = dtypeOf(tensor, this.model);
    const length = expectedBytes(tensor, this.model);
    const fields = tensor.data.kind === 'typed' ? tensor.data.fields : [];
    const bytes = concatenate(fields.map((field) => this.typedField(tensor, dtype, field)));
    this.checkLength(tensor, length, bytes.byteLength, 'typed data');
    return bytes;
  }

  private typedField(tensor: Tensor, dtype: DataTypeName, field: Field): Uint8Array {
    const { source } = this.model;
    const range = { start: field.value, end: field.end };
    switch (field.number) {
      case TensorField.floatData:
      case TensorField.doubleData:
        return source.read(range.start, range.end);
      case TensorField.int32Data:
      case TensorField.int64Data:
      case TensorField.uint64Data:
        return integerBytes(source, range, dtype);
      default:
        throw stringsError(tensor, this.model);
    }
  }

  private checkLength(tensor: Tensor, expected: number, found: number, where: string): void {
    if (expected === found) return;
    throw new OnnxLoraError(
      'invalid-model',
      `${this.model.source.label}: tensor ${tensor.name} of shape [${tensor.dims.join(', ')}] needs ${expected} bytes of ${dtypeOf(tensor, this.model)}, found ${found} (${where})`,
      { hint: 'The file is damaged: fetch or export it again.' },
    );
  }
}

/**
 * The name of a tensor's data type.
 * @throws OnnxLoraError `unsupported` for a number that ONNX does not define
 */
export function dtypeOf(tensor: Tensor, model: Model): DataTypeName {
  const name = findDataType(tensor.dataType);
  if (name) return name;
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label}: tensor ${tensor.name} has data type ${tensor.dataType}, expected one of ONNX's 1 to 26`,
  );
}

/**
 * The same for a tensor of real numbers.
 * @throws OnnxLoraError `unsupported` for any other type
 */
export function floatTypeOf(tensor: Tensor, model: Model): FloatName {
  const dtype = dtypeOf(tensor, model);
  if (isConvertible(dtype)) return dtype;
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label}: tensor ${tensor.name} is ${dtype}, expected floating point`,
  );
}

/** Whether the file can hold as many numbers as the tensor's shape asks for; nothing is read for it. */
export function fitsItsData({ dataType, dims, data }: Tensor): boolean {
  const dtype = findDataType(dataType);
  if (!dtype || dtype === 'string') return false;
  const needed = byteLength(dtype, elementCount(dims));
  switch (data.kind) {
    case 'raw':
      return data.field.end - data.field.value >= needed;
    case 'external':
      return data.length === undefined || data.length >= needed;
    case 'typed': {
      // A number takes a byte of the file at least.
      const stored = data.fields.reduce((sum, { value, end }) => sum + end - value, 0);
      return stored >= elementCount(dims) * Math.min(1, byteLength(dtype, 8) / 8);
    }
    default:
      return needed === 0;
  }
}

function expectedBytes(tensor: Tensor, model: Model): number {
  const dtype = dtypeOf(tensor, model);
  if (dtype === 'string') throw stringsError(tensor, model);
  return byteLength(dtype, elementCount(tensor.dims));
}

function stringsError(tensor: Tensor, model: Model): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${model.source.label}: tensor ${tensor.name} holds strings, expected numbers`,
  );
}

// A varint holds one number: the bits of half precision, a byte of two values for 4-bit types.
function integerBytes(source: ByteSource, range: Range, dtype: DataTypeName): Uint8Array {
  const width = byteLength(dtype, 1);
  // A varint has at least one byte.
  const view = new DataView(new ArrayBuffer((range.end - range.start) * width));
  let length = 0;
  eachVarint(source, range, (low, high) => {
    if (width === 1) view.setUint8(length, low);
    else if (width === 2) view.setUint16(length, low, true);
    else view.setUint32(length, low, true);
    if (width === 8) view.setUint32(length + 4, high, true);
    length += width;
  });
  return new Uint8Array(view.buffer, 0, length);
}

function concatenate(parts: Uint8Array[]): Uint8Array {
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}
