import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { getFloat16 } from '@petamoriken/float16';
import { describe, expect, it } from 'vitest';
import type { DataTypeName } from '../../src/onnx/dtype.js';
import { dataTypeNumber, fromFloat64 } from '../../src/onnx/dtype.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { GraphField, ModelField, TensorField } from '../../src/onnx/fields.js';
import type { Model } from '../../src/onnx/model.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model } from '../support/models.js';
import {
  bytesField,
  concat,
  extend,
  fixed32Field,
  parse,
  varint,
  varintField,
} from '../support/wire.js';

const empty = model({ nodes: [], outputs: [] });

/** A model whose one tensor `t` is of this type and shape, with these records for its numbers. */
function holding(dtype: DataTypeName | number, dims: readonly number[], ...data: Uint8Array[]) {
  const dataType = typeof dtype === 'number' ? dtype : dataTypeNumber(dtype);
  const message = concat(
    ...dims.map((dim) => varintField(TensorField.dims, dim)),
    varintField(TensorField.dataType, dataType),
    bytesField(TensorField.name, 't'),
    ...data,
  );
  return extend(empty, [ModelField.graph], bytesField(GraphField.initializer, message));
}

function open(bytes: Uint8Array | Model) {
  const read = bytes instanceof Uint8Array ? parse(bytes) : bytes;
  const files = new ExternalFiles(read);
  const reader = new TensorReader(read, files);
  return { reader, tensor: read.graph.initializers.get('t')!, close: () => files.close() };
}

function float64(bytes: Uint8Array): number[] {
  const { reader, tensor } = open(bytes);
  return [...reader.float64(tensor)];
}

const numbers = [1.5, -2, 0, 2 ** -10];
const packed = (field: number, ...values: (number | bigint)[]) =>
  bytesField(field, concat(...values.map((value) => varint(value))));
const halves = [...new Uint16Array(fromFloat64('float16', Float64Array.from(numbers)).buffer)];
const singles = new Uint8Array(Float32Array.from(numbers).buffer);
const doubles = new Uint8Array(Float64Array.from(numbers).buffer);

describe('the numbers of a tensor', () => {
  it.each([1, 2, 3, 4])('are read from raw bytes at any alignment (%i)', (padding) => {
    const unaligned = bytesField(12, new Uint8Array(padding));
    expect(float64(holding('float32', [4], unaligned, bytesField(9, singles)))).toEqual(numbers);
    expect(float64(holding('float64', [4], unaligned, bytesField(9, doubles)))).toEqual(numbers);
  });

  it.each([
    ['float_data, packed', 'float32', [bytesField(4, singles)]],
    [
      'float_data, one a record',
      'float32',
      numbers.map((_, i) => fixed32Field(4, singles.subarray(4 * i, 4 * i + 4))),
    ],
    ['double_data', 'float64', [bytesField(10, doubles)]],
    ['int32_data of half precision', 'float16', [packed(5, ...halves)]],
    ['int32_data, one a record', 'float16', halves.map((half) => varintField(5, half))],
    [
      'int32_data in several runs',
      'float16',
      [packed(5, halves[0]!), packed(5, ...halves.slice(1))],
    ],
  ] as const)('are read from %s', (_, dtype, data) => {
    expect(float64(holding(dtype, [2, 2], ...data))).toEqual(numbers);
  });

  it.each([
    ['int8', packed(5, -1, 127), [255, 127]],
    ['uint8', packed(5, 200, 3), [200, 3]],
    ['uint4', packed(5, 0x21), [0x21]],
    ['int32', packed(5, -2), [254, 255, 255, 255]],
    ['int64', packed(7, -2n), [254, 255, 255, 255, 255, 255, 255, 255]],
    ['uint64', packed(11, 2n ** 63n), [0, 0, 0, 0, 0, 0, 0, 128]],
    ['uint32', packed(11, 2 ** 31), [0, 0, 0, 128]],
    ['bool', packed(5, 1, 0), [1, 0]],
  ] as const)('are the raw bytes of %s', (dtype, data, bytes) => {
    const count = { uint4: 2, int8: 2, uint8: 2, bool: 2 }[dtype as string] ?? 1;
    const { reader, tensor } = open(holding(dtype, [count], data));
    expect([...reader.bytes(tensor)]).toEqual(bytes);
  });

  it('of half precision are widened exactly', () => {
    const every = Uint16Array.from({ length: 0x7c00 }, (_, i) => i);
    const view = new DataView(every.buffer);
    const read = float64(
      holding('float16', [every.length], bytesField(9, new Uint8Array(every.buffer))),
    );
    expect(read).toEqual(Array.from(every, (_, i) => getFloat16(view, 2 * i, true)));
  });

  it('may be none', () => {
    expect(float64(holding('float32', [0, 7]))).toEqual([]);
    expect(float64(holding('float32', [2 ** 50, 2 ** 50, 0], bytesField(9, '')))).toEqual([]);
  });
});

