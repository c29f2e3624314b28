import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { OnnxLoraError } from '../../src/errors.js';
import { openSafetensors, parseSafetensors } from '../../src/formats/safetensors.js';
import { encodeSafetensors, type SafetensorsTensor } from '../../src/formats/safetensors-output.js';
import { byteLength, type DataTypeName, fromFloat64 } from '../../src/onnx/dtype.js';

/** Written by the safetensors package 0.8.0 for Python: w (float16), b (int64), z (0 × 3). */
const fromPython = Buffer.from(
  '2AAAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyLDqSI6IlxuIiwiZm9ybWF0IjoicHQifSwiYiI6eyJkdHlwZSI6Ikk2NC' +
    'IsInNoYXBlIjpbMl0sImRhdGFfb2Zmc2V0cyI6WzAsMTZdfSwieiI6eyJkdHlwZSI6IkYzMiIsInNoYXBlIjpbMCwz' +
    'XSwiZGF0YV9vZmZzZXRzIjpbMTYsMTZdfSwidyI6eyJkdHlwZSI6IkYxNiIsInNoYXBlIjpbMiwyXSwiZGF0YV9vZm' +
    'ZzZXRzIjpbMTYsMjRdfX0gICAgICABAAAAAAAAAAAAAAAAAQAAAD4AwAAAAEI=',
  'base64',
);

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'safetensors-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

function save(bytes: Uint8Array): string {
  const path = join(directory, 'file.safetensors');
  writeFileSync(path, bytes);
  return path;
}

function errorOf(run: () => unknown): OnnxLoraError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(OnnxLoraError);
    expect((error as Error).message).not.toContain('\n');
    expect((error as Error).message.length).toBeLessThan(600);
    return error as OnnxLoraError;
  }
  throw new Error('expected an error');
}

function file(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = typeof header === 'string' ? Buffer.from(header) : header;
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([length, bytes, data]);
}

/** The message for a header over `dataBytes` zeros, checked to be the same from disk. */
function messageFor(header: unknown, dataBytes = 0): string {
  const text = typeof header === 'string' ? header : JSON.stringify(header);
  const bytes = file(text, new Uint8Array(dataBytes));
  const error = errorOf(() => parseSafetensors(bytes, 'a.safetensors'));
  expect(error.code).toBe('invalid-adapter');
  expect(error.message).toMatch(/^a\.safetensors: /);
  const path = save(bytes);
  const fromDisk = errorOf(() => openSafetensors(path));
  expect(fromDisk.message).toBe(error.message.replace('a.safetensors', path));
  return error.message.replace('a.safetensors: ', '');
}

function u8(start: number, end: number) {
  return { dtype: 'U8', shape: [end - start], data_offsets: [start, end] };
}

const small = encodeSafetensors(
  [
    { name: 'a', dtype: 'float32', shape: [2], data: new Uint8Array(8).fill(1) },
    { name: 'b', dtype: 'uint8', shape: [3], data: new Uint8Array(3).fill(2) },
  ],
  { format: 'pt' },
);

const writable: DataTypeName[] = [
  'bool',
  'uint8',
  'int16',
  'float16',
  'bfloat16',
  'float32',
  'float64',
  'int64',
  'float8e4m3fn',
  'complex64',
];

const anyTensor = fc
  .record({
    name: fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.nat(20).map(String),
      fc.constantFrom('__proto__', 'constructor', '"\\'),
    ),
    dtype: fc.constantFrom(...writable),
    shape: fc.array(fc.nat(4), { maxLength: 3 }),
  })
  .chain(({ name, dtype, shape }) => {
    const length = byteLength(
      dtype,
      shape.reduce((a, b) => a * b, 1),
    );
    const data = fc.uint8Array({ minLength: length, maxLength: length });
    return data.map((bytes): SafetensorsTensor => ({ name, dtype, shape, data: bytes }));
  });

const anyTensors = fc
  .uniqueArray(anyTensor, { selector: ({ name }) => name, maxLength: 6 })
  .filter((tensors) => tensors.every(({ name }) => name !== '__metadata__'));

