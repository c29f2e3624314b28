/** Damage to bytes that nothing is known of. */
import type { Random } from '../random.js';

type Damage = (bytes: Uint8Array, random: Random) => Uint8Array;

const damages: readonly Damage[] = [flip, flip, overwrite, cutOff, remove, repeat, insert, extreme];

/** One to three of: wrong bits and bytes, an end that is missing, parts missing, repeated, put in. */
export function damageBytes(bytes: Uint8Array, random: Random): Uint8Array {
  let damaged = bytes;
  for (let i = random.below(3); i >= 0; i--) damaged = random.pick(damages)(damaged, random);
  return damaged;
}

function flip(bytes: Uint8Array, random: Random): Uint8Array {
  const damaged = Uint8Array.from(bytes);
  if (bytes.length > 0) damaged[random.below(bytes.length)]! ^= 1 << random.below(8);
  return damaged;
}

function overwrite(bytes: Uint8Array, random: Random): Uint8Array {
  const damaged = Uint8Array.from(bytes);
  const at = random.below(bytes.length);
  damaged.set(random.bytes(Math.min(random.below(16), bytes.length - at)), at);
  return damaged;
}

function cutOff(bytes: Uint8Array, random: Random): Uint8Array {
  return Uint8Array.from(bytes.subarray(0, random.below(bytes.length)));
}

function remove(bytes: Uint8Array, random: Random): Uint8Array {
  const [from, to] = rangeOf(bytes, random);
  return joined(bytes.subarray(0, from), bytes.subarray(to));
}

function repeat(bytes: Uint8Array, random: Random): Uint8Array {
  const [from, to] = rangeOf(bytes, random);
  return joined(bytes.subarray(0, to), bytes.subarray(from));
}

function insert(bytes: Uint8Array, random: Random): Uint8Array {
  const at = random.below(bytes.length + 1);
  return joined(bytes.subarray(0, at), random.bytes(random.below(16)), bytes.subarray(at));
}

/** A run of 0x00 or 0xff, or a length that is too large: what counts and offsets break at. */
function extreme(bytes: Uint8Array, random: Random): Uint8Array {
  const damaged = Uint8Array.from(bytes);
  const at = random.below(bytes.length);
  const fill = random.pick([0x00, 0xff, 0x7f, 0x80]);
  damaged.fill(fill, at, at + random.pick([1, 2, 4, 8]));
  return damaged;
}

function rangeOf(bytes: Uint8Array, random: Random): [from: number, to: number] {
  const from = random.below(bytes.length);
  return [from, Math.min(bytes.length, from + 1 + random.below(64))];
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
