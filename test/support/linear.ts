/** Models of one linear layer in every form that can take an adapter, and what they compute. */
import type { Tensor } from 'onnxruntime-node';
import { dataTypeNumber, type FloatName, fromFloat64, toFloat64 } from '../../src/onnx/dtype.js';
import { randomNumbers } from './adapters.js';
import {
  constant,
  model,
  type NodeProto,
  node,
  type TensorProto,
  tensor,
  value,
} from './models.js';
import { feed, type Values } from './run.js';

export const kinds = [
  'MatMul',
  'MatMul, weight left',
  'Gemm',
  'Gemm, weight left',
  'FusedMatMul',
  'FusedMatMul, weight left',
  'Conv',
  'MatMulNBits',
  'DequantizeLinear',
] as const;
export type Kind = (typeof kinds)[number];

export const weightForms = ['initializer', 'Constant', 'Transpose', 'Identity', 'Cast'] as const;
export type WeightForm = (typeof weightForms)[number];

export interface LinearCase {
  readonly kind: Kind;
  readonly in: number;
  readonly out: number;
  readonly dtype: FloatName;
  readonly opset: number;
  /** Axes of the input besides the features; as many of them as the operator takes are used. */
  readonly leading: readonly number[];
  /** The input's sizes are in the file. */
  readonly fixed: boolean;
  readonly weightForm: WeightForm;
  readonly transA: boolean;
  readonly transB: boolean;
  readonly alpha: number;
  readonly stride: number;
  /** An Add of a bias behind the layer, as most exporters write it. */
  readonly bias: boolean;
  readonly seed: number;
}

/** The element types that ONNX Runtime computes a kind in. */
export function dtypesOf(kind: Kind): readonly FloatName[] {
  if (kind.startsWith('MatMul,') || kind === 'MatMul' || kind.startsWith('Gemm')) {
    return ['float32', 'float16', 'float64'];
  }
  return kind === 'Conv' ? ['float32', 'float16'] : ['float32'];
}

export interface LinearModel {
  readonly bytes: Uint8Array;
  readonly feeds: Record<string, Tensor>;
  /** The input as rows of features: what `W [in, out]` is multiplied with from the right. */
  readonly rows: Float64Array;
  /** Type of the stored weight. */
  readonly stored: FloatName;
  /** The output in the same order, [rows, out]. */
  rowsOf(output: Values): Float64Array;
}

/** The model `y = layer(x)`, or `y = layer(x) + bias`. */
export function linearModel(c: LinearCase): LinearModel {
  const layer = layerOf(c);
  const { dtype } = c;
  const numbers = randomNumbers(c.seed, product(layer.x));
  const x = toFloat64(dtype, fromFloat64(dtype, numbers), numbers.length);
  const y = layer.y.map(() => null);
  const bias = c.bias ? biasOf(c, layer.yAxis - y.length) : { nodes: [], initializers: [] };
  const bytes = model({
    opset: c.opset,
    nodes: [...layer.nodes, ...bias.nodes],
    initializers: [...layer.initializers, ...bias.initializers],
    inputs: [value('x', c.fixed ? layer.x : layer.x.map((_, i) => `d${i}`), dtype)],
    outputs: [value('y', undefined, dtype)],
  });
  const rows = featuresLast(x, layer.x, layer.xAxis);
  return {
    bytes,
    feeds: { x: feed(layer.x, x, dtype) },
    rows: c.kind === 'Conv' ? strided(rows, layer.x, c) : rows,
    stored: c.weightForm === 'Cast' && isCastable(c) ? 'float16' : dtype,
    rowsOf: ({ data, dims }) => featuresLast(data, dims, layer.yAxis),
  };
}

interface Layer {
  readonly nodes: readonly NodeProto[];
  readonly initializers: readonly TensorProto[];
  readonly x: readonly number[];
  /** Which axis of the input and of the output holds the features. */
  readonly xAxis: number;
  readonly y: readonly number[];
  readonly yAxis: number;
}

