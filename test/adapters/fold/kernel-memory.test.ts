/** What a limit on the address space looks like to the fold. */
import { expect, it, vi } from 'vitest';
import { Kernel } from '../../../src/adapters/fold/kernel.js';

vi.mock('../../../src/web-assembly.js', async (original) => ({
  ...(await original<object>()),
  Instance: class {
    constructor() {
      throw new RangeError('Out of memory: Cannot allocate Wasm memory for new instance');
    }
  },
}));

it('a kernel without memory is the fault of a limit', () => {
  expect(() => Kernel.take()).toThrow(
    expect.objectContaining({
      code: 'runtime',
      message: expect.stringMatching(/^no memory to fold adapters in: Out of memory/),
      hint: expect.stringContaining('ulimit -v'),
    }),
  );
});