describe('reading', () => {
  it('reads a part of a tensor', () => {
    const path = save(small);
    for (const opened of [parseSafetensors(small), openSafetensors(path)]) {
      expect([...opened.read('b', 1)]).toEqual([2, 2]);
      expect([...opened.read('b', 1, 2)]).toEqual([2]);
      expect([...opened.read('a', 4, 4)]).toEqual([]);
      expect(() => opened.read('a', 0, 9)).toThrow(RangeError);
      opened.close();
    }
  });

  it('reads what the reference implementation wrote', () => {
    for (const opened of [parseSafetensors(fromPython), openSafetensors(save(fromPython))]) {
      expect(opened.metadata).toEqual({ format: 'pt', é: '\n' });
      expect([...opened.tensors.keys()].sort()).toEqual(['b', 'w', 'z']);
      expect(opened.tensors.get('w')).toMatchObject({ dtype: 'float16', shape: [2, 2] });
      expect(opened.readFloat32('w')).toEqual(Float32Array.of(1.5, -2, 0, 3));
      expect(opened.readFloat64('w')).toEqual(Float64Array.of(1.5, -2, 0, 3));
      const integers = new BigInt64Array(new Uint8Array(opened.read('b')).buffer);
      expect([...integers]).toEqual([1n, 2n ** 40n]);
      expect(opened.readFloat32('z')).toHaveLength(0);
      opened.close();
    }
  });

  it('converts F64, F32, F16 and BF16 to floats', () => {
    const values = Float64Array.of(1, -0.5, 2.25);
    const dtypes = ['bfloat16', 'float16', 'float32', 'float64'] as const;
    const tensors = dtypes.map((dtype) => {
      return { name: dtype, dtype, shape: [3], data: fromFloat64(dtype, values) };
    });
    const opened = parseSafetensors(encodeSafetensors(tensors));
    for (const dtype of dtypes) {
      expect(opened.readFloat64(dtype)).toEqual(values);
      expect(opened.readFloat32(dtype)).toEqual(Float32Array.from(values));
    }
  });

  it('accepts a file without tensors, and metadata that is null', () => {
    expect(parseSafetensors(file('{}')).tensors.size).toBe(0);
    expect(parseSafetensors(file('{"__metadata__":null}   ')).metadata).toEqual({});
  });

  it('accepts fields it does not know and equal keys in different objects', () => {
    const header = { a: { ...u8(0, 1), note: { dtype: [{}] } }, dtype: u8(1, 2) };
    const opened = parseSafetensors(file(JSON.stringify(header), new Uint8Array(2)));
    expect([...opened.tensors.keys()]).toEqual(['a', 'dtype']);
  });

  it('lists tensors in the order of their bytes', () => {
    const bytes = file(JSON.stringify({ a: u8(2, 3), b: u8(0, 2) }), Uint8Array.of(1, 2, 3));
    const opened = parseSafetensors(bytes);
    expect([...opened.tensors.keys()]).toEqual(['b', 'a']);
    expect([...opened.read('a')]).toEqual([3]);
  });
});

describe('writing', () => {
  it('writes the bytes the reference implementation tests for', () => {
    const data = fromFloat64('float32', Float64Array.of(0, 1, 2, 3, 4, 5));
    const bytes = encodeSafetensors([
      { name: 'attn0', dtype: 'float32', shape: [1, 1, 2, 3], data },
    ]);
    const header = '{"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}}       ';
    expect(Buffer.from(bytes)).toEqual(file(header, data));
    expect(Buffer.from(encodeSafetensors([]))).toEqual(file('{}      '));
  });

  it('brings back any tensors and metadata, in the order given, from memory and from disk', () => {
    const anyMetadata = fc.dictionary(fc.string(), fc.string({ unit: 'binary' }));
    fc.assert(
      fc.property(anyTensors, anyMetadata, (tensors, metadata) => {
        const bytes = encodeSafetensors(tensors, metadata);
        for (const opened of [parseSafetensors(bytes), openSafetensors(save(bytes))]) {
          expect({ ...opened.metadata }).toEqual({ ...metadata });
          expect(opened.tensors.size).toBe(tensors.length);
          for (const { name, dtype, shape, data } of tensors) {
            expect(opened.tensors.get(name)).toMatchObject({ dtype, shape });
            expect(new Uint8Array(opened.read(name))).toEqual(data);
          }
          opened.close();
        }
        const order = parseSafetensors(bytes).tensors.keys();
        const filled = new Set(tensors.filter(({ data }) => data.length > 0).map((t) => t.name));
        expect([...order].filter((name) => filled.has(name))).toEqual([...filled]);
        expect(new DataView(bytes.buffer).getBigUint64(0, true) % 8n).toBe(0n);
      }),
      { numRuns: 300 },
    );
  });

  it.each([
    ['a name twice', { name: 'a' }, 'tensor "a" is given twice'],
    ['the reserved name', { name: '__metadata__' }, 'has the name of the metadata'],
    ['a type it lacks', { name: 'b', dtype: 'int4' as const }, 'has type int4'],
    ['data too short', { name: 'b', shape: [3] }, 'U8 [3] takes 3 bytes, its data has 2'],
    ['a negative shape', { name: 'b', shape: [-2, -1] }, 'has shape [-2,-1]'],
    ['half a byte', { name: 'b', dtype: 'float4e2m1' as const, shape: [3] }, 'whole bytes'],
  ])('refuses %s', (_, change, message) => {
    const tensor = { name: 'a', dtype: 'uint8' as const, shape: [2], data: new Uint8Array(2) };
    const error = errorOf(() => encodeSafetensors([tensor, { ...tensor, ...change }]));
    expect(error.code).toBe('invalid-adapter');
    expect(error.message).toContain(message);
  });
});

