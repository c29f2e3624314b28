/** Collects the nodes of an adapter, in the model's own opset. */
import type { NameAuthority } from '../../graph/names.js';
import { dataTypeNumber, type FloatName, fromFloat64 } from '../../onnx/dtype.js';
import type { AttributeValue, NewNode, NewTensor } from '../../onnx/encode.js';

/** The nodes that an adapter adds to a graph, in topological order. */
export interface Subgraph {
  readonly nodes: readonly NewNode[];
  readonly constants: readonly NewTensor[];
}

export class SubgraphBuilder implements Subgraph {
  readonly nodes: NewNode[] = [];
  readonly constants: NewTensor[] = [];

  constructor(
    private readonly prefix: string,
    private readonly names: NameAuthority,
    readonly opset: number,
  ) {}

  /** Adds a node and gives the name of its output. */
  node(
    leaf: string,
    opType: string,
    inputs: string[],
    attributes: Record<string, AttributeValue> = {},
    domain = '',
  ): string {
    const name = this.names.fresh(`${this.prefix}/${leaf}`);
    this.nodes.push({ name, opType, inputs, outputs: [name], attributes, domain });
    return name;
  }

  nodeTo(output: string, leaf: string, opType: string, inputs: string[]): void {
    const name = this.names.fresh(`${this.prefix}/${leaf}`);
    this.nodes.push({ name, opType, inputs, outputs: [output] });
  }

  integers(leaf: string, values: readonly number[]): string {
    const name = this.names.fresh(`${this.prefix}/${leaf}`);
    const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    this.constants.push({ name, dtype: 'int64', dims: [values.length], data });
    return name;
  }

  reshape(leaf: string, value: string, shape: readonly number[]): string {
    return this.node(leaf, 'Reshape', [value, this.integers(`${leaf}_shape`, shape)]);
  }

  /**
   * To a shape that is computed, which may hold a 0: a layer without a row has no output. Operators before
   * opset 14 take a 0 after the first axis for the size that the value has there.
   */
  reshapeTo(leaf: string, value: string, shape: string): string {
    return this.node(
      leaf,
      'Reshape',
      [value, shape],
      this.opset < 14 ? {} : { allowzero: { int: 1 } },
    );
  }

  transpose(leaf: string, value: string, perm: readonly number[]): string {
    return this.node(leaf, 'Transpose', [value], { perm: { ints: perm } });
  }

  /** Zeros around a value. */
  pad(leaf: string, value: string, pads: readonly number[]): string {
    if (this.opset < 11) return this.node(leaf, 'Pad', [value], { pads: { ints: pads } });
    return this.node(leaf, 'Pad', [value, this.integers(`${leaf}_pads`, pads)]);
  }

  /** Part of the shape of a value, as a tensor. */
  shapeSlice(leaf: string, value: string, start: number, end: number): string {
    return this.slice(leaf, this.node(`${leaf}_shape`, 'Shape', [value]), { axis: 0, start, end });
  }

  /** Part of a value along one axis. */
  slice(
    leaf: string,
    value: string,
    { axis, start, end }: { axis: number; start: number; end: number },
  ): string {
    if (this.opset < 10) {
      const range = { starts: { ints: [start] }, ends: { ints: [end] }, axes: { ints: [axis] } };
      return this.node(leaf, 'Slice', [value], range);
    }
    const range = [this.integers(`${leaf}_start`, [start]), this.integers(`${leaf}_end`, [end])];
    const axes = axis === 0 ? [] : [this.integers(`${leaf}_axis`, [axis])];
    return this.node(leaf, 'Slice', [value, ...range, ...axes]);
  }

  /** A value in another type. Casts of constants cost nothing at run time. */
  cast(leaf: string, value: string, from: FloatName, to: FloatName): string {
    return from === to
      ? value
      : this.node(leaf, 'Cast', [value], { to: { int: dataTypeNumber(to) } });
  }

  /** The norms of a matrix along an axis. */
  norms(leaf: string, matrix: string, axis: number): string {
    const keep = { keepdims: { int: 0 } };
    if (this.opset < 18) {
      return this.node(leaf, 'ReduceL2', [matrix], { ...keep, axes: { ints: [axis] } });
    }
    return this.node(leaf, 'ReduceL2', [matrix, this.integers(`${leaf}_axis`, [axis])], keep);
  }

  /** A constant without axes. */
  number(leaf: string, value: number, dtype: FloatName): string {
    const name = this.names.fresh(`${this.prefix}/${leaf}`);
    const data = fromFloat64(dtype, Float64Array.of(value));
    this.constants.push({ name, dtype, dims: [], data });
    return name;
  }

  zeros(leaf: string, dims: readonly number[], dtype: FloatName): string {
    const name = this.names.fresh(`${this.prefix}/${leaf}`);
    const values = new Float64Array(dims.reduce((product, dim) => product * dim, 1));
    this.constants.push({ name, dtype, dims, data: fromFloat64(dtype, values) });
    return name;
  }

  /** A constant of zeros and ones, [1, .., k, .., k, ..] with the identity on two axes. */
  identity(leaf: string, k: number, shape: readonly number[], dtype: FloatName): string {
    const name = this.names.fresh(`${this.prefix}/${leaf}`);
    const values = Float64Array.from({ length: k * k }, (_, i) => (i % (k + 1) === 0 ? 1 : 0));
    this.constants.push({ name, dtype, dims: shape, data: fromFloat64(dtype, values) });
    return name;
  }
}
