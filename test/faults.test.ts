/** A short round of `npm run faults`. */
import { expect, it } from 'vitest';
import { faults } from '../scripts/faults/faults.js';

it('kills, full disks and rivals tear nothing and lose nothing', async () => {
  const counts = await faults({ seed: 3, seconds: 0 });
  expect(counts).toMatchObject({ torn: 0, leftovers: 0, bad: [] });
  expect(counts.resumedEqual).toBe(counts.resumed);
  expect(counts.kills).toBeGreaterThan(0);
  expect(counts.broken).toBeGreaterThan(0);
});
