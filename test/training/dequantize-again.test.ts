import { expect, test } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { dequantizeAgain } from '../../src/training/dequantize-again.js';
import { int } from '../autodiff/operators.js';

/** y = x · W in the forward pass, dx = dy · Wᵀ in the backward pass, W dequantized. */
function step() {
  const graph = new GraphBuilder([{ domain: '', version: 21 }]);
  for (const name of ['x', 'dy']) graph.inputs.push({ name, dtype: 'float32', shape: [2, 2] });
  const scales = graph.constant('float32', [2], [0.5, 2]);
  graph.addInitializer({ name: 'codes', dtype: 'int8', dims: [2, 2], data: new Uint8Array(4) });
  const w = graph.op('DequantizeLinear', ['codes', scales], { axis: int(1) }, 'w');
  const y = graph.op('MatMul', ['x', w], {}, 'y');
  const dx = graph.op('MatMul', ['dy', graph.op('Transpose', [w], {}, 'wt')], {}, 'dx');
  const readers = () => new Map(graph.nodes.map(({ outputs: [o], inputs }) => [o!, inputs]));
  return { graph, w, y, dx, readers, forward: new Set([w, y]) };
}

test('the backward pass reads a weight of its own', () => {
  const { graph, w, y, readers, forward } = step();
  dequantizeAgain(graph, forward, 0);
  const [own] = readers().get('wt')!;
  expect(own).not.toBe(w);
  expect(readers().get(y)).toEqual(['x', w]);
  const [first, second] = [w, own!].map((name) => readers().get(name)!);
  expect(second![0]).toBe(first![0]);
  // ONNX Runtime makes one node of two with the same inputs.
  expect(second![1]).not.toBe(first![1]);
});

test('small weights are kept', () => {
  const { graph, w, readers, forward } = step();
  dequantizeAgain(graph, forward);
  expect(readers().get('wt')).toEqual([w]);
});
