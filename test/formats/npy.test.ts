import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseNpyHeader } from '../../src/formats/npy.js';
import { failure } from '../support/files.js';
import { npy, npyWithHeader } from './npz-writer.js';

const numbers = {
  '|b1': 'bool',
  '|i1': 'int8',
  '|u1': 'uint8',
  '<i2': 'int16',
  '<u2': 'uint16',
  '<i4': 'int32',
  '<u4': 'uint32',
  '<i8': 'int64',
  '<u8': 'uint64',
  '<f2': 'float16',
  '<f4': 'float32',
  '<f8': 'float64',
} as const;

async function refusal(bytes: Uint8Array): Promise<string> {
  return (await failure(() => parseNpyHeader(bytes, 'a.npz: array x'), 'invalid-data')).message;
}

describe('parseNpyHeader', () => {
  it.each(Object.entries(numbers))('knows %s as %s', (descr, dtype) => {
    expect(parseNpyHeader(npy(descr, [2, 3], new Uint8Array(0)), 'x')).toMatchObject({
      dtype,
      shape: [2, 3],
    });
  });

  it('finds the elements behind headers of every version, whatever the shape', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(1000), { maxLength: 5 }),
        fc.constantFrom(1, 2, 3),
        (shape, version) => {
          const bytes = npy('<f8', shape, Uint8Array.of(7), { version });
          const header = parseNpyHeader(bytes, 'x');
          const count = shape.reduce((a, b) => a * b, 1);
          expect(header).toMatchObject({ dtype: 'float64', shape, dataBytes: 8 * count });
          expect(bytes[header.dataStart]).toBe(7);
          expect(header.dataStart).toBe(bytes.length - 1);
        },
      ),
    );
  });

  it('reads dicts as other writers have them', () => {
    const header = '{"shape":(3L,),"fortran_order":False,"descr":"<f4"}';
    expect(parseNpyHeader(npyWithHeader(header), 'x')).toMatchObject({ shape: [3] });
  });

  it('takes Fortran order where it is the same as C order', () => {
    const bytes = npy('<f4', [1, 5, 1], new Uint8Array(0), { fortran: true });
    expect(parseNpyHeader(bytes, 'x').shape).toEqual([1, 5, 1]);
  });

  it.each([
    ['>f4', 'is big-endian (>f4), expected little-endian'],
    ['|O', 'holds Python objects (|O), expected numbers'],
    ['<U3', 'holds strings (<U3), expected numbers'],
    ['|S8', 'holds strings (|S8), expected numbers'],
    ['|V2', 'holds raw bytes (|V2), expected numbers'],
    ['<c8', 'holds complex numbers (<c8), expected numbers'],
    ['<M8[ns]', 'holds dates (<M8[ns]), expected numbers'],
    ['<f16', 'holds elements of type "<f16", expected numbers'],
    ["[('id', '<i4'), ('x', '<f4')]", 'holds records, expected numbers'],
  ])('refuses %s', async (descr, reason) => {
    expect(await refusal(npy(descr, [2], new Uint8Array(0)))).toBe(`a.npz: array x ${reason}`);
  });

  it.each([
    ['{}', /has the header "\{\}", expected a dict of descr, fortran_order, shape/],
    ["{'descr': '<f4', 'shape': (2,)}", /expected a dict of/],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': __import__('os')}", /expected a dict of/],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", /expected a dict of/],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (1,,2)}", /expected a tuple of sizes/],
    [
      "{'descr': '<f4', 'fortran_order': False, 'shape': 'x'}",
      /has the shape 'x', expected a tuple/,
    ],
    [
      "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 99999999)}",
      /has shape \(99999999, 99999999\), which is too large/,
    ],
  ])('refuses the header %s', async (header, reason) => {
    expect(await refusal(npyWithHeader(header))).toMatch(reason);
  });

  it('refuses Fortran order with what to do', async () => {
    const bytes = npy('<f4', [2, 3], new Uint8Array(0), { fortran: true });
    const error = await failure(() => parseNpyHeader(bytes, 'a.npz: array x'), 'invalid-data');
    expect(error.message).toBe('a.npz: array x is in Fortran order, expected C order');
    expect(error.hint).toContain('ascontiguousarray');
  });

  it('refuses what is cut short, of another version, or no .npy file', async () => {
    const whole = npy('<f4', [2], new Uint8Array(8));
    expect(await refusal(whole.subarray(0, 40))).toContain('it ends within its header');
    expect(await refusal(whole.subarray(0, 9))).toContain('it ends within its header');
    const version4 = npy('<f4', [2], new Uint8Array(8), { version: 4 });
    expect(await refusal(version4)).toContain('has version 4 of the .npy format');
    expect(await refusal(Buffer.from('hello'))).toContain('does not start with the word NUMPY');
    const huge = npy('<f4', [2], new Uint8Array(8), { version: 2 });
    new DataView(huge.buffer, huge.byteOffset).setUint32(8, 2 ** 31, true);
    expect(await refusal(huge)).toContain('its header has 2147483648 bytes');
  });
});
