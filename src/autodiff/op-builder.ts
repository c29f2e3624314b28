/**
 * The words that gradient rules are written in: ONNX operators as functions of value names, in the
 * opset of the graph. Every new value gets its type here, so that rules can ask for shapes. The same
 * operator on the same values is written once: a rule need not remember what it has built.
 */
import type { Attributes, GraphBuilder } from '../graph/builder.js';
import type { ValueType } from '../graph/value-type.js';
import type { DataTypeName } from '../onnx/dtype.js';
import { dataTypeNumber, isConvertible, toFloat64, toIntegers } from '../onnx/dtype.js';
import { keyOf, type NewNode } from '../onnx/encode.js';
import { type Dim, elementCount } from '../onnx/model.js';
import { Refusal } from './refusal.js';
import { broadcast, reducedShape, sameShape, stretchedAxes } from './shapes.js';

// Axes, pads, scales and exponents; a longer constant is a weight.
const MAX_CONSTANT_ELEMENTS = 64;

/** An operator and its attributes, without names of values. */
export type Operator = Pick<NewNode, 'opType' | 'domain' | 'attributes'>;

/**
 * Writes operators into a graph and keeps the types of their outputs. Every method returns the name of a
 * value.
 */
export class OpBuilder {
  private readonly written = new Map<string, readonly string[]>();
  private readonly transposes = new Map<string, { of: string; perm: readonly number[] }>();

  constructor(
    /** The graph that gets the nodes. */
    readonly graph: GraphBuilder,
    /** Types of all values so far, by name. */
    readonly types: Map<string, ValueType>,
  ) {
    for (const { opType, domain = '', inputs, outputs, attributes = {} } of graph.nodes) {
      const { perm } = attributes;
      if (opType !== 'Transpose' || domain !== '' || !perm || !('ints' in perm)) continue;
      this.transposes.set(outputs[0]!, { of: inputs[0]!, perm: perm.ints.map(Number) });
    }
  }

  /** @throws Error for a value that no inference has seen: a bug in a rule */
  type(value: string): ValueType {
    const type = this.types.get(value);
    if (!type) throw new Error(`the type of ${value} is not known`);
    return type;
  }

  /** The shape, sizes of which may be open; null where the rank is not known. */
  shape(value: string): readonly Dim[] | null {
    return this.type(value).shape;
  }

  /** @throws Refusal where the graph leaves it open */
  rank(value: string): number {
    return this.dims(value).length;
  }

  /** The shape, some sizes of which may be open. */
  dims(value: string): readonly Dim[] {
    const shape = this.shape(value);
    if (shape) return shape;
    throw new Refusal(`the rank of ${value} is not known${this.sinceWhichNode(value)}`);
  }