function layerOf(c: LinearCase): Layer {
  const { in: features, out, transA, transB, alpha } = c;
  const y = c.bias ? 'layer' : 'y';
  const flags = { transA: Number(transA), transB: Number(transB), alpha: { float: alpha } };
  const swap = (on: boolean, dims: number[]) => (on ? [...dims].reverse() : dims);
  const lead = c.leading;
  const rows = lead.at(-1) ?? 2;
  const batch = lead.slice(0, -1);
  switch (c.kind) {
    case 'MatMul':
      return {
        ...weight(c, [features, out], (w) => node('MatMul', ['x', w], y, {}, 'layer')),
        x: [...lead, features],
        xAxis: lead.length,
        y: [...lead, out],
        yAxis: lead.length,
      };
    case 'MatMul, weight left': {
      // Without leading axes x is a vector.
      const columns = lead.slice(-1);
      return {
        ...weight(c, [out, features], (w) => node('MatMul', [w, 'x'], y, {}, 'layer')),
        x: [...batch, features, ...columns],
        xAxis: batch.length,
        y: [...batch, out, ...columns],
        yAxis: batch.length,
      };
    }
    case 'Gemm':
    case 'Gemm, weight left': {
      const left = c.kind !== 'Gemm';
      const turned = left ? !transA : transB;
      const dims = turned ? [out, features] : [features, out];
      // The bias of Gemm itself; beta has no influence on an adapter.
      const c2 = tensor('c', [1], [0.5], c.dtype);
      const attributes = { ...flags, beta: { float: 0.5 } };
      const made = weight(c, dims, (w) =>
        node('Gemm', left ? [w, 'x', 'c'] : ['x', w, 'c'], y, attributes, 'layer'),
      );
      return {
        nodes: made.nodes,
        initializers: [...made.initializers, c2],
        x: left ? swap(transB, [features, rows]) : swap(transA, [rows, features]),
        xAxis: Number(left ? transB : !transA),
        y: left ? [out, rows] : [rows, out],
        yAxis: Number(!left),
      };
    }
    case 'FusedMatMul':
    case 'FusedMatMul, weight left': {
      const left = c.kind !== 'FusedMatMul';
      const turned = left ? !transA : transB;
      const dims = turned ? [out, features] : [features, out];
      const operator = 'com.microsoft:FusedMatMul';
      const made = weight(c, dims, (w) =>
        node(operator, left ? [w, 'x'] : ['x', w], y, flags, 'layer'),
      );
      const matrix = left ? swap(transB, [features, rows]) : swap(transA, [rows, features]);
      const at = batch.length;
      return {
        ...made,
        x: [...batch, ...matrix],
        xAxis: at + Number(left ? transB : !transA),
        y: [...batch, ...(left ? [out, rows] : [rows, out])],
        yAxis: at + Number(!left),
      };
    }
    case 'Conv': {
      const spatial = lead.slice(1).map((size) => size + 1);
      const ones = spatial.length === 0 ? [1] : spatial.map(() => 1);
      const space = spatial.length === 0 ? [3] : spatial;
      const strides = ones.map(() => c.stride);
      const made = weight(c, [out, features, ...ones], (w) =>
        node('Conv', ['x', w], y, { kernel_shape: ones, strides }, 'layer'),
      );
      const x = [lead[0] ?? 1, features, ...space];
      const size = (n: number) => Math.ceil(n / c.stride);
      return { ...made, x, xAxis: 1, y: [x[0]!, out, ...space.map(size)], yAxis: 1 };
    }
    case 'MatMulNBits':
      return { ...quantizedInBlocks(c, y), ...alongLast(lead, features, out) };
    case 'DequantizeLinear': {
      const nodes = [
        node('DequantizeLinear', ['q', 'scale', 'zero'], 'w'),
        node('MatMul', ['x', 'w'], y, {}, 'layer'),
      ];
      const initializers = [
        tensor('q', [features, out], bytesOf(c.seed, features * out), 'uint8'),
        tensor('scale', [], [0.01]),
        tensor('zero', [], [120], 'uint8'),
      ];
      return { nodes, initializers, ...alongLast(lead, features, out) };
    }
  }
}

