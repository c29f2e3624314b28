import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { kernelModule } from '../../../scripts/wasm.js';
import { Kernel } from '../../../src/adapters/fold/kernel.js';

const COUNT = 40;
const LARGE = 2 ** 50;
// Where float64 numbers begin, behind so many of float32.
const AT = COUNT * 4;

it('is made of kernel.wat', async () => {
  const path = new URL('../../../src/adapters/fold/kernel-bytes.ts', import.meta.url);
  expect(readFileSync(path, 'utf8')).toBe(await kernelModule());
});

it('widens float32 without a change, and sums the squares', () => {
  const kernel = Kernel.take();
  const floats = fc.array(fc.float({ noNaN: true }), { maxLength: COUNT });
  fc.assert(
    fc.property(floats, (values) => {
      kernel.floats(0, values.length).set(values);
      const squares = kernel.functions.widen(0, AT, values.length);
      expect([...kernel.doubles(AT, values.length)]).toEqual(values);
      const expected = values.reduce((sum, value) => sum + value ** 2, 0);
      if (Number.isFinite(expected))
        expect(squares / (expected || 1)).toBeCloseTo(+(expected > 0), 12);
      else expect(squares).toBe(expected);
    }),
  );
  kernel.giveBack();
});

it('rounds float64 once to the nearest float32, and sums the squares of the changes', () => {
  const kernel = Kernel.take();
  const pairs = fc.array(
    fc.tuple(
      fc.float({ noNaN: true, min: -LARGE, max: LARGE }),
      fc.double({ noNaN: true, min: -LARGE, max: LARGE }),
    ),
    { maxLength: COUNT },
  );
  fc.assert(
    fc.property(pairs, (both) => {
      const [before, after] = [both.map(([x]) => x), both.map(([, x]) => x)];
      kernel.floats(0, both.length).set(before);
      kernel.doubles(AT, both.length).set(after);
      const squares = kernel.functions.narrow(AT, 0, both.length);
      expect([...kernel.floats(0, both.length)]).toEqual(after.map(Math.fround));
      const expected = both.reduce((sum, [x, y]) => sum + (y - x) ** 2, 0);
      expect(squares / (expected || 1)).toBeCloseTo(+(expected > 0), 12);
    }),
  );
  kernel.giveBack();
});
