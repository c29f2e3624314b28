import fc from 'fast-check';
import { expect, test } from 'vitest';
import { tensorToFloat64 } from '../../src/runtime/tensor-value.js';

test('64-bit integers become the nearest doubles', () => {
  fc.assert(
    fc.property(fc.bigInt64Array(), (data) => {
      const values = tensorToFloat64({ dtype: 'int64', dims: [data.length], data });
      expect(values).toEqual(Float64Array.from(data, Number));
    }),
  );
  fc.assert(
    fc.property(fc.bigUint64Array(), (data) => {
      const values = tensorToFloat64({ dtype: 'uint64', dims: [data.length], data });
      expect(values).toEqual(Float64Array.from(data, Number));
    }),
  );
});
