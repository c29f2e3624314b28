/** New elements as records: onnx-proto encodes, edit.ts puts them in place. */

import { type DataTypeName, dataTypeNumber } from './dtype.js';
import { type Piece, recordHeader, totalLength } from './edit.js';
import {
  EntryField,
  GraphField,
  ModelField,
  NodeField,
  TensorField,
  ValueInfoField,
} from './fields.js';
import type { Dim } from './model.js';
import { onnx } from './proto.js';
import { encodeString } from './wire.js';

const AttributeType = onnx.AttributeProto.AttributeType;

/** A signed 64-bit integer: a bigint where a number would round it. */
export type Integer = number | bigint;

/** The value of an attribute that we write. */
export type AttributeValue =
  | {
      /** An integer. */
      readonly int: Integer;
    }
  | {
      /** A list of integers. */
      readonly ints: readonly Integer[];
    }
  | {
      /** A float. */
      readonly float: number;
    }
  | {
      /** A text. */
      readonly text: string;
    }
  | {
      /** A list of floats. */
      readonly floats: readonly number[];
    }
  /**
   * An encoded AttributeProto, name included: what has no plain value; with what the bodies in it, if
   * there are any, read from the graphs around them.
   */
  | {
      /** The encoded AttributeProto. */
      readonly raw: Uint8Array;
      /** Names of values that bodies in it read from the graphs around them. */
      readonly captures: readonly string[];
    };

/** A text that is the same for the same attributes, whose integers JSON cannot represent. */
export function keyOf(value: unknown): string {
  return JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? `${part}n` : part));
}

/** A node that we write. */
export interface NewNode {
  /** Name of the node; may be empty. */
  readonly name: string;
  /** Name of the operator. */
  readonly opType: string;
  /** Domain of the operator; default the standard operators. */
  readonly domain?: string;
  /** Names of the values that it reads; `''` for one that is left out. */
  readonly inputs: readonly string[];
  /** Names of the values that it makes; `''` for one that nobody reads. */
  readonly outputs: readonly string[];
  /** Attributes by name. */
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
}

/** A tensor that we write, with its raw bytes. */
export interface NewTensor {
  /** Name of the tensor. */
  readonly name: string;
  /** Type of the numbers. */
  readonly dtype: DataTypeName;
  /** Its shape. */
  readonly dims: readonly number[];
  /** Its bytes, little-endian, row by row. */
  readonly data: Piece;
}

/** A length-delimited field around `payload`. */
export function record(fieldNumber: number, ...payload: Piece[]): Piece[] {
  return [recordHeader(fieldNumber, totalLength(payload)), ...payload];
}

/** A string field. */
export function stringRecord(fieldNumber: number, value: string): Uint8Array {
  const bytes = encodeString(value);
  return Buffer.concat([recordHeader(fieldNumber, bytes.length), bytes]);
}

/** A `GraphProto.node` record. */
export function nodeRecord(node: NewNode): Piece[] {
  const { name, opType, domain = '', inputs, outputs, attributes = {} } = node;
  return record(
    GraphField.node,
    ...inputs.map((input) => stringRecord(NodeField.input, input)),
    ...outputs.map((output) => stringRecord(NodeField.output, output)),
    stringRecord(NodeField.name, name),
    stringRecord(NodeField.opType, opType),
    ...Object.entries(attributes).flatMap(([key, value]) => attributeRecord(key, value)),
    ...(domain === '' ? [] : [stringRecord(NodeField.domain, domain)]),
  );
}

/** A `NodeProto.attribute` record. */
export function attributeRecord(name: string, value: AttributeValue): Piece[] {
  return record(NodeField.attribute, attribute(name, value));
}

function attribute(name: string, value: AttributeValue): Uint8Array {
  if ('raw' in value) return value.raw;
  return onnx.AttributeProto.encode({ name, ...typedValue(value) }).finish();
}

function typedValue(value: Exclude<AttributeValue, { readonly raw: Uint8Array }>) {
  if ('int' in value) return { type: AttributeType.INT, i: halves(value.int) };
  if ('float' in value) return { type: AttributeType.FLOAT, f: value.float };
  if ('text' in value) return { type: AttributeType.STRING, s: encodeString(value.text) };
  if ('floats' in value) return { type: AttributeType.FLOATS, floats: [...value.floats] };
  return { type: AttributeType.INTS, ints: value.ints.map(halves) };
}

/** An integer as onnx-proto takes it without rounding: numbers are exact up to 2^53. */
function halves(value: Integer) {
  if (typeof value === 'number') return value;
  const [low, high] = [value, value >> 32n].map((half) => Number(BigInt.asIntN(32, half)));
  return { low: low!, high: high!, unsigned: false };
}

/** A `GraphProto.initializer` record. The data may be large, so it is not copied into a message. */
export function initializerRecord(tensor: NewTensor): Piece[] {
  const raw = record(TensorField.rawData, tensor.data);
  return record(GraphField.initializer, tensorHeader(tensor), ...raw);
}

/** A `GraphProto.initializer` record of a tensor whose bytes are in a file beside the model. */
export function externalInitializerRecord(
  tensor: Omit<NewTensor, 'data'>,
  place: { location: string; offset: number; length: number },
): Piece[] {
  const entries = Object.entries(place).flatMap(([key, value]) =>
    record(
      TensorField.externalData,
      stringRecord(EntryField.key, key),
      stringRecord(EntryField.value, String(value)),
    ),
  );
  const location = Uint8Array.of(TensorField.dataLocation * 8, EXTERNAL);
  return record(GraphField.initializer, tensorHeader(tensor), ...entries, location);
}

/** `TensorProto.DataLocation` */
const EXTERNAL = 1;

function tensorHeader({ name, dims, dtype }: Omit<NewTensor, 'data'>): Uint8Array {
  const dataType = dataTypeNumber(dtype);
  const header = onnx.TensorProto.encode({ dims: [...dims], dataType }).finish();
  // onnx-proto would turn the bytes of a name that is not UTF-8 into others.
  return Buffer.concat([header, stringRecord(TensorField.name, name)]);
}

/** A `GraphProto.input` record of a tensor; sizes may be symbols or open. */
export function inputRecord(name: string, dtype: DataTypeName, shape: readonly Dim[]): Piece[] {
  return valueRecord(GraphField.input, name, dtype, shape);
}

/** A `GraphProto.output` record of a tensor; sizes may be symbols or open. */
export function outputRecord(name: string, dtype: DataTypeName, shape: readonly Dim[]): Piece[] {
  return valueRecord(GraphField.output, name, dtype, shape);
}

function valueRecord(
  field: number,
  name: string,
  dtype: DataTypeName,
  shape: readonly Dim[],
): Piece[] {
  const dim = shape.map((size) => {
    if (size === null) return {};
    return typeof size === 'number' ? { dimValue: size } : { dimParam: size };
  });
  const type = { tensorType: { elemType: dataTypeNumber(dtype), shape: { dim } } };
  const nameRecord = stringRecord(ValueInfoField.name, name);
  return record(field, nameRecord, onnx.ValueInfoProto.encode({ type }).finish());
}

/** A `ModelProto.metadata_props` record. */
export function metadataRecord(key: string, value: string): Piece[] {
  return record(
    ModelField.metadataProps,
    stringRecord(EntryField.key, key),
    stringRecord(EntryField.value, value),
  );
}
