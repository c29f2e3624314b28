import { describe, expect, it } from 'vitest';
import {
  cursorOf,
  readDeltas,
  readRuns,
  varint,
  zigzag,
} from '../../../../src/data/rows/parquet/bits.js';

const cursor = (...bytes: number[]) => cursorOf(Uint8Array.from(bytes));

describe('runs', () => {
  it('repeat a number, or pack eight at a time', () => {
    const output = new Uint8Array(11);
    // Three times 5; then 0 to 7 in three bits each, the example of the format.
    readRuns(cursor(6, 5, 3, 0b10001000, 0b11000110, 0b11111010), 3, output);
    expect([...output]).toEqual([5, 5, 5, 0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('fill no more than there is room for, whatever they say', () => {
    const output = new Uint8Array(4);
    readRuns(cursor(0xfe, 0xff, 0xff, 0xff, 0x0f, 1), 1, output);
    expect([...output]).toEqual([1, 1, 1, 1]);
  });

  it('end with their bytes', () => {
    expect(() => readRuns(cursor(2, 1), 1, new Uint8Array(9))).toThrow(RangeError);
    expect(() => readRuns(cursor(0, 1), 1, new Uint8Array(9))).toThrow(RangeError);
  });
});

describe('differences', () => {
  it('add up from the first number', () => {
    // Blocks of 8 in 1 part; 7, and from there 1 more each time: the example of the format.
    const first = cursor(8, 1, 5, 14, 2, 0);
    expect(readDeltas(first, 5, 64)).toEqual([7n, 8n, 9n, 10n, 11n]);
  });

  it('in no parts, or of too many bits, are refused', () => {
    expect(() => readDeltas(cursor(8, 0, 5, 14, 2, 0), 5, 32)).toThrow(RangeError);
    expect(() => zigzag(cursor(...Array.from({ length: 1000 }, () => 0x80)))).toThrow('64 bits');
    expect(() => varint(cursor(...Array.from({ length: 1000 }, () => 0x80)))).toThrow('32 bits');
  });
});
