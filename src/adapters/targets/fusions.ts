/** Names of layers that compute several modules side by side, and those of the modules. */

const QUERY = ['q_proj', 'query', 'q', 'wq', 'to_q', 'q_lin'];
const KEY = ['k_proj', 'key', 'k', 'wk', 'to_k', 'k_lin'];
const VALUE = ['v_proj', 'value', 'v', 'wv', 'to_v', 'v_lin'];
const GATE = ['gate_proj', 'w1'];
const UP = ['up_proj', 'w3'];

/** A fused layer: what it is called with the usual names of its parts, and what lies in its output. */
interface Fusion {
  readonly names: Readonly<Record<string, readonly string[]>>;
  /** The names that a part may have, from the first column on. */
  readonly parts: readonly (readonly string[])[];
}

const QKV = ['q_proj', 'k_proj', 'v_proj'];

const fusions: readonly Fusion[] = [
  {
    names: {
      qkv_proj: QKV,
      qkv: ['q', 'k', 'v'],
      Wqkv: ['wq', 'wk', 'wv'],
      c_attn: QKV,
      in_proj: QKV,
      to_qkv: ['to_q', 'to_k', 'to_v'],
      query_key_value: ['query', 'key', 'value'],
      qkv_dense: ['query', 'key', 'value'],
      qkv_lin: ['q_lin', 'k_lin', 'v_lin'],
    },
    parts: [QUERY, KEY, VALUE],
  },
  {
    names: {
      kv_proj: ['k_proj', 'v_proj'],
      kv: ['k', 'v'],
      Wkv: ['wk', 'wv'],
      to_kv: ['to_k', 'to_v'],
      key_value: ['key', 'value'],
    },
    parts: [KEY, VALUE],
  },
  {
    names: {
      gate_up_proj: ['gate_proj', 'up_proj'],
      gate_up: ['gate_proj', 'up_proj'],
      w13: ['w1', 'w3'],
    },
    parts: [GATE, UP],
  },
];

const ATTENTION_PARTS = new Set([...QUERY, ...KEY, ...VALUE]);

/** Whether a module is named as the query, key or value of attention. */
export function isAttentionPart(module: string): boolean {
  return ATTENTION_PARTS.has(module.slice(module.lastIndexOf('.') + 1));
}

/** A name under which many models keep the parts head by head. */
const OFTEN_BY_HEAD = 'query_key_value';

/** A place for a module in a fused layer. */
export interface FusedPlace {
  /** Module path of the fused layer. */
  readonly path: string;
  /** Which part of its output is the module's, and how many there are. */
  readonly part: number;
  readonly parts: number;
}

/** Fused layers that could hold a module, by the names that they would have. */
export function fusedPlaces(module: string): FusedPlace[] {
  const [parent, name] = lastSegment(module);
  return fusions.flatMap(({ names, parts }) => {
    const part = parts.findIndex((spellings) => spellings.includes(name));
    if (part < 0) return [];
    return Object.keys(names).map((fused) => ({ path: parent + fused, part, parts: parts.length }));
  });
}

/**
 * Layers that could hold a module that is itself fused, by the names that they would have: for each part, from
 * the first column on. undefined for a module that is not one, or may keep its parts head by head.
 */
export function splitPlaces(module: string): string[][] | undefined {
  const [parent, name] = lastSegment(module);
  if (name === OFTEN_BY_HEAD) return undefined;
  const fusion = fusions.find(({ names }) => Object.hasOwn(names, name));
  return fusion?.parts.map((spellings) => spellings.map((part) => parent + part));
}

/** The modules that a layer computes, by its name and their number; numbered where the name says nothing. */
export function partPaths(module: string, count: number): string[] {
  const [parent, name] = lastSegment(module);
  const known = fusions.find(({ names }) => Object.hasOwn(names, name))?.names[name];
  if (known?.length === count) return known.map((part) => parent + part);
  return Array.from({ length: count }, (_, i) => `${module}.${i}`);
}

/** Whether only the graph can say that a layer's parts are not interleaved. */
export function needsProof({ path }: FusedPlace): boolean {
  return path.endsWith(OFTEN_BY_HEAD);
}

/** Names that builders give to a layer that they made of several, and few models have themselves. */
const BUILT = new Set([
  ...['qkv_proj', 'qkv_dense', 'qkv_lin'],
  ...['kv_proj', 'gate_up_proj', 'gate_up', 'w13'],
]);
/** Names of modules that models have packed themselves. */
const OWN = new Set(['c_attn', 'in_proj', 'query_key_value', 'qkv', 'Wqkv', 'to_qkv', 'to_kv']);

/** Whether a name is that of a layer made of several modules; undefined where it does not say. */
export function isBuiltName(module: string): boolean | undefined {
  const [, name] = lastSegment(module);
  if (BUILT.has(name)) return true;
  return OWN.has(name) ? false : undefined;
}

function lastSegment(module: string): [parent: string, name: string] {
  const dot = module.lastIndexOf('.') + 1;
  return [module.slice(0, dot), module.slice(dot)];
}
