import { expect, test } from 'vitest';
import { verificationLines } from '../../cli/verification.js';

const checked = {
  ...{ samples: 3, maxAbsDiff: 0, maxRelDiff: 0, tolerance: 1e-4 },
  moved: { maxAbsDiff: 0, maxRelDiff: 0 },
};

test('outputs that agree where the adapters move nothing do not count as passed', () => {
  const reason = 'the adapters move nothing on these samples';
  const lines = verificationLines({ ...checked, passed: true, proven: false, reason });
  expect(lines[0]).toMatch(/tolerance 1\.0e-4, not proven$/);
  expect(lines[1]).toBe(`not proven: ${reason}. Other inputs may show more: --samples FILE`);
});

test('a fold that is proven has passed', () => {
  const lines = verificationLines({ ...checked, passed: true, proven: true });
  expect(lines).toEqual([expect.stringMatching(/, passed$/)]);
});
