/**
 * Shapes as functions of the model's symbolic sizes. ONNX Runtime gives up on sizes that a graph
 * computes; with numbers in the place of symbols it works them out. So types are inferred twice, with
 * two numbers for each symbol: what is the same in both is fixed, what changes as a symbol does is
 * that symbol, and everything else gets a name for its pair of numbers. Each symbol changes by a factor
 * of its own, so that twice one of them is not taken for another.
 */
import type { ValueSpec } from '../graph/builder.js';
import type { ValueType } from '../graph/value-type.js';
import type { Dim } from '../onnx/model.js';

type Pair = readonly [number, number];

/** Finds sizes that a graph computes itself, by inferring its types twice with numbers for its symbols. */
export class SizeProbe {
  private readonly pairs = new Map<string, Pair>();
  private readonly names = new Map<string, string>();
  /** Symbols that have the size of the data and no other: the model takes none. */
  private readonly pinned = new Set<string>();

  /** Whether all symbols change by one factor. */
  private together = false;
  /** Whether sizes are those of the data, however small. */
  private exact = false;

  /** @param sizes of symbols as the data have them; the second number is a part of it */
  constructor(private readonly sizes: ReadonlyMap<string, number>) {
    this.pairUp();
  }

  private pairUp(): void {
    this.pairs.clear();
    this.names.clear();
    for (const symbol of this.pinned) {
      const size = this.sizes.get(symbol)!;
      this.pairs.set(symbol, [size, size]);
    }
    for (const [symbol, size] of this.sizes) {
      if (this.pinned.has(symbol)) continue;
      const first = this.exact ? size : Math.max(size, MIN_SIZE);
      this.add(symbol, this.together ? [first, Math.ceil(first / 2)] : this.pairFor(first));
    }
  }

  /**
   * Takes the sizes of the data as they are, for models that forbid others: three channels are not four.
   * @returns false where it does already
   */
  takeOwnSizes(): boolean {
    const differ = [...this.sizes].some(([symbol, size]) => this.pairs.get(symbol)![0] !== size);
    if (this.exact || !differ) return false;
    this.exact = true;
    this.pairUp();
    return true;
  }

  /**
   * Lets all symbols change by one factor from now on, for models whose symbols are not independent:
   * exporters give one size a name at each input, or one symbol is the sum of two others.
   * @returns false where they do already
   */
  changeTogether(): boolean {
    if (this.together) return false;
    this.together = true;
    this.pairUp();
    return true;
  }

  /**
   * Holds symbols at the size that the data have, where the model has that size alone: positions for
   * images of one size.
   * @returns false where all of them are held already
   */
  pin(symbols: readonly string[]): boolean {
    const more = symbols.filter((symbol) => !this.pinned.has(symbol));
    for (const symbol of more) this.pinned.add(symbol);
    this.together = false;
    this.pairUp();
    return more.length > 0;
  }

  /** The symbols of the inputs that change, those of one size together: they may be one size. */
  changing(inputs: readonly Pick<ValueSpec, 'shape'>[]): string[][] {
    const symbols = new Set(inputs.flatMap(({ shape }) => (shape ?? []).map(String)));
    const groups = new Map<number, string[]>();
    for (const [symbol, size] of this.sizes) {
      if (!symbols.has(symbol) || this.pinned.has(symbol)) continue;
      groups.set(size, [...(groups.get(size) ?? []), symbol]);
    }
    return [...groups.values()];
  }

  /** Whether some sizes of the inputs are symbols that it has numbers for. */
  settles(inputs: readonly Pick<ValueSpec, 'shape'>[]): boolean {
    return inputs.some(({ shape }) => shape?.some((dim) => this.pairs.has(String(dim))));
  }

  /** A shape with the symbols that are known in numbers. */
  shapeAt(
    shape: readonly Dim[] | null,
    which: 0 | 1,
    /** The symbols that alone change; all do where they are left out. */
    alone?: readonly string[],
  ): readonly Dim[] | null {
    if (!shape) return null;
    return shape.map((dim) => {
      if (typeof dim !== 'string') return dim;
      const index = alone === undefined || alone.includes(dim) ? which : 0;
      return this.pairs.get(dim)?.[index] ?? dim;
    });
  }

  /** Number of elements of a shape with the sizes of the data; undefined where one is not known. */
  elements(shape: readonly Dim[]): number | undefined {
    const sizes = this.shapeAt(shape, 0)!;
    if (sizes.some((size) => typeof size !== 'number')) return undefined;
    return (sizes as number[]).reduce((product, size) => product * size, 1);
  }

  /** The type of a value, from its types at both sizes. */
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

  /** The first symbol of a pair names it. */
  private add(symbol: string, pair: Pair): string {
    this.pairs.set(symbol, pair);
    const key = pair.join(' ');
    if (!this.names.has(key)) this.names.set(key, symbol);
    return symbol;
  }

  private pairFor(size: number): Pair {
    // Halves first: a size may have to be a multiple of a power of two.
    const halves = [2, 4, 8, 16].filter((divisor) => size % divisor === 0).map((d) => size / d);
    const others = Array.from({ length: Math.max(0, size - 2) }, (_, i) => size - 1 - i);
    const second = [...halves, ...others].find((part) => part > 1 && this.isOwnFactor(size, part));
    if (second !== undefined) return [size, second];
    return this.exact ? [size, this.multipleOf(size)] : this.pairFor(size + 1);
  }

  private multipleOf(size: number): number {
    const least = Math.max(1, size);
    let multiple = 2 * least;
    while (!this.isOwnFactor(size, multiple)) multiple += least;
    return multiple;
  }

  private isOwnFactor(size: number, part: number): boolean {
    if (size === 0) return true;
    const changing = [...this.pairs].filter(([symbol]) => !this.pinned.has(symbol));
    return changing.every(([, [first, second]]) => first * part !== second * size);
  }
}

// One is special: it broadcasts.
const MIN_SIZE = 4;
