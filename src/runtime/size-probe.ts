/**
 * Shapes as functions of the model's symbolic sizes. ONNX Runtime gives up on sizes that a graph
 * computes; with numbers in the place of symbols it works them out. So types are inferred twice, with
 * two numbers for each symbol: what is the same in both is fixed, what changes as a symbol does is
 * that symbol, and everything else gets a name for its pair of numbers.
 */
import type { ValueType } from '../autodiff/value.js';
import type { Dim } from '../onnx/model.js';

type Pair = readonly [number, number];

export class SizeProbe {
  private readonly pairs = new Map<string, Pair>();
  private readonly names = new Map<string, string>();

  /** @param sizes of symbols as the data have them; the second number is about half of it */
  constructor(sizes: ReadonlyMap<string, number>) {
    for (const [symbol, size] of sizes) this.add(symbol, this.unused(Math.max(size, MIN_SIZE)));
  }

  /** Whether some sizes of the inputs are symbols that it has numbers for. */
  settles(inputs: readonly { readonly shape: readonly Dim[] | null }[]): boolean {
    return inputs.some(({ shape }) => shape?.some((dim) => this.pairs.has(String(dim))));
  }

  /** A shape with the symbols that are known in numbers. */
  shapeAt(shape: readonly Dim[] | null, which: 0 | 1): readonly Dim[] | null {
    if (!shape) return null;
    return shape.map((dim) =>
      typeof dim === 'string' ? (this.pairs.get(dim)?.[which] ?? dim) : dim,
    );
  }

  /** How many elements a shape has with the sizes of the data; undefined where one is not known. */
  elements(shape: readonly Dim[]): number | undefined {
    const sizes = this.shapeAt(shape, 0)!;
    if (sizes.some((size) => typeof size !== 'number')) return undefined;
    return (sizes as number[]).reduce((product, size) => product * size, 1);
  }

  /** What is known of a value from its types at both sizes. */
  merge(first: ValueType, second: ValueType | undefined): ValueType {
    const { dtype, shape } = first;
    const other = second?.shape;
    if (!shape || !other || shape.length !== other.length) return { dtype, shape: null };
    return { dtype, shape: shape.map((dim, axis) => this.mergeDim(dim, other[axis]!)) };
  }

  private mergeDim(a: Dim, b: Dim): Dim {
    if (a === b) return a;
    if (typeof a !== 'number' || typeof b !== 'number') return null;
    return this.names.get(`${a} ${b}`) ?? this.add(`size_${a}_${b}`, [a, b]);
  }

  private add(symbol: string, pair: Pair): string {
    this.pairs.set(symbol, pair);
    this.names.set(pair.join(' '), symbol);
    return symbol;
  }

  private unused(size: number): Pair {
    let half = Math.ceil(size / 2);
    while (this.names.has(`${size} ${half}`)) half--;
    return half > 1 ? [size, half] : this.unused(size + 1);
  }
}

// One is special: it broadcasts.
const MIN_SIZE = 4;
