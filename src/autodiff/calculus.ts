/**
 * The words that gradient rules are written in: ONNX operators as functions of value names, in the
 * opset of the graph. Every new value gets its type here, so that rules can ask for shapes.
 */
import type { Attributes, GraphBuilder } from '../graph/builder.js';
import type { DataTypeName } from '../onnx/dtype.js';
import { dataTypeNumber } from '../onnx/dtype.js';
import type { Dim } from '../onnx/model.js';
import type { ValueType } from './value.js';

export class Calculus {
  constructor(
    readonly graph: GraphBuilder,
    private readonly types: Map<string, ValueType>,
  ) {}

  /** @throws Error for a value that no inference has seen: a bug in a rule */
  type(value: string): ValueType {
    const type = this.types.get(value);
    if (!type) throw new Error(`the type of ${value} is not known`);
    return type;
  }

  shape(value: string): readonly Dim[] | null {
    return this.type(value).shape;
  }

  rank(value: string): number | undefined {
    return this.shape(value)?.length;
  }

  /** The shape where every dimension is static. */
  staticShape(value: string): readonly number[] | undefined {
    const shape = this.shape(value);
    return shape?.every((dim) => typeof dim === 'number') ? (shape as number[]) : undefined;
  }

  /** A new value by any operator. */
  op(
    opType: string,
    inputs: readonly string[],
    type: ValueType,
    attributes: Attributes = {},
  ): string {
    const name = this.graph.op(opType, inputs, attributes, `grad/${opType}`);
    this.types.set(name, type);
    return name;
  }

  /** A scalar constant of the value's type. */
  number(like: string, value: number): string {
    const { dtype } = this.type(like);
    return this.typed(this.graph.scalar(dtype, value), { dtype, shape: [] });
  }

  /** An int64 scalar. */
  int64(value: number): string {
    return this.typed(this.graph.scalar('int64', value), { dtype: 'int64', shape: [] });
  }

  integers(values: readonly number[]): string {
    return this.typed(this.graph.integers(values), { dtype: 'int64', shape: [values.length] });
  }

  add(a: string, b: string): string {
    return this.elementwise('Add', a, b);
  }

  sub(a: string, b: string): string {
    return this.elementwise('Sub', a, b);
  }

  mul(a: string, b: string): string {
    return this.elementwise('Mul', a, b);
  }

  div(a: string, b: string): string {
    return this.elementwise('Div', a, b);
  }

  /** `value` times a number; nothing for 1. */
  scale(value: string, factor: number): string {
    return factor === 1 ? value : this.mul(value, this.number(value, factor));
  }

  /** An operator of one input that keeps its type and shape. */
  unary(opType: string, value: string, attributes: Attributes = {}): string {
    return this.op(opType, [value], this.type(value), attributes);
  }

  neg(value: string): string {
    return this.unary('Neg', value);
  }

  exp(value: string): string {
    return this.unary('Exp', value);
  }

  sign(value: string): string {
    return this.unary('Sign', value);
  }

  square(value: string): string {
    return this.mul(value, value);
  }

  /** Boolean comparison, with broadcasting. */
  compare(
    opType: 'Greater' | 'Less' | 'Equal' | 'GreaterOrEqual' | 'LessOrEqual',
    a: string,
    b: string,
  ): string {
    const shape = broadcast(this.shape(a), this.shape(b));
    return this.op(opType, [a, b], { dtype: 'bool', shape });
  }

  not(value: string): string {
    return this.unary('Not', value);
  }

  where(condition: string, a: string, b: string): string {
    const shape = broadcast(this.shape(condition), broadcast(this.shape(a), this.shape(b)));
    return this.op('Where', [condition, a, b], { dtype: this.type(a).dtype, shape });
  }

  cast(value: string, dtype: DataTypeName): string {
    const { dtype: from, shape } = this.type(value);
    if (from === dtype) return value;
    return this.op('Cast', [value], { dtype, shape }, { to: { int: dataTypeNumber(dtype) } });
  }

  /** Batched matrix product. */
  matMul(a: string, b: string): string {
    const [sa, sb] = [this.shape(a), this.shape(b)];
    const known = sa && sb && sa.length >= 2 && sb.length >= 2;
    const lead = known ? broadcast(sa.slice(0, -2), sb.slice(0, -2)) : null;
    const shape = known && lead ? [...lead, sa.at(-2)!, sb.at(-1)!] : null;
    return this.op('MatMul', [a, b], { dtype: this.type(a).dtype, shape });
  }

  transpose(value: string, perm: readonly number[]): string {
    if (perm.every((axis, i) => axis === i)) return value;
    const { dtype, shape } = this.type(value);
    const turned = shape ? perm.map((axis) => shape[axis]!) : null;
    return this.op('Transpose', [value], { dtype, shape: turned }, { perm: { ints: perm } });
  }

  /** Exchanges the last two axes. */
  swapLast(value: string): string {
    const rank = this.rank(value);
    if (rank === undefined) throw new Error(`the rank of ${value} is not known`);
    const perm = Array.from({ length: rank }, (_, i) => i);
    return this.transpose(value, [...perm.slice(0, -2), rank - 1, rank - 2]);
  }

  /** The shape as an int64 vector. */
  shapeOf(value: string): string {
    const rank = this.rank(value);
    const fixed = this.staticShape(value);
    if (fixed) return this.integers(fixed);
    return this.op('Shape', [value], { dtype: 'int64', shape: [rank ?? null] });
  }

  /** `value` in the shape of `like`; nothing where it has that shape already. */
  reshapeLike(value: string, like: string): string {
    const [from, to] = [this.shape(value), this.shape(like)];
    if (from && to && sameShape(from, to)) return value;
    return this.reshape(value, this.shapeOf(like), to);
  }

