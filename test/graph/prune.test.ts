import { describe, expect, it } from 'vitest';
import { bodyAttribute } from '../../src/graph/body.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { loadGraph } from '../../src/graph/load.js';
import { prune } from '../../src/graph/prune.js';
import { collect } from '../../src/onnx/edit.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { body, type ModelParts, model, node, tensor, value } from '../support/models.js';
import { expectSame, feed, run } from '../support/run.js';
import { parse } from '../support/wire.js';

/** A pruned graph with only the first output of the model. */
function pruned(bytes: Uint8Array): GraphBuilder {
  const opened = parse(bytes);
  const graph = loadGraph(opened, new TensorReader(opened, new ExternalFiles(opened)));
  graph.outputs.length = 1;
  prune(graph);
  return graph;
}

function contents({ nodes, initializers, inputs }: GraphBuilder) {
  const made = nodes.flatMap(({ outputs }) => outputs);
  return { made, weights: [...initializers.keys()], fed: inputs.map(({ name }) => name) };
}

/** `dead` is read by nothing that `y` needs. */
function withDeadEnd(parts: ModelParts): Uint8Array {
  return model({
    ...parts,
    nodes: [node('Neg', ['unread'], 'dead'), ...parts.nodes],
    inputs: [value('x', [3]), value('unread', [3]), ...(parts.inputs ?? [])],
    outputs: [value('y'), value('dead')],
  });
}

describe('pruning', () => {
  it('removes nodes, weights and inputs that no output needs', () => {
    const nodes = [
      node('Abs', ['x'], 'a'),
      node('Mul', ['a', 'used'], 'y'),
      node('Mul', ['a', 'unused'], 'z'),
    ];
    const initializers = [tensor('used', [3]), tensor('unused', [3])];
    const found = contents(pruned(withDeadEnd({ nodes, initializers, outputs: [] })));
    expect(found).toEqual({ made: ['a', 'y'], weights: ['used'], fed: ['x'] });
  });

  it('keeps a node of which one output is needed', () => {
    const nodes = [node('Split', ['x'], ['p', 'q', 'r'], { axis: 0 }), node('Neg', ['q'], 'y')];
    const found = contents(pruned(withDeadEnd({ nodes, outputs: [], opset: 13 })));
    expect(found.made).toEqual(['p', 'q', 'r', 'y']);
  });

  it('goes on behind attributes that are tensors', () => {
    const filled = { value: { tensor: tensor('', [1], [2]) } };
    const nodes = [
      node('Shape', ['x'], 'shape'),
      node('ConstantOfShape', ['shape'], 'twos', filled),
      node('Mul', ['x', 'twos'], 'y'),
    ];
    const found = contents(pruned(withDeadEnd({ nodes, outputs: [] })));
    expect(found).toEqual({ made: ['shape', 'twos', 'y'], weights: [], fed: ['x'] });
  });

  const captured = node('Mul', ['x', 'weight'], 'around');
  const bodies: Record<string, ModelParts['nodes']> = {
    If: [
      node('If', ['flag'], 'y', {
        then_branch: { graph: body({ nodes: [node('Abs', ['around'], 't')], outputs: ['t'] }) },
        // An output of a body may be a value around it.
        else_branch: {
          graph: body({ nodes: [node('Identity', ['around'], 'e')], outputs: ['e'] }),
        },
      }),
    ],
    Loop: [
      node('Loop', ['trips', '', 'x'], 'y', {
        body: {
          graph: body({
            nodes: [node('Identity', ['on'], 'go'), node('Add', ['carried', 'around'], 'next')],
            inputs: [value('i', [], 'int64'), value('on', [], 'bool'), value('carried')],
            outputs: [value('go', [], 'bool'), 'next'],
          }),
        },
      }),
    ],
    Scan: [
      node('Scan', ['x', 'rows'], ['y', 'all'], {
        num_scan_inputs: 1,
        body: {
          graph: body({
            nodes: [
              node('Add', ['state', 'around'], 's'),
              node('Add', ['s', 'row'], 'next'),
              node('Neg', ['row'], 'out'),
            ],
            inputs: [value('state', [3]), value('row', [3])],
            outputs: ['next', 'out'],
          }),
        },
      }),
    ],
  };

  it.each(Object.entries(bodies))(
    'keeps what the body of %s reads, and nothing else',
    async (_, nodes) => {
      const initializers = [
        tensor('weight', [3]),
        tensor('rows', [2, 3]),
        tensor('trips', [], [2], 'int64'),
        tensor('unused', [3]),
      ];
      const inputs = [value('flag', [], 'bool')];
      const bytes = withDeadEnd({ nodes: [captured, ...nodes], initializers, inputs, outputs: [] });
      const graph = pruned(bytes);
      expect(contents(graph).made).toContain('around');
      expect(contents(graph).made).not.toContain('dead');
      expect(contents(graph).weights).toContain('weight');
      expect(contents(graph).weights).not.toContain('unused');
      expect(contents(graph).fed).not.toContain('unread');
      const x = feed([3], [1, -2, 3]);
      const feeds = { x, unread: x, flag: feed([], [1], 'bool') };
      const { y } = await run(await collect(graph.modelPieces()), feeds);
      expectSame({ y: y! }, { y: (await run(bytes, feeds)).y! });
    },
  );

  it('keeps what bodies within bodies read', () => {
    const inner = body({ nodes: [node('Abs', ['around'], 't')], outputs: ['t'] });
    const nested = node('If', ['flag'], 'n', {
      then_branch: { graph: inner },
      else_branch: { graph: inner },
    });
    const outer = body({ nodes: [nested], outputs: ['n'] });
    const nodes = [
      captured,
      node('If', ['flag'], 'y', { then_branch: { graph: outer }, else_branch: { graph: outer } }),
    ];
    const inputs = [value('flag', [], 'bool')];
    const initializers = [tensor('weight', [3])];
    const found = contents(pruned(withDeadEnd({ nodes, initializers, inputs, outputs: [] })));
    expect(found).toEqual({ made: ['around', 'y'], weights: ['weight'], fed: ['x', 'flag'] });
  });

  it('keeps what a body that was built here reads, and nothing else', () => {
    const graph = new GraphBuilder([{ domain: '', version: 17 }]);
    for (const name of ['x', 'unread', 'rows']) {
      graph.reserve(name);
      graph.inputs.push({ name, dtype: 'float32', shape: name === 'rows' ? [2, 3] : [3] });
    }
    const around = graph.op('Abs', ['x'], {}, 'around');
    graph.op('Abs', ['unread'], {}, 'dead');
    const scanBody = bodyAttribute(graph, 'body', (scan) => {
      const row = scan.fresh('row');
      scan.inputs.push({ name: row, dtype: 'float32', shape: [3] });
      const sum = scan.op('Add', [row, around]);
      scan.outputs.push({ name: sum, dtype: 'float32', shape: null });
    });
    const y = graph.op('Scan', ['rows'], { body: scanBody, num_scan_inputs: { int: 1 } });
    graph.outputs.push({ name: y, dtype: 'float32', shape: null });
    prune(graph);
    expect(contents(graph)).toEqual({ made: [around, y], weights: [], fed: ['x', 'rows'] });
  });
});

it('a constant that was taken out is made anew when it is wanted again', () => {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  const first = graph.integers([3]);
  prune(graph);
  expect(graph.initializers.has(first)).toBe(false);
  expect(graph.initializers.has(graph.integers([3]))).toBe(true);
});
