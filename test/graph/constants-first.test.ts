import { expect, test } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { constantsFirst } from '../../src/graph/constants-first.js';

test('what depends on no input comes first, in the order that it had', () => {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  graph.inputs.push({ name: 'x', dtype: 'float32', shape: [2] });
  const y = graph.op('Neg', ['x'], {}, 'y');
  const a = graph.op('Neg', [graph.constant('float32', [2], [1, 2])], {}, 'a');
  const z = graph.op('Add', [y, a], {}, 'z');
  const b = graph.op('Neg', [a], {}, 'b');
  graph.op('Add', [z, b], {}, 'sum');
  constantsFirst(graph);
  expect(graph.nodes.map(({ outputs }) => outputs[0])).toEqual(['a', 'b', 'y', 'z', 'sum']);
});