  reshape(value: string, shape: string, known: readonly Dim[] | null): string {
    return this.op('Reshape', [value, shape], { dtype: this.type(value).dtype, shape: known });
  }

  expandLike(value: string, like: string): string {
    const [from, to] = [this.shape(value), this.shape(like)];
    if (from && to && sameShape(from, to)) return value;
    return this.op('Expand', [value, this.shapeOf(like)], {
      dtype: this.type(value).dtype,
      shape: to,
    });
  }

  /** Sum over axes, kept with size 1. */
  reduceSum(value: string, axes: readonly number[], keepDims = true): string {
    return this.reduce('ReduceSum', value, axes, keepDims);
  }

  reduce(opType: string, value: string, axes: readonly number[], keepDims = true): string {
    const { dtype, shape } = this.type(value);
    const reduced = reducedShape(shape, axes, keepDims);
    const keep = { keepdims: { int: keepDims ? 1 : 0 } };
    const asInput = this.graph.opset >= (opType === 'ReduceSum' ? 13 : 18);
    if (asInput)
      return this.op(opType, [value, this.integers(axes)], { dtype, shape: reduced }, keep);
    return this.op(opType, [value], { dtype, shape: reduced }, { ...keep, axes: { ints: axes } });
  }

  /**
   * The gradient of broadcasting `like` to the shape of `value`: sums over the axes that were
   * stretched. Static where the shapes say which, else decided by the shapes at run time.
   */
  sumTo(value: string, like: string): string {
    const [from, to] = [this.shape(value), this.shape(like)];
    const axes = from && to ? stretchedAxes(from, to) : undefined;
    if (!axes) return this.sumToAtRunTime(value, like);
    if (axes.length === 0) return value;
    const lead = from!.length - to!.length;
    const onlyLead = axes.length === lead && axes.every((axis) => axis < lead);
    if (onlyLead) return this.reduceSum(value, axes, false);
    return this.reshapeLike(this.reduceSum(value, axes), like);
  }

  private sumToAtRunTime(value: string, like: string): string {
    if (this.graph.opset < 13) {
      throw new Error(`summing ${value} to the shape of ${like} needs opset 13`);
    }
    const { dtype } = this.type(value);
    const whole = this.op('Shape', [value], { dtype: 'int64', shape: [null] });
    const part = this.op('Shape', [like], { dtype: 'int64', shape: [null] });
    const rank = this.op('Shape', [whole], { dtype: 'int64', shape: [1] });
    const missing = this.op(
      'Sub',
      [rank, this.op('Shape', [part], { dtype: 'int64', shape: [1] })],
      {
        dtype: 'int64',
        shape: [1],
      },
    );
    const ones = this.op('Expand', [this.integers([1]), missing], {
      dtype: 'int64',
      shape: [null],
    });
    const padded = this.op(
      'Concat',
      [ones, part],
      { dtype: 'int64', shape: [null] },
      { axis: { int: 0 } },
    );
    const differs = this.not(this.compare('Equal', padded, whole));
    const found = this.op('NonZero', [differs], { dtype: 'int64', shape: [1, null] });
    const axes = this.op('Reshape', [found, this.integers([-1])], {
      dtype: 'int64',
      shape: [null],
    });
    const attributes = { keepdims: { int: 1 }, noop_with_empty_axes: { int: 1 } };
    const sum = this.op('ReduceSum', [value, axes], { dtype, shape: null }, attributes);
    return this.reshape(sum, part, this.shape(like));
  }

  private elementwise(opType: string, a: string, b: string): string {
    const shape = broadcast(this.shape(a), this.shape(b));
    return this.op(opType, [a, b], { dtype: this.type(a).dtype, shape });
  }

  private typed(value: string, type: ValueType): string {
    this.types.set(value, type);
    return value;
  }
}

/** The shape of a broadcast; null where it depends on sizes that are not known. */
export function broadcast(a: readonly Dim[] | null, b: readonly Dim[] | null): Dim[] | null {
  if (!a || !b) return null;
  const rank = Math.max(a.length, b.length);
  const at = (shape: readonly Dim[], i: number): Dim => {
    const index = i - (rank - shape.length);
    return index < 0 ? 1 : shape[index]!;
  };
  return Array.from({ length: rank }, (_, i) => {
    const [x, y] = [at(a, i), at(b, i)];
    if (x === 1) return y;
    if (y === 1 || x === y) return x;
    // A number beats a symbol: the symbol is 1 or the same.
    return typeof x === 'number' ? x : typeof y === 'number' ? y : null;
  });
}

/** Whether two shapes are surely the same; an unnamed size is the same as no other. */
export function sameShape(a: readonly Dim[], b: readonly Dim[]): boolean {
  return a.length === b.length && a.every((dim, i) => dim !== null && dim === b[i]);
}

/** Axes of `from` that a broadcast of `to` stretched; undefined where sizes leave it open. */
function stretchedAxes(from: readonly Dim[], to: readonly Dim[]): number[] | undefined {
  const lead = from.length - to.length;
  if (lead < 0) return undefined;
  const axes: number[] = [];
  for (let i = 0; i < from.length; i++) {
    const dim = i < lead ? 1 : to[i - lead]!;
    if (i < lead || (dim === 1 && from[i] !== 1)) axes.push(i);
    else if (dim === null || dim !== from[i]) return undefined;
  }
  return axes;
}

export function reducedShape(
  shape: readonly Dim[] | null,
  axes: readonly number[],
  keepDims: boolean,
): Dim[] | null {
  if (!shape) return null;
  const reduced = new Set(axes.map((axis) => (axis < 0 ? axis + shape.length : axis)));
  return shape.flatMap((dim, i) => (reduced.has(i) ? (keepDims ? [1] : []) : [dim]));
}
