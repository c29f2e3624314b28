/** Values that programs stumble over. */
import type { Random } from '../random.js';

/** Names that mean something elsewhere, or are hard to show, to split, to keep apart. */
const oddNames: readonly string[] = [
  '',
  ' ',
  '.',
  '..',
  '/',
  '../x',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'length',
  '0',
  '-1',
  'cast',
  'x\ny',
  'x\0y',
  '\u202e\u2066x',
  '"x"',
  "'x'",
  '`x`$' + '{x}',
  '\\',
  '%s%n',
  '名前',
  '\ud800',
  '🜁'.repeat(40),
  'a/b/c.d.e',
  '.'.repeat(300),
  'lora/default/layer/base',
  'x#1',
  'x_1',
];

/** Mostly one of `known`, so that two things have one name; else an odd one, now and then very long. */
export function oddName(known: readonly string[], random: Random): string {
  if (known.length > 0 && random.chance(0.5)) return random.pick(known);
  if (random.chance(0.1)) return 'n'.repeat(random.pick([255, 4095, 4097, 70_000]));
  return random.pick(oddNames);
}

const oddIntegers: readonly number[] = [
  0,
  1,
  -1,
  2,
  3,
  7,
  127,
  128,
  255,
  256,
  65_536,
  1e6,
  2 ** 31 - 1,
  2 ** 31,
  -(2 ** 31),
  2 ** 32,
  2 ** 40,
  2 ** 53,
  -(2 ** 53),
  2 ** 62,
];

export function oddInteger(random: Random): number {
  return random.chance(0.3) ? random.below(20) : random.pick(oddIntegers);
}

const oddNumbers: readonly number[] = [0.5, -0.5, 1e-45, 1e-320, 1e38, 1e39, 1e308, -1e308, 1 / 3];

export function oddNumber(random: Random): number {
  return random.chance(0.5) ? oddInteger(random) : random.pick(oddNumbers);
}
