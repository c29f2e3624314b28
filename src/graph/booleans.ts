/**
 * Booleans as numbers: WebGPU moves and combines floats, and has kernels for few operators on
 * booleans.
 */

import { dataTypeNumber } from '../onnx/dtype.js';
import type { NewNode } from '../onnx/encode.js';
import type { GraphBuilder } from './builder.js';
import type { ValueTypes } from './value-type.js';

/** Rewrites the operators on booleans that GPUs lack, by a few that they have. */
export function replaceBooleans(graph: GraphBuilder, types: ValueTypes): void {
  const isBool = (name: string) => types.get(name)?.dtype === 'bool';
  for (const node of graph.nodes.splice(0)) {
    const key = (node.domain ?? '') === '' ? node.opType : '';
    const replace = Object.hasOwn(replacements, key) ? replacements[key] : undefined;
    if (replace && isBool(node.inputs[0]!)) replace(graph, node, isBool);
    else graph.add(node);
  }
}

/** Adds other nodes for one. */
type Replace = (graph: GraphBuilder, node: NewNode, isBool: (name: string) => boolean) => void;

const replacements: Readonly<Record<string, Replace>> = {
  Concat: asNumbers,
  Equal: compared,
  GatherElements: asNumbers,
  GatherND: asNumbers,
  Identity: asNumbers,
  Or: or,
  Pad: asNumbers,
  ScatterElements: asNumbers,
  Slice: asNumbers,
  Split: asNumbers,
  Tile: asNumbers,
  Transpose: asNumbers,
  Trilu: asNumbers,
};

/** Operators that only move elements move ones and zeros. */
function asNumbers(graph: GraphBuilder, node: NewNode, isBool: (name: string) => boolean): void {
  const inputs = node.inputs.map((name) => (isBool(name) ? cast(graph, name, 'float32') : name));
  const moved = node.outputs.map((name) => graph.fresh(`${name}/float32`));
  graph.add({ ...node, inputs, outputs: moved });
  const attributes = { to: { int: dataTypeNumber('bool') } };
  node.outputs.forEach((output, i) => {
    const name = graph.fresh(`${output}/bool`);
    graph.add({ name, opType: 'Cast', inputs: [moved[i]!], outputs: [output], attributes });
  });
}

function compared(graph: GraphBuilder, node: NewNode): void {
  graph.add({ ...node, inputs: node.inputs.map((name) => cast(graph, name, 'int32')) });
}

/** a or b is not (not a and not b). */
function or(graph: GraphBuilder, node: NewNode): void {
  const neither = graph.op(
    'And',
    node.inputs.map((name) => graph.op('Not', [name])),
  );
  graph.add({ ...node, opType: 'Not', inputs: [neither] });
}

function cast(graph: GraphBuilder, value: string, dtype: 'float32' | 'int32'): string {
  return graph.op('Cast', [value], { to: { int: dataTypeNumber(dtype) } }, `${value}/${dtype}`);
}
