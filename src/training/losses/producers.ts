/** Reads a graph from a value back: what made it, and the constants that went in. */

import type { GraphBuilder } from '../../graph/builder.js';
import type { ValueTypes } from '../../graph/value-type.js';
import { isConvertible, toFloat64, toIntegers } from '../../onnx/dtype.js';
import { keyOf, type NewNode } from '../../onnx/encode.js';
import { type Dim, elementCount } from '../../onnx/model.js';

// Axes and scalars; a longer constant is a weight.
const MOST_ELEMENTS = 64;

// Two ways to one value are short: an exponential of a difference.
const DEEPEST = 6;

export class Producers {
  private readonly byOutput = new Map<string, NewNode>();

  /** @param types of values, as far as they are known */
  constructor(
    private readonly graph: GraphBuilder,
    private readonly types: ValueTypes = new Map(),
  ) {
    for (const node of graph.nodes) {
      for (const output of node.outputs) this.byOutput.set(output, node);
    }
  }

  /** The standard operator that makes a value, of one of some types where they are given. */
  of(value: string | undefined, ...opTypes: readonly string[]): NewNode | undefined {
    const node = this.byOutput.get(value ?? '');
    const isStandard = (node?.domain ?? '') === '' && node?.outputs[0] === value;
    return isStandard && (opTypes.length === 0 || opTypes.includes(node!.opType))
      ? node
      : undefined;
  }

  /** The node of any domain that makes a value. */
  any(value: string): NewNode | undefined {
    return this.byOutput.get(value);
  }

  type(value: string) {
    return this.types.get(value);
  }

  shape(value: string): readonly Dim[] | null {
    return this.types.get(value)?.shape ?? null;
  }

  /** The value before nodes that leave its numbers and its shape as they are. */
  plain(value: string): string {
    const node = this.of(value, 'Identity', 'Cast', 'Dropout');
    return node ? this.plain(node.inputs[0]!) : value;
  }

  /** The numbers of a small constant. */
  constant(value: string | undefined): readonly number[] | undefined {
    const tensor = this.graph.initializers.get(value ?? '');
    if (!tensor || 'chunks' in tensor.data) return undefined;
    const { dtype, dims, data } = tensor;
    const count = elementCount(dims);
    if (count > MOST_ELEMENTS) return undefined;
    const bytes = data instanceof Uint8Array ? data : data.source.read(data.start, data.end);
    if (isConvertible(dtype)) return [...toFloat64(dtype, bytes, count)];
    return dtype.includes('int') ? Array.from(toIntegers(dtype, bytes, count), Number) : undefined;
  }

  /** Whether a value is one constant number throughout. */
  isNumber(value: string | undefined, wanted: number): boolean {
    const numbers = value === undefined ? undefined : this.constant(this.plain(value));
    return numbers !== undefined && numbers.length > 0 && numbers.every((n) => n === wanted);
  }

  isConstant(value: string): boolean {
    return this.graph.initializers.has(value);
  }

  /** An axis counted from the end, -1 for the last; undefined where the rank is not known. */
  fromEnd(axis: number, shape: readonly Dim[] | null): number | undefined {
    return axis < 0 ? axis : shape ? axis - shape.length : undefined;
  }

  /** Whether a node reduces the one axis, counted from the end. */
  reduces({ inputs, attributes }: NewNode, axis: number): boolean {
    const given = attributes?.axes;
    const axes = given && 'ints' in given ? given.ints.map(Number) : this.constant(inputs[1]);
    return axes?.length === 1 && this.fromEnd(axes[0]!, this.shape(inputs[0]!)) === axis;
  }

  /** Whether two values are surely the same numbers: one value, or one operator on the same ones. */
  same(a: string, b: string, depth = 0): boolean {
    const [one, other] = [this.plain(a), this.plain(b)];
    if (one === other) return true;
    const [first, second] = [this.of(one), this.of(other)];
    if (!first || !second || depth > DEEPEST || first.opType !== second.opType) return false;
    if (keyOf(first.attributes) !== keyOf(second.attributes)) return false;
    const inputs = first.inputs.length;
    return (
      inputs > 0 &&
      inputs === second.inputs.length &&
      !first.opType.startsWith('Random') &&
      first.inputs.every((input, i) => this.same(input, second.inputs[i]!, depth + 1))
    );
  }
}
