import { expect, it } from 'vitest';
import { sparkline } from '../../cli/sparkline.js';

it('draws the least as the lowest bar and the most as the highest', () => {
  expect(sparkline([8, 4.5, 1])).toBe('█▅▁');
});

it('lies flat where nothing changes', () => {
  expect(sparkline([2, 2])).toBe('▁▁');
});

it('leaves a gap for what is not finite', () => {
  expect(sparkline([1, Number.NaN, 0])).toBe('█ ▁');
  expect(sparkline([Number.NaN])).toBe(' ');
});
