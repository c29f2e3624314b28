/** What is not differentiated says so: never a gradient that is silently 0 or wrong. */
import { describe, expect, it } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { loadGraph } from '../../src/graph/load.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { failure } from '../support/files.js';
import { body, model, node, tensor, value } from '../support/models.js';
import type { Build } from './check.js';
import { add, int, text } from './operators.js';

/** The error of Σ f(2x) for x [2, 4]. */
async function refusal(build: Build, opset = 18) {
  const graph = new GraphBuilder([
    { domain: '', version: opset },
    { domain: 'com.microsoft', version: 1 },
  ]);
  graph.inputs.push({ name: 'x', dtype: 'float32', shape: [2, 4] });
  const double = graph.op('Mul', ['x', graph.scalar('float32', 2)], {}, 'double');
  const loss = graph.op('ReduceSum', [build(graph, [double])], { keepdims: int(0) }, 'loss');
  const types = await inferTypes(graph);
  return failure(() => differentiate(graph, types, loss, ['x']), 'unsupported');
}

describe('an operator without a rule', () => {
  it('is named with its node and the path to it, and what to do', async () => {
    const error = await refusal((g, [x]) => g.op('Mod', [x!, x!], { fmod: int(1) }, 'modulo'));
    expect(error.message).toBe(
      'modulo (Mod) cannot be differentiated: it has no gradient rule. It lies between an adapter and the loss: double -> modulo',
    );
    expect(error.node).toBe('modulo');
    expect(error.hint).toMatch(/Adapt only layers after this node/);
  });
});

describe('a use of an operator that has no gradient', () => {
  it('names the node that a rank is lost at', async () => {
    const { message } = await refusal((g, [x]) => {
      g.inputs.push({ name: 'axes', dtype: 'int64', shape: [1] });
      const wider = g.op('Unsqueeze', [x!, 'axes'], {}, 'wider');
      const same = g.op('Abs', [wider]);
      return g.op('MatMul', [same, g.constant('float32', [4, 1], [1, 2, 3, 4])]);
    });
    expect(message).toContain(
      'the rank of abs is not known: wider (Unsqueeze) makes it by axes, which is computed or fed, expected a constant',
    );
  });

  const cases: [string, RegExp, Build][] = [
    [
      'scattering with mul',
      /ScatterND\) cannot .*: reduction mul is not supported, only none and add/,
      (g, [x]) =>
        g.op('ScatterND', [x!, g.constant('int64', [1, 1], [0]), x!], { reduction: text('mul') }),
    ],
    [
      'a way through a sequence of tensors',
      /SequenceAt\) cannot .*no gradient rule.*: double -> .* -> sequenceat/,
      (g, [x]) => {
        const parts = g.op('SplitToSequence', [x!], { axis: int(1) });
        return g.op('Add', [x!, g.op('SequenceAt', [parts, g.scalar('int64', 0)])]);
      },
    ],
    [
      'a way through an optional value',
      /OptionalGetElement\) cannot .*no gradient rule/,
      (g, [x]) => g.op('Add', [x!, g.op('OptionalGetElement', [g.op('Optional', [x!])])]),
    ],
    [
      'a diagonal of Einsum',
      /the index that repeats in ii \(a diagonal\)/,
      (g, [x]) => {
        const square = g.op('MatMul', [x!, g.op('Transpose', [x!])]);
        return g.op('Einsum', [square], { equation: text('ii->i') });
      },
    ],
    [
      'a convolution of integers',
      /ConvInteger\) cannot be differentiated: it convolves integers/,
      (g, [x]) => {
        const [codes, scale] = g.ops('DynamicQuantizeLinear', [x!], 3);
        const image = g.op('Reshape', [codes!, g.integers([1, 1, 2, 3])]);
        const wide = g.op('ConvInteger', [image, g.constant('uint8', [1, 1, 1, 1], [3])]);
        return g.op('Mul', [g.op('Cast', [wide], { to: int(1) }), scale!]);
      },
    ],
    [
      'batch normalization that trains',
      /in training mode/,
      (g, [x]) => {
        const inputs = [x!, ...Array(4).fill(g.constant('float32', [4], [1, 1, 1, 1]))];
        return g.ops('BatchNormalization', inputs, 3, { training_mode: int(1) })[0]!;
      },
    ],
    [
      'attention in a form that is not known',
      /MultiHeadAttention\) cannot be differentiated: past_sequence_length and cache_indirection are/,
      (g, [x]) => {
        const part = g.op('Reshape', [x!, g.integers([1, 2, -1])]);
        const length = g.constant('int32', [1], [0]);
        const given = [part, part, part, '', '', '', '', '', length];
        return add(g, 'com.microsoft:MultiHeadAttention', given, { num_heads: int(1) });
      },
    ],
  ];
  for (const [name, reason, build] of cases) {
    it(name, async () => {
      expect((await refusal(build)).message).toMatch(reason);
    });
  }

  it('is fine where no gradient passes', async () => {
    const graph = new GraphBuilder([{ domain: '', version: 18 }]);
    graph.inputs.push({ name: 'x', dtype: 'float32', shape: [2] });
    graph.inputs.push({ name: 'z', dtype: 'float32', shape: [2] });
    const modulo = graph.op('Mod', ['z', graph.scalar('float32', 2)], { fmod: int(1) });
    const loss = graph.op('ReduceSum', [graph.op('Mul', ['x', modulo])], { keepdims: int(0) });
    const gradients = differentiate(graph, await inferTypes(graph), loss, ['x']);
    expect(graph.nodes.find(({ name }) => name === gradients.get('x'))?.opType).toBe('Mul');
  });
});

describe('control flow that depends on data', () => {
  it('is refused though it reads the value from around it', async () => {
    const branch = (name: string, operator: string) => ({
      graph: body({ nodes: [node(operator, ['a'], name)], outputs: [value(name, [2])] }),
    });
    const bytes = model({
      nodes: [
        node('Mul', ['x', 'two'], 'a'),
        node('ReduceSum', ['x'], 'sum', { keepdims: 0 }),
        node('Cast', ['sum'], 'some', { to: 9 }),
        node('If', ['some'], 'y', {
          then_branch: branch('t', 'Neg'),
          else_branch: branch('e', 'Abs'),
        }),
      ],
      initializers: [tensor('two', [], [2])],
      inputs: [value('x', [2])],
      outputs: [value('y', [2])],
    });
    const read = parseModel(new MemorySource(bytes));
    const graph = loadGraph(read, new TensorReader(read, new ExternalFiles(read)));
    const loss = graph.op('ReduceSum', ['y'], { keepdims: int(0) });
    const types = await inferTypes(graph);
    const error = await failure(() => differentiate(graph, types, loss, ['x']), 'unsupported');
    expect(error.message).toMatch(
      /y \(If\) cannot be differentiated: what it runs depends on data.*: a -> y/,
    );
  });
});
