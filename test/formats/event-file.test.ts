import { describe, expect, it } from 'vitest';
import { crc32, crc32c } from '../../src/formats/crc32.js';
import { fileHeader, scalarRecord } from '../../src/formats/event-file.js';

describe('checksums', () => {
  const digits = Buffer.from('123456789');

  it('are those of the standards', () => {
    // The check values of the CRC catalogue.
    expect(crc32(digits).toString(16)).toBe('cbf43926');
    expect(crc32c(digits).toString(16)).toBe('e3069283');
  });
});

describe('an event file', () => {
  // What TensorBoard's own EventFileWriter writes for the same numbers.
  it('starts with its version', () => {
    const expected =
      '1800000000000000a37f4b22' +
      '09000000000000f83f' +
      '1a0d627261696e2e4576656e743a32' +
      '2a28646c';
    expect(hex(fileHeader(1.5))).toBe(expected);
  });

  it('holds numbers with their tags', () => {
    const bytes = scalarRecord({ time: 2.5, step: 7, scalars: { 'train/loss': 0.25 } });
    const expected =
      '200000000000000029eda950' +
      '09000000000000044010072a130a110a0a747261696e2f6c6f7373150000803e' +
      '083ded8e';
    expect(hex(bytes)).toBe(expected);
  });
});

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