  /** The node that the rank is lost at, in words: its output has an open one, and its inputs have none. */
  private sinceWhichNode(value: string): string {
    const makers = new Map(
      this.graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)),
    );
    let node = makers.get(value);
    for (const seen = new Set([node]); node; seen.add(node)) {
      const open = node.inputs.find((name) => this.types.get(name)?.shape === null);
      const before = open === undefined ? undefined : makers.get(open);
      if (!before || seen.has(before)) break;
      node = before;
    }
    const [, decides = ''] = node?.inputs ?? [];
    if (!node || decides === '' || this.constant(decides)) return '';
    const what = node.name || node.outputs[0];
    return `: ${what} (${node.opType}) makes it by ${decides}, which is computed or fed, expected a constant`;
  }

  /** Its axes: 0, 1, .. */
  axes(value: string): number[] {
    return this.dims(value).map((_, axis) => axis);
  }

  /** An axis that may count from the end. */
  axis(value: string, axis: number): number {
    return axis < 0 ? axis + this.rank(value) : axis;
  }

  /** The shape where every dimension is static. */
  staticShape(value: string): readonly number[] | undefined {
    const shape = this.shape(value);
    return shape?.every((dim) => typeof dim === 'number') ? (shape as number[]) : undefined;
  }

  /** The numbers of a small constant; undefined for what is computed, or left out. */
  constant(value: string | undefined): readonly number[] | undefined {
    const tensor = value ? this.graph.initializers.get(value) : undefined;
    if (!tensor || 'chunks' in tensor.data) return undefined;
    const { dtype, dims, data } = tensor;
    const count = elementCount(dims);
    if (count > MAX_CONSTANT_ELEMENTS) return undefined;
    const bytes = data instanceof Uint8Array ? data : data.source.read(data.start, data.end);
    if (isConvertible(dtype)) return [...toFloat64(dtype, bytes, count)];
    return Array.from(toIntegers(dtype, bytes, count), Number);
  }

  /** A new value by any standard operator. */
  op(
    opType: string,
    inputs: readonly string[],
    type: ValueType,
    attributes: Attributes = {},
  ): string {
    return this.write({ opType, attributes }, inputs, [type])[0]!;
  }

  /** The values of an operator with several outputs. */
  ops(
    opType: string,
    inputs: readonly string[],
    types: readonly ValueType[],
    attributes: Attributes = {},
  ): readonly string[] {
    return this.write({ opType, attributes }, inputs, types);
  }

  /** The operator of a node, applied to other inputs. */
  again(node: Operator, inputs: readonly string[], type: ValueType): string {
    return this.write(node, inputs, [type])[0]!;
  }

  private write(
    { opType, domain = '', attributes = {} }: Operator,
    inputs: readonly string[],
    types: readonly ValueType[],
  ): readonly string[] {
    const key = keyOf([domain, opType, inputs, attributes, types.length]);
    const known = this.written.get(key);
    if (known) return known;
    const name = this.graph.fresh(`grad/${opType.toLowerCase()}`);
    const outputs = types.map((_, i) => (i === 0 ? name : this.graph.fresh(`${name}:${i}`)));
    const node = { name, opType, inputs, outputs, attributes };
    this.graph.add(domain === '' ? node : { ...node, domain });
    types.forEach((type, i) => {
      this.types.set(outputs[i]!, type);
    });
    this.written.set(key, outputs);
    return outputs;
  }

  /** An optional output of a node, asked for where the model leaves it out. */
  output(node: NewNode, index: number, type: ValueType): string {
    const at = this.graph.nodes.findIndex((other) => other.outputs[0] === node.outputs[0]);
    const { outputs } = this.graph.nodes[at]!;
    if (outputs[index]) return outputs[index];
    const name = this.graph.fresh(`${outputs[0]}:${index}`);
    const all = Array.from({ length: Math.max(outputs.length, index + 1) }, (_, i) =>
      i === index ? name : (outputs[i] ?? ''),
    );
    this.graph.nodes[at] = { ...this.graph.nodes[at]!, outputs: all };
    this.types.set(name, type);
    return name;
  }

  /** A scalar constant of the value's type. */
  number(like: string, value: number): string {
    return this.scalar(this.type(like).dtype, value);
  }

  /** @throws Refusal for a number that the type does not hold */
  scalar(dtype: DataTypeName, value: number): string {
    if (!isConvertible(dtype) && !Number.isInteger(value)) {
      throw new Refusal(`it computes in ${dtype}, which does not hold ${value}`);
    }
    return this.typed(this.graph.scalar(dtype, value), { dtype, shape: [] });
  }

  /** An int64 vector of these numbers. */
  integers(values: readonly number[]): string {
    return this.vector('int64', values);
  }

  /** A vector of these numbers. */
  vector(dtype: DataTypeName, values: readonly number[]): string {
    const shape = [values.length];
    return this.typed(this.graph.constant(dtype, shape, values), { dtype, shape });
  }

  /** Zeros in the shape and type of a value, whatever it holds: 0 times NaN is NaN. */
  zeros(like: string): string {
    return this.expandLike(this.number(like, 0), like);
  }

  /** Ones in the shape and type of a value. */
  ones(like: string): string {
    return this.expandLike(this.number(like, 1), like);
  }

  /** The identity matrix; its size is a number, or an int64 vector of one. */
  eye(dtype: DataTypeName, size: number | string): string {
    const known = typeof size === 'number' ? size : null;
    const type = { dtype, shape: [known, known] };
    const vector = typeof size === 'number' ? this.integers([size]) : size;
    const square = this.op(
      'Expand',
      [this.scalar(dtype, 0), this.concat([vector, vector], 0)],
      type,
    );
    return this.op('EyeLike', [square], type);
  }

  /** a + b, with broadcasting. */
  add(a: string, b: string): string {
    return this.elementwise('Add', a, b);
  }

  /** a - b, with broadcasting. */
  sub(a: string, b: string): string {
    return this.elementwise('Sub', a, b);
  }

  /** a · b element by element, with broadcasting. */
  mul(a: string, b: string): string {
    return this.elementwise('Mul', a, b);
  }

  /** a / b, with broadcasting. */
  div(a: string, b: string): string {
    return this.elementwise('Div', a, b);
  }

  /** a to the power of `exponent`, with broadcasting. */
  pow(a: string, exponent: string): string {
    const shape = broadcast(this.shape(a), this.shape(exponent));
    return this.op('Pow', [a, exponent], { dtype: this.type(a).dtype, shape });
  }

  /** `value` times a number; nothing for 1. */
  scale(value: string, factor: number): string {
    return factor === 1 ? value : this.mul(value, this.number(value, factor));
  }

  /** `value` plus a number; nothing for 0. */
  shift(value: string, summand: number): string {
    return summand === 0 ? value : this.add(value, this.number(value, summand));
  }

  /** A number minus the value. */
  minus(minuend: number, value: string): string {
    return this.sub(this.number(value, minuend), value);
  }

  /** An operator of one input that keeps its type and shape. */
  unary(opType: string, value: string, attributes: Attributes = {}): string {
    return this.op(opType, [value], this.type(value), attributes);
  }

  /** The value with the other sign. */
  neg(value: string): string {
    return this.unary('Neg', value);
  }

  /** e to the power of the value. */
  exp(value: string): string {
    return this.unary('Exp', value);
  }

  /** The square root. */
  sqrt(value: string): string {
    return this.unary('Sqrt', value);
  }

  /** 1 / value. */
  reciprocal(value: string): string {
    return this.unary('Reciprocal', value);
  }

  /** The value times itself. */
  square(value: string): string {
    return this.mul(value, value);
  }

  /** -1, 0 or 1, by operators that GPU providers have: they lack Sign. */
  sign(value: string): string {
    return this.sub(this.indicator('Greater', value, 0), this.indicator('Less', value, 0));
  }

  /** 1 where a number compares to a bound, else 0. */
  indicator(opType: 'Greater' | 'Less' | 'Equal', value: string, bound: number): string {
    return this.cast(
      this.compare(opType, value, this.number(value, bound)),
      this.type(value).dtype,
    );
  }

  /** Boolean comparison, with broadcasting. */
  compare(opType: 'Greater' | 'Less' | 'Equal', a: string, b: string): string {
    const shape = broadcast(this.shape(a), this.shape(b));
    return this.op(opType, [a, b], { dtype: 'bool', shape });
  }

  /** The opposite of a boolean. */
  not(value: string): string {
    return this.unary('Not', value);
  }

  /** `a` where the condition holds, `b` elsewhere, with broadcasting. */
  where(condition: string, a: string, b: string): string {
    const shape = broadcast(this.shape(condition), broadcast(this.shape(a), this.shape(b)));
    return this.op('Where', [condition, a, b], { dtype: this.type(a).dtype, shape });
  }

  /** `value` where the condition holds, 0 elsewhere. */
  masked(condition: string, value: string): string {
    return this.where(condition, value, this.number(value, 0));
  }

  /** The value in another type; itself where it has that type. */
  cast(value: string, dtype: DataTypeName): string {
    const { dtype: from, shape } = this.type(value);
    if (from === dtype) return value;
    return this.op('Cast', [value], { dtype, shape }, { to: { int: dataTypeNumber(dtype) } });
  }

  /** The value itself, or in float32 where it is in half precision. */
  widened(value: string): string {
    const type = value === '' ? undefined : this.types.get(value);
    if (type?.dtype !== 'float16' && type?.dtype !== 'bfloat16') return value;
    const known = this.constant(value);
    if (!known) return this.cast(value, 'float32');
    const { dims } = this.graph.initializers.get(value)!;
    return this.typed(this.graph.constant('float32', dims, known), {
      dtype: 'float32',
      shape: dims,
    });
  }

  /** Batched matrix product. */
  matMul(a: string, b: string): string {
    const [sa, sb] = [this.shape(a), this.shape(b)];
    const known = sa && sb && sa.length >= 2 && sb.length >= 2;
    const lead = known ? broadcast(sa.slice(0, -2), sb.slice(0, -2)) : null;
    const shape = known && lead ? [...lead, sa.at(-2)!, sb.at(-1)!] : null;
    return this.op('MatMul', [a, b], { dtype: this.type(a).dtype, shape });
  }

  /** Axis i of the result is axis perm[i]; a transpose of a transpose is one of what lies before. */
  transpose(value: string, perm: readonly number[]): string {
    const before = this.transposes.get(value);
    if (before && this.types.has(before.of)) {
      return this.transpose(
        before.of,
        perm.map((axis) => before.perm[axis]!),
      );
    }
    if (perm.every((axis, i) => axis === i)) return value;
    const { dtype, shape } = this.type(value);
    const transposed = shape ? perm.map((axis) => shape[axis]!) : null;
    const type = { dtype, shape: transposed };
    const result = this.op('Transpose', [value], type, { perm: { ints: perm } });
    this.transposes.set(result, { of: value, perm });
    return result;
  }

  /** Takes a transpose back. */
  transposeBack(value: string, perm: readonly number[]): string {
    return this.transpose(
      value,
      perm.map((_, axis) => perm.indexOf(axis)),
    );
  }

  /** Exchanges the last two axes. */
  swapLast(value: string): string {
    const axes = this.axes(value);
    const last = axes.length - 1;
    return this.transpose(value, [...axes.slice(0, -2), last, last - 1]);
  }

  /** The shape as an int64 vector. */
  shapeOf(value: string): string {
    const fixed = this.staticShape(value);
    if (fixed) return this.integers(fixed);
    const rank = this.shape(value)?.length ?? null;
    return this.op('Shape', [value], { dtype: 'int64', shape: [rank] });
  }

  /** The sizes of some axes as an int64 vector. */
  sizesOf(value: string, axes: readonly number[]): string {
    const known = axes.map((axis) => this.shape(value)?.at(axis));
    if (known.every((size) => typeof size === 'number')) return this.integers(known);
    const type = { dtype: 'int64', shape: [axes.length] } as const;
    return this.op('Gather', [this.shapeOf(value), this.integers(axes)], type);
  }

  /** 0, 1, .. along an axis, as an int64 vector. */
  positions(value: string, axis: number): string {
    const size = this.shape(value)?.at(axis) ?? null;
    const scalar =
      typeof size === 'number'
        ? this.scalar('int64', size)
        : this.reshape(this.sizesOf(value, [axis]), this.integers([]), []);
    const limits = [this.scalar('int64', 0), scalar, this.scalar('int64', 1)];
    return this.op('Range', limits, { dtype: 'int64', shape: [size] });
  }

  /** Number of elements along some axes, as a scalar of the value's type or, where known, a number. */
  countOf(value: string, axes: readonly number[]): number | string {
    const known = axes.map((axis) => this.shape(value)?.at(axis));
    if (known.every((size) => typeof size === 'number')) return known.reduce((a, b) => a * b, 1);
    const sizes = this.cast(this.sizesOf(value, axes), this.type(value).dtype);
    return this.reduce('ReduceProd', sizes, [0], false);
  }

  /** `value` in the shape of `like`; nothing where it has that shape already. */
  reshapeLike(value: string, like: string): string {
    const [from, to] = [this.shape(value), this.shape(like)];
    if (from && to && sameShape(from, to)) return value;
    return this.reshape(value, this.shapeOf(like), to);
  }

  /**
   * The elements of `value` in another shape.
   * @param shape with -1 for what is left; then, and only then, 0 stands for the size of `value` there
   */
  reshape(value: string, shape: string, known: readonly Dim[] | null): string {
    const type = { dtype: this.type(value).dtype, shape: known };
    const sizes = this.constant(shape);
    const isPlain = sizes?.every((size) => size > 0) || sizes?.includes(-1);
    // Else a size of 0, as of an empty cache, would be taken for "as before".
    const attributes = isPlain || this.graph.opset < 14 ? {} : { allowzero: { int: 1 } };
    return this.op('Reshape', [value, shape], type, attributes);
  }

  /** All elements in a row. */
  flat(value: string): string {
    const size = this.staticShape(value)?.reduce((a, b) => a * b, 1) ?? null;
    return this.reshape(value, this.integers([-1]), [size]);
  }

  /** New axes of size 1, at places of the result. */
  unsqueeze(value: string, axes: readonly number[]): string {
    const { dtype, shape } = this.type(value);
    if (axes.length === 0) return value;
    const full = shape ? withAxes(shape, axes) : null;
    if (this.graph.opset >= 13) {
      return this.op('Unsqueeze', [value, this.integers(axes)], { dtype, shape: full });
    }
    return this.op('Unsqueeze', [value], { dtype, shape: full }, { axes: { ints: axes } });
  }

  /** The value, broadcast to the shape of another one. */
  expandLike(value: string, like: string): string {
    const [from, to] = [this.shape(value), this.shape(like)];
    if (from && to && sameShape(from, to)) return value;
    const type = { dtype: this.type(value).dtype, shape: to };
    return this.op('Expand', [value, this.shapeOf(like)], type);
  }

  /** The values joined along an axis. */
  concat(values: readonly string[], axis: number): string {
    if (values.length === 1) return values[0]!;
    const { dtype } = this.type(values[0]!);
    const shapes = values.map((value) => this.shape(value));
    const sizes = shapes.map((shape) => shape?.at(axis));
    const sum = sizes.every((size) => typeof size === 'number')
      ? sizes.reduce((a, b) => a + b, 0)
      : null;
    const at = axis < 0 ? axis + (shapes[0]?.length ?? 0) : axis;
    const shape = shapes[0]?.map((dim, i) => (i === at ? sum : dim)) ?? null;
    return this.op('Concat', values, { dtype, shape }, { axis: { int: axis } });
  }

  /** A stretch along an axis. Bounds are numbers, or int64 vectors of one. */
  stretch(value: string, axis: number, start: number | string, end: number | string): string {
    const { dtype, shape } = this.type(value);
    const bounded = typeof start === 'number' && typeof end === 'number' && start >= 0;
    const size = bounded ? end - start : null;
    const at = axis < 0 ? axis + (shape?.length ?? 0) : axis;
    const type = { dtype, shape: shape?.map((dim, i) => (i === at ? size : dim)) ?? null };
    const bound = (of: number | string) => (typeof of === 'number' ? this.integers([of]) : of);
    return this.op('Slice', [value, bound(start), bound(end), this.integers([axis])], type);
  }

  /** Sum over axes, kept with size 1. */
  reduceSum(value: string, axes: readonly number[], keepDims = true): string {
    // No axes are all axes to the operator.
    if (axes.length === 0) return value;
    return this.reduce('ReduceSum', value, axes, keepDims);
  }

  /** Mean over axes, kept with size 1. */
  mean(value: string, axes: readonly number[]): string {
    return this.reduce('ReduceMean', value, axes);
  }

  /** A reduction over axes; the axes are an input or an attribute, as the opset wants it. */
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
      throw new Refusal(
        `summing over sizes that are known only at run time (${value}, ${like}) needs opset 13`,
      );
    }
    const { dtype } = this.type(value);
    const int64 = (size: Dim) => ({ dtype: 'int64', shape: [size] }) as const;
    const whole = this.op('Shape', [value], int64(null));
    const part = this.op('Shape', [like], int64(null));
    const ranks = [whole, part].map((shape) => this.op('Shape', [shape], int64(1)));
    const missing = this.op('Sub', ranks, int64(1));
    const ones = this.op('Expand', [this.integers([1]), missing], int64(null));
    const padded = this.op('Concat', [ones, part], int64(null), { axis: { int: 0 } });
    const differs = this.not(this.compare('Equal', padded, whole));
    const found = this.op('NonZero', [differs], { dtype: 'int64', shape: [1, null] });
    const axes = this.flat(found);
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

function withAxes(shape: readonly Dim[], axes: readonly number[]): Dim[] {
  const rank = shape.length + axes.length;
  const added = new Set(axes.map((axis) => (axis < 0 ? axis + rank : axis)));
  const rest = [...shape];
  return Array.from({ length: rank }, (_, i) => (added.has(i) ? 1 : rest.shift()!));
}
