/** Sizes for the dimensions that a model leaves open: guesses to try, the likeliest first. */
import { isFloating } from '../onnx/dtype.js';
import type { ValueMeta } from './session.js';

const CANDIDATES = {
  batch: [2, 1],
  // An empty cache is what a first step has.
  past: [0, 1, 8],
  window: [8, 512, 1024, 4096],
  head: [64, 128, 32, 16, 96, 80, 256, 8],
  heads: [8, 4, 2, 1, 12, 16, 32],
  sequence: [8, 16, 1, 32, 64, 128, 256, 512, 1024],
  // Strided convolutions shorten a waveform by some hundreds.
  signal: [512, 1024, 4096, 16_000, 64],
  channels: [3, 1, 4],
  image: [32, 64, 48, 96, 224, 256, 320, 384, 512, 640],
} as const;

/** The meaning of a dimension. */
type Role = keyof typeof CANDIDATES;

const ROLES = Object.keys(CANDIDATES) as Role[];

/** More than this, and the model is better served with real inputs. */
const MAX_VARIANTS = 150;

/** Sizes of some roles that are known better than by guessing, the likeliest first. */
export type KnownSizes = Readonly<Partial<Record<Role, readonly number[]>>>;

/** A size for each role. */
export type Sizes = Readonly<Record<Role, number>>;

/** A dimension: `fixed` plus the sizes of the roles. Exporters write "past_length + length". */
interface OpenDim {
  readonly fixed: number;
  readonly roles: readonly Role[];
}

/** The shapes of some inputs, open dimensions by their roles. */
export class InputShapes {
  private readonly shapes: ReadonlyMap<string, readonly OpenDim[]>;
  /** The combinations of sizes to try, the likeliest first. */
  readonly variants: readonly Sizes[];

  constructor(inputs: readonly ValueMeta[], known: KnownSizes = {}) {
    const symbols = new Map<string, OpenDim>();
    this.shapes = new Map(inputs.map((input) => [input.name, openShape(input, symbols)]));
    const used = new Set([...this.shapes.values()].flat().flatMap(({ roles }) => roles));
    this.variants = variantsOf(used, known);
  }

  /** The shape of an input; equal symbols have equal sizes in all of them. */
  dims(input: string, sizes: Sizes): number[] {
    const shape = this.shapes.get(input) ?? [];
    return shape.map(({ fixed, roles }) => roles.reduce((sum, role) => sum + sizes[role], fixed));
  }
}

function openShape(input: ValueMeta, symbols: Map<string, OpenDim>): OpenDim[] {
  return input.shape.map((dim, axis) => {
    if (typeof dim === 'number') return { fixed: dim, roles: [] };
    const known = dim === null ? undefined : symbols.get(dim);
    const open = known ?? openDim(dim ?? '', input, axis);
    if (dim !== null) symbols.set(dim, open);
    return open;
  });
}

function openDim(symbol: string, input: ValueMeta, axis: number): OpenDim {
  const terms = symbol.split('+').map((term) => term.trim());
  const numbers = terms.filter((term) => /^\d+$/.test(term));
  const names = terms.filter((term) => !/^\d+$/.test(term));
  return {
    fixed: numbers.reduce((sum, number) => sum + Number(number), 0),
    roles: names.flatMap((name) => rolesOf(name, input, axis)),
  };
}

function rolesOf(symbol: string, input: ValueMeta, axis: number): Role[] {
  if (/total/i.test(symbol)) return ['past', 'sequence'];
  if (/batch/i.test(symbol)) return ['batch'];
  const part = cachePart(symbol, input, axis);
  if (part) return [part];
  if (/past|cache/i.test(symbol)) return [/sliding/i.test(symbol) ? 'window' : 'past'];
  if (/channel/i.test(symbol)) return ['channels'];
  if (/height|width/i.test(symbol)) return ['image'];
  const { name, dtype, shape } = input;
  if (dtype && isFloating(dtype) && shape.length === 2 && axis === 1) return ['signal'];
  if (/seq|len|time|frame|token/i.test(symbol)) return ['sequence'];
  if (axis === 0) return ['batch'];
  if (/past|cache/i.test(name)) return ['past'];
  if (shape.length === 4) return [isChannelAxis(shape, axis) ? 'channels' : 'image'];
  return ['sequence'];
}

/** The meaning of a dimension of a cache [batch, heads, past, head], other than its length. */
function cachePart(symbol: string, { name, shape }: ValueMeta, axis: number): Role | undefined {
  if (/head_?(dim|size)|kv_cache_dim/i.test(symbol)) return 'head';
  if (/num_?(\w+_)?heads/i.test(symbol)) return 'heads';
  // Keys and values in one tensor.
  const isJoined = shape.length === 5 && shape[0] === 2;
  if (!/past|cache/i.test(name) || (shape.length !== 4 && !isJoined)) return undefined;
  if (/past|cache|seq|len/i.test(symbol)) return undefined;
  if (axis === shape.length - 1) return 'head';
  return axis === shape.length - 3 ? 'heads' : undefined;
}

/** Images are NCHW, unless the last dimension is as small as channels are. */
function isChannelAxis(shape: ValueMeta['shape'], axis: number): boolean {
  const last = shape[3];
  return axis === (typeof last === 'number' && last <= 4 ? 3 : 1);
}

function variantsOf(used: ReadonlySet<Role>, known: KnownSizes): Sizes[] {
  const candidates = (role: Role) => [...new Set([...(known[role] ?? []), ...CANDIDATES[role]])];
  let choices: Record<string, number>[] = [{}];
  for (const role of ROLES) {
    const indices = used.has(role) ? [...candidates(role).keys()] : [0];
    choices = choices.flatMap((choice) => indices.map((index) => ({ ...choice, [role]: index })));
  }
  return choices
    .sort((a, b) => unlikeliness(a) - unlikeliness(b))
    .slice(0, MAX_VARIANTS)
    .map((choice) => sizesAt(choice, candidates));
}

function unlikeliness(choice: Record<string, number>): number {
  return Object.values(choice).reduce((sum, index) => sum + index, 0);
}

function sizesAt(
  choice: Record<string, number>,
  candidates: (role: Role) => readonly number[],
): Sizes {
  const sizes = ROLES.map((role) => [role, candidates(role)[choice[role] ?? 0]]);
  return Object.fromEntries(sizes) as Sizes;
}
