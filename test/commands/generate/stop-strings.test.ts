import { describe, expect, it } from 'vitest';
import { StopStrings } from '../../../src/commands/generate/stop-strings.js';

function run(stops: readonly string[], pieces: readonly string[]) {
  const strings = new StopStrings(stops);
  const out = pieces.map((piece) => strings.push(piece));
  return { out, rest: strings.end(), stopped: strings.stopped };
}

describe('a stop string', () => {
  it('ends the text before it, although it comes in parts', () => {
    const { out, stopped } = run(['END'], ['one ', 'E', 'N', 'D', ' two']);
    expect(out).toEqual(['one ', '', '', '', '']);
    expect(stopped).toBe(true);
  });

  it('that does not come holds nothing back for long', () => {
    expect(run(['END'], ['one E', 'N', 'OUGH'])).toEqual({
      out: ['one ', '', 'ENOUGH'],
      rest: '',
      stopped: false,
    });
    expect(run(['END'], ['one EN']).rest).toBe('EN');
  });

  it('may overlap with itself and with others; the first in the text counts', () => {
    expect(run(['aab'], ['aa', 'ab']).out).toEqual(['', 'a']);
    expect(run(['later', 'early'], ['x early later']).out).toEqual(['x ']);
  });
});
