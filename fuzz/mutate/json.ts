/** Damage to JSON that leaves it JSON: other values, other types, members missing or added. */
import type { Random } from '../random.js';
import { damageBytes } from './bytes.js';
import { oddName, oddNumber } from './odd.js';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** A text of JSON with one to four of its values damaged; now and then one that is none any more. */
export function damageJsonText(text: string, random: Random): string {
  if (random.chance(0.1)) {
    return Buffer.from(damageBytes(Buffer.from(text), random)).toString('latin1');
  }
  let value = JSON.parse(text) as Json;
  for (let i = random.below(4); i >= 0; i--) value = damageJson(value, random);
  const written = JSON.stringify(value);
  if (random.chance(0.05)) return written.replace(/\d+/, random.pick(['1e999', '-0', '1E400']));
  return written;
}

/** The value with one place in it damaged. */
export function damageJson(value: Json, random: Random): Json {
  const children = value !== null && typeof value === 'object' ? Object.keys(value) : [];
  if (children.length > 0 && random.chance(0.85)) return damageChild(value, children, random);
  return random.chance(0.5) ? another(value, random) : oddValue(random);
}

function damageChild(value: Json, keys: readonly string[], random: Random): Json {
  const key = random.pick(keys);
  if (Array.isArray(value)) {
    const at = Number(key);
    const part = random.chance(0.7)
      ? [damageJson(value[at]!, random)]
      : listDamage(value, at, random);
    return [...value.slice(0, at), ...part, ...value.slice(at + 1)];
  }
  const entries = Object.entries(value as { [key: string]: Json });
  const damaged = entries.flatMap(([name, child]): [string, Json][] => {
    if (name !== key) return [[name, child]];
    if (random.chance(0.75)) return [[name, damageJson(child, random)]];
    if (random.chance(0.5)) return [];
    return [[oddName(keys, random), child]];
  });
  // So that `__proto__` is a member like the others.
  return Object.defineProperties(
    {},
    Object.fromEntries(damaged.map(([name, child]) => [`${name}`, own(child)])),
  ) as Json;
}

function own(value: Json): PropertyDescriptor {
  return { value, enumerable: true, configurable: true, writable: true };
}

/** An element removed, doubled, or taken from elsewhere in the list. */
function listDamage(list: readonly Json[], at: number, random: Random): Json[] {
  const element = list[at]!;
  return random.pick<Json[]>([[], [element, element], [random.pick(list)], [[element]]]);
}

/** Something else of the same type. */
function another(value: Json, random: Random): Json {
  if (typeof value === 'number') return random.chance(0.5) ? -value : oddNumber(random);
  if (typeof value === 'boolean') return !value;
  if (typeof value !== 'string') return oddValue(random);
  const other = oddName([], random);
  return random.pick([other, value + other, other + value, value.slice(0, value.length >> 1)]);
}

function oddValue(random: Random): Json {
  const kinds: (() => Json)[] = [
    () => null,
    () => random.chance(0.5),
    () => oddNumber(random),
    () => oddName([], random),
    () => [],
    () => ({}),
    () => [oddNumber(random), oddName([], random)],
    () => ({ [oddName([], random)]: oddNumber(random) }),
    () => nested(random.pick([10, 100, 2000])),
  ];
  return random.pick(kinds)();
}

function nested(depth: number): Json {
  let value: Json = [];
  for (let i = 0; i < depth; i++) value = [value];
  return value;
}
