import { describe, expect, it } from 'vitest';
import { sideBySide } from '../../cli/side-by-side.js';

const heading = (text: string) => text;
const [left, right] = [
  { title: 'tuned', text: 'The whale is a large animal that lives in the sea and sings.\n\nYes.' },
  { title: 'base', text: '日本語日本語日本語日本語日本語日本語日本語日本語' },
];

describe('two texts', () => {
  it('stand in columns that no line leaves', () => {
    expect(sideBySide(left, right, { width: 79, heading }).split('\n')).toEqual([
      'tuned                                  │ base                                  ',
      'The whale is a large animal that lives │ 日本語日本語日本語日本語日本語日本語日',
      'in the sea and sings.                  │ 本語日本語',
      '                                       │',
      'Yes.                                   │',
      '',
    ]);
  });

  it('stand one after the other where there is no room, or no terminal', () => {
    for (const width of [60, undefined]) {
      expect(sideBySide(left, right, { width, heading })).toBe(
        `tuned\n${left.text}\n\nbase\n${right.text}\n`,
      );
    }
  });

  it('do not move the cursor', () => {
    const page = sideBySide(left, { title: 'base', text: 'a\u001b[2Jb' }, { width: 100, heading });
    expect(page).toContain('a\\u001b[2Jb');
  });
});
