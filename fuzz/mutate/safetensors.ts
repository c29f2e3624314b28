/** Damage to safetensors files: to their bytes, or to their header, whose length stays right. */
import type { Random } from '../random.js';
import { damageBytes } from './bytes.js';
import { damageJsonText, type Json } from './json.js';

/** @param inside keys of the metadata whose text is JSON in turn */
export function damageSafetensors(
  bytes: Uint8Array,
  random: Random,
  inside: readonly string[] = [],
): Uint8Array {
  if (random.chance(0.3)) return damageBytes(bytes, random);
  const length = Number(Buffer.from(bytes).readBigUInt64LE(0));
  const header = Buffer.from(bytes.subarray(8, 8 + length)).toString();
  const key = inside.length > 0 && random.chance(0.6) ? random.pick(inside) : undefined;
  const damaged = key ? damageMetadata(header, key, random) : damageJsonText(header, random);
  const text = Buffer.from(damaged);
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(text.length));
  return new Uint8Array(Buffer.concat([start, text, bytes.subarray(8 + length)]));
}

function damageMetadata(header: string, key: string, random: Random): string {
  const parsed = JSON.parse(header) as { __metadata__: Record<string, string> } & Json;
  parsed.__metadata__[key] = damageJsonText(parsed.__metadata__[key] ?? '{}', random);
  return JSON.stringify(parsed);
}