function alongLast(lead: readonly number[], features: number, out: number) {
  return { x: [...lead, features], xAxis: lead.length, y: [...lead, out], yAxis: lead.length };
}

function isCastable({ kind, dtype }: LinearCase): boolean {
  return dtype !== 'float16' && kind !== 'MatMulNBits' && kind !== 'DequantizeLinear';
}

/** The weight `w` in one of the ways that exporters write it, in front of the node that reads it. */
function weight(c: LinearCase, dims: number[], use: (w: string) => NodeProto) {
  const values = randomNumbers(c.seed + 1, product(dims));
  const stored = (name: string, shape = dims, dtype = c.dtype) =>
    tensor(name, shape, values, dtype);
  switch (c.weightForm) {
    case 'Constant':
      return { nodes: [constant('w', stored('')), use('w')], initializers: [] };
    case 'Identity':
      return { nodes: [node('Identity', ['s'], 'w'), use('w')], initializers: [stored('s')] };
    case 'Cast': {
      if (!isCastable(c)) break;
      const to = dataTypeNumber(c.dtype);
      const initializers = [stored('s', dims, 'float16')];
      return { nodes: [node('Cast', ['s'], 'w', { to }), use('w')], initializers };
    }
    case 'Transpose': {
      if (dims.length !== 2) break;
      const initializers = [stored('s', [...dims].reverse())];
      return { nodes: [node('Transpose', ['s'], 'w', { perm: [1, 0] }), use('w')], initializers };
    }
  }
  return { nodes: [use('w')], initializers: [stored('w')] };
}

const BLOCK = 16;

function quantizedInBlocks(c: LinearCase, y: string) {
  const blocks = Math.ceil(c.in / BLOCK);
  const attributes = { K: c.in, N: c.out, bits: 4, block_size: BLOCK };
  const inputs = ['x', 'q', 'scales'];
  return {
    nodes: [node('com.microsoft:MatMulNBits', inputs, y, attributes, 'layer')],
    initializers: [
      tensor(
        'q',
        [c.out, blocks, BLOCK / 2],
        bytesOf(c.seed, (c.out * blocks * BLOCK) / 2),
        'uint8',
      ),
      tensor('scales', [c.out * blocks], randomNumbers(c.seed + 2, c.out * blocks, 0.2)),
    ],
  };
}

function bytesOf(seed: number, count: number): Float64Array {
  return randomNumbers(seed, count).map((v) => Math.floor((v + 1) * 127.9));
}

/** @param axis where the features are, counted from the end */
function biasOf(c: LinearCase, axis: number) {
  const dims = [c.out, ...Array<number>(-1 - axis).fill(1)];
  return {
    nodes: [node('Add', ['layer', 'bias'], 'y')],
    initializers: [tensor('bias', dims, randomNumbers(c.seed + 3, c.out), c.dtype)],
  };
}

/** The numbers with one axis moved to the end. */
function featuresLast(data: Float64Array, dims: readonly number[], axis: number): Float64Array {
  const size = dims[axis]!;
  const inner = product(dims.slice(axis + 1));
  const moved = new Float64Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const outer = Math.floor(i / (size * inner));
    const feature = Math.floor(i / inner) % size;
    moved[(outer * inner + (i % inner)) * size + feature] = data[i]!;
  }
  return moved;
}

/** The rows at every `stride`-th place along each axis of space. */
function strided(rows: Float64Array, dims: readonly number[], c: LinearCase): Float64Array {
  const space = dims.slice(2);
  const kept: number[] = [];
  for (let row = 0; row < rows.length / c.in; row++) {
    let rest = row;
    let keep = true;
    for (const size of [...space].reverse()) {
      keep &&= (rest % size) % c.stride === 0;
      rest = Math.floor(rest / size);
    }
    if (keep) kept.push(...rows.subarray(row * c.in, (row + 1) * c.in));
  }
  return Float64Array.from(kept);
}

function product(dims: readonly number[]): number {
  return dims.reduce((a, b) => a * b, 1);
}
