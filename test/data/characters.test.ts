import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Characters } from '../../src/data/characters.js';

function dictionary(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'characters-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'chars.txt');
  writeFileSync(path, text);
  return path;
}

describe('a dictionary of characters', () => {
  it('numbers its lines behind the blank', () => {
    const characters = Characters.read(dictionary('a\nb\n \n'));
    expect(characters.encode('ba b')).toEqual([2, 1, 3, 2]);
    expect(characters.classes).toBe(4);
  });

  it('leaves the number of another blank free', () => {
    expect(Characters.read(dictionary('a\nb\nc'), 1).encode('abc')).toEqual([0, 2, 3]);
  });

  it('takes the longest entry that fits', () => {
    expect(Characters.read(dictionary('a\nab\nb')).encode('aabb')).toEqual([1, 2, 3]);
  });

  it('reads files of any system, and signs beyond the first plane', () => {
    expect(Characters.read(dictionary('\ufeffé\r\n𝄞\r\n')).encode('𝄞é')).toEqual([2, 1]);
  });

  it('names the character that it lacks', () => {
    const path = dictionary('a\nb');
    const unknown = { unknown: 'x', dictionary: path };
    expect(Characters.read(path).encode('axb')).toEqual(unknown);
  });

  it.each([
    ['a\n\nb', ':2: the line is empty'],
    ['a\nb\na', ':3: the line repeats "a" of line 1'],
  ])('refuses %j', (text, message) => {
    expect(() => Characters.read(dictionary(text))).toThrow(message);
  });
});