describe('external data', () => {
  const files = temporaryFolder();
  const data = 'w.data';
  function stored(entries: Record<string, string | number>) {
    const records = Object.entries(entries).map(([key, value]) =>
      bytesField(13, concat(bytesField(1, key), bytesField(2, String(value)))),
    );
    const path = files.write(holding('float32', [4], ...records, varintField(14, 1)));
    writeFileSync(join(dirname(path), data), concat(new Uint8Array(3), singles, new Uint8Array(5)));
    return openModel(path);
  }

  it('is read with or without a length', () => {
    for (const length of [{ length: 16 }, {}]) {
      const external = stored({ location: data, offset: 3, ...length });
      const { reader, tensor, close } = open(external);
      expect([...reader.float64(tensor)]).toEqual(numbers);
      close();
      external.close();
    }
  });

  it.each([
    [
      'a length that does not fit the shape',
      { offset: 3, length: 12 },
      'invalid-model',
      'needs 16 bytes of float32, found 12 (length)',
    ],
    ['an offset beyond the end', { offset: 900 }, 'external-data', 'needs bytes 900 to 916'],
    ['an end beyond the end', { offset: 12, length: 16 }, 'external-data', 'needs bytes 12 to 28'],
  ] as const)('is refused with %s', async (_, entries, code, problem) => {
    const external = stored({ location: data, ...entries });
    const { reader, tensor, close } = open(external);
    const { message } = await failure(() => reader.bytes(tensor), code);
    expect(message).toContain('tensor t ');
    expect(message).toContain(problem);
    close();
    external.close();
  });

  it.each(['-1', '1e3', '0x10', 'four\nlines', '99999999999999999999'])(
    'is refused with the offset %j',
    async (offset) => {
      const { message } = await failure(() => stored({ location: data, offset }), 'invalid-model');
      expect(message).toContain(`a numeric offset, found ${JSON.stringify(offset)}`);
    },
  );
});

describe('a tensor that is damaged or not understood', () => {
  const string = bytesField(6, 'text');
  it.each([
    [
      'raw data too short',
      holding('float32', [2, 3], bytesField(9, singles)),
      'invalid-model',
      't of shape [2, 3] needs 24 bytes of float32, found 16 (raw_data)',
    ],
    [
      'raw data too long',
      holding('int8', [2], bytesField(9, singles)),
      'invalid-model',
      'needs 2 bytes of int8, found 16',
    ],
    [
      'typed data too short',
      holding('float16', [5], packed(5, ...halves)),
      'invalid-model',
      'needs 10 bytes of float16, found 8 (typed data)',
    ],
    [
      'no data',
      holding('float32', [2]),
      'invalid-model',
      'needs 8 bytes of float32, found 0 (no data)',
    ],
    [
      'more elements than a number can count',
      holding('float32', Array(40).fill(2 ** 40), bytesField(9, singles)),
      'invalid-model',
      'needs Infinity bytes',
    ],
    [
      'segments',
      holding('float32', [2], bytesField(3, varintField(1, 0)), bytesField(9, singles)),
      'unsupported',
      'tensor t is stored in segments',
    ],
    ['strings', holding('string', [1], string), 'unsupported', 'tensor t holds strings'],
    [
      'strings in a numeric type',
      holding('float32', [1], string),
      'unsupported',
      'tensor t holds strings',
    ],
    [
      'an unknown type',
      holding(99, [1], bytesField(9, singles)),
      'unsupported',
      'tensor t has data type 99',
    ],
  ] as const)('is refused: %s', async (_, bytes, code, problem) => {
    const { reader, tensor } = open(bytes);
    expect((await failure(() => reader.bytes(tensor), code)).message).toContain(problem);
  });
});