describe('bad files', () => {
  it('refuses a file cut short anywhere, in the header or in the data', () => {
    for (let length = 0; length < small.length; length++) {
      const cut = small.subarray(0, length);
      expect(errorOf(() => parseSafetensors(cut)).code).toBe('invalid-adapter');
      expect(errorOf(() => openSafetensors(save(cut))).code).toBe('invalid-adapter');
    }
    expect(parseSafetensors(small).tensors.size).toBe(2);
  });

  it('never throws anything else for a file with bytes changed', () => {
    const anyChange = fc.array(fc.tuple(fc.nat(small.length - 1), fc.nat(255)), { minLength: 1 });
    fc.assert(
      fc.property(anyChange, (changes) => {
        const bytes = small.slice();
        for (const [at, value] of changes) bytes[at] = value;
        try {
          const opened = parseSafetensors(bytes);
          for (const name of opened.tensors.keys()) opened.read(name);
        } catch (error) {
          expect((error as OnnxLoraError).code).toBe('invalid-adapter');
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('refuses a header longer than the file or than the limit before reading it', () => {
    const lying = small.slice();
    const view = new DataView(lying.buffer);
    view.setBigUint64(0, BigInt(small.length - 7), true);
    expect(errorOf(() => parseSafetensors(lying)).message).toContain('is cut short');
    for (const length of [100_000_001n, 2n ** 63n, 2n ** 64n - 1n]) {
      view.setBigUint64(0, length, true);
      const { message } = errorOf(() => openSafetensors(save(lying)));
      expect(message).toContain(`says its header has ${length} bytes`);
    }
  });

  it('refuses bytes after the tensors', () => {
    const { message } = errorOf(() => parseSafetensors(Buffer.concat([small, Buffer.alloc(1)])));
    expect(message).toContain('its tensors take 11 bytes, its data has 12');
  });

  it('refuses headers that are not a JSON object in UTF-8', () => {
    expect(messageFor('')).toContain('starts with ""');
    expect(messageFor('[]')).toContain('starts with "["');
    expect(messageFor('\ufeff{}')).toContain('expected "{"');
    for (const text of ['{', '{}x', '{"a"}', '{"a', '{"\\', '{"\\q":1}', '{]', '{"a":{}}}']) {
      expect(messageFor(text)).toContain('not valid JSON');
    }
    const error = errorOf(() => parseSafetensors(file(Uint8Array.of(0x7b, 0xff, 0x7d))));
    expect(error.message).toContain('not valid UTF-8');
  });

  it('refuses deep nesting without following it', () => {
    expect(messageFor(`{"a":${'['.repeat(1_000_000)}`)).toContain('more than 16 levels');
  });

  it.each([
    ['tensors', `{"a":${JSON.stringify(u8(0, 1))},"a":${JSON.stringify(u8(0, 1))}}`, '"a"'],
    ['escaped names', '{"a":1, "\\u0061" : 2}', '"a"'],
    ['fields', '{"a":{"dtype":"U8","dtype":"I8"}}', '"dtype"'],
    ['metadata', '{"__metadata__":{"k":"a","x":"k","k":"b"}}', '"k"'],
    ['metadata objects', '{"__metadata__":{},"__metadata__":{}}', '"__metadata__"'],
    ['__proto__', '{"__proto__":1,"__proto__":2}', '"__proto__"'],
  ])('refuses duplicate keys: %s', (_, header, key) => {
    expect(messageFor(header, 1)).toBe(`its header has the key ${key} twice`);
  });

  it('refuses metadata that is not strings', () => {
    expect(messageFor({ __metadata__: { a: 1 } })).toContain('found 1 for "a"');
    expect(messageFor({ __metadata__: [] })).toContain('found []');
  });

  it.each([
    ['an unknown type', { dtype: 'F7' }, 'has dtype "F7", expected one of BOOL, '],
    ['a type named as a property of objects', { dtype: 'constructor' }, 'has dtype "constructor"'],
    ['no type', { dtype: undefined }, 'has dtype nothing'],
    ['a negative size', { shape: [-4] }, 'has shape [-4]'],
    ['a fraction', { shape: [0.5, 8] }, 'has shape [0.5,8]'],
    ['a size beyond safe integers', { shape: [2 ** 53] }, 'has shape [9007199254740992]'],
    ['a product beyond safe integers', { shape: [2 ** 40, 2 ** 40] }, 'which is too large'],
    ['an overflow times zero', { shape: [2 ** 40, 2 ** 40, 0] }, 'which is too large'],
    ['no shape', { shape: null }, 'has shape null'],
    ['a size that is text', { shape: ['4'] }, 'has shape ["4"]'],
    ['too few elements', { shape: [3] }, 'U8 [3] takes 3 bytes, its data_offsets span 4'],
    ['a wider type', { dtype: 'F32' }, 'F32 [4] takes 16 bytes, its data_offsets span 4'],
    ['negative offsets', { data_offsets: [-4, 0] }, 'has data_offsets [-4,0]'],
    ['offsets reversed', { data_offsets: [4, 0] }, 'has data_offsets [4,0]'],
    ['three offsets', { data_offsets: [0, 4, 4] }, 'has data_offsets [0,4,4]'],
    ['offsets past the end', { data_offsets: [1, 5] }, 'ends at byte 5 of the data, which has 4'],
    ['half a byte', { dtype: 'F4', shape: [7] }, 'do not fill whole bytes'],
  ])('refuses %s', (_, change, message) => {
    const found = messageFor({ 'a.b': { ...u8(0, 4), ...change } }, 4);
    expect(found).toMatch(/^tensor "a\.b" /);
    expect(found).toContain(message);
  });

  it('refuses a tensor that is not an object', () => {
    expect(messageFor({ a: null })).toBe('tensor "a" must be described by an object, found null');
  });

  it('refuses tensors that overlap or leave holes', () => {
    expect(messageFor({ a: u8(0, 3), b: u8(2, 4) }, 4)).toBe(
      'tensor "b" overlaps another tensor: it starts at byte 2, expected 3',
    );
    expect(messageFor({ a: u8(0, 4), b: u8(0, 4) }, 4)).toContain('overlaps');
    expect(messageFor({ a: u8(0, 1), b: u8(2, 4) }, 4)).toContain('leaves a hole before it');
    expect(messageFor({ a: u8(1, 4) }, 4)).toContain('leaves a hole');
    expect(messageFor({ a: u8(0, 3) }, 4)).toBe('its tensors take 3 bytes, its data has 4');
  });

  it('keeps an error about a huge name on one short line', () => {
    expect(messageFor({ [`\n${'x'.repeat(10_000)}`]: {} }).length).toBeLessThan(400);
  });

  it('tells a Git LFS pointer and a PyTorch file apart', () => {
    const pointer = Buffer.from('version https://git-lfs.github.com/spec/v1\n');
    expect(errorOf(() => parseSafetensors(pointer)).hint).toContain('git lfs pull');
    const zip = Buffer.from('PK\x03\x04\x00\x00\x08\x08 archive');
    expect(errorOf(() => parseSafetensors(zip)).hint).toContain('PyTorch');
  });
});

describe('files', () => {
  it('tells a missing file and a directory from a bad one', () => {
    const missing = join(directory, 'missing');
    const error = errorOf(() => openSafetensors(missing));
    expect(error.code).toBe('file-not-found');
    expect(error.message).toContain(missing);
    expect(errorOf(() => openSafetensors(join(save(small), 'x'))).code).toBe('file-not-found');
    const folder = join(directory, 'folder');
    mkdirSync(folder);
    expect(errorOf(() => openSafetensors(folder)).code).toBe('not-a-file');
  });

  it('names the tensor that is missing or has no floats', () => {
    const opened = parseSafetensors(small, 'a.safetensors');
    expect(errorOf(() => opened.read('c')).message).toContain('a.safetensors: has no tensor "c"');
    for (const run of [() => opened.readFloat32('b'), () => opened.readFloat64('b')]) {
      const error = errorOf(run);
      expect(error.code).toBe('invalid-adapter');
      expect(error.message).toContain('tensor "b" has dtype U8, expected F32, F64, F16 or BF16');
    }
  });

  it('reports a file that shrank after it was opened', () => {
    const path = save(small);
    const opened = openSafetensors(path);
    truncateSync(path, small.length - 2);
    expect([...opened.read('a')]).toEqual(Array(8).fill(1));
    const error = errorOf(() => opened.read('b'));
    expect(error.code).toBe('invalid-adapter');
    expect(error.message).toContain('ends 2 bytes early');
    opened.close();
  });

  it('can be closed twice and not read afterwards', () => {
    const opened = openSafetensors(save(small));
    opened.close();
    opened.close();
    expect(errorOf(() => opened.read('a')).message).toContain('after it was closed');
  });
});
