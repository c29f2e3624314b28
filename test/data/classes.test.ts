import { describe, expect, it } from 'vitest';
import { classList, readClassFile, sortedClasses } from '../../src/data/classes.js';
import { failure, temporaryFolder } from '../support/files.js';

const folder = temporaryFolder();
const read = (text: string) => readClassFile(folder.write(Buffer.from(text), 'classes.txt'));

describe('a file of classes', () => {
  it('has a name on each line, whatever ends it', () => {
    expect(read('\uFEFFso so\r\nbad\r\n')).toEqual(['so so', 'bad']);
    expect(read('b\na')).toEqual(['b', 'a']);
  });

  it.each([
    ['a\n\nb\n', /classes\.txt:2: the line is empty$/],
    ['a\nb\na\n', /classes\.txt:3: the line repeats "a" of line 1$/],
    ['', /classes\.txt:1: the line is empty$/],
  ])('as %j is told', async (text, problem) => {
    expect((await failure(() => read(text), 'invalid-data')).message).toMatch(problem);
  });
});

it('classes are sorted by their characters, in no language', () => {
  expect(sortedClasses(['b', 'ä', 'B', 'a', '10', '9'])).toEqual(['10', '9', 'B', 'a', 'b', 'ä']);
});

it('lists of many classes are cut', () => {
  const names = Array.from({ length: 12 }, (_, i) => `c${i}`);
  expect(classList(names)).toBe('c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, .. (12)');
});
