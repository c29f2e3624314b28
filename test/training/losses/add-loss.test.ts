import { describe, expect, test } from 'vitest';
import { OnnxLoraError } from '../../../src/errors.js';
import { GraphBuilder } from '../../../src/graph/builder.js';
import type { DataTypeName } from '../../../src/onnx/dtype.js';
import type { Dim } from '../../../src/onnx/model.js';
import { addLoss, type LossName, type LossOptions } from '../../../src/training/losses/index.js';

function graphWith(dtype: DataTypeName = 'float32', opset = 17): GraphBuilder {
  const graph = new GraphBuilder([{ domain: '', version: opset }]);
  graph.reserve('x');
  graph.inputs.push({ name: 'x', dtype, shape: null });
  return graph;
}

function refusal(
  loss: LossName,
  shape: readonly Dim[],
  options: LossOptions = {},
  graph = graphWith(),
  dtype: DataTypeName = 'float32',
): OnnxLoraError {
  try {
    addLoss(graph, loss, { name: 'x', dtype, shape }, options);
  } catch (error) {
    expect(error).toBeInstanceOf(OnnxLoraError);
    return error as OnnxLoraError;
  }
  throw new Error('expected an error');
}

describe('inputs', () => {
  const inputs = (loss: LossName, shape: readonly Dim[], dataKeys: string[] = []) =>
    addLoss(graphWith(), loss, { name: 'x', dtype: 'float32', shape }, { dataKeys }).inputs;

  test.each<[LossName, Dim[], string[], object[]]>([
    ['cross-entropy', ['b', 't', 9], [], [{ name: 'labels', dtype: 'int64', shape: ['b', 't'] }]],
    ['causal-lm', ['b', 't', 9], [], [{ name: 'labels', dtype: 'int64', shape: ['b', 't'] }]],
    ['mse', ['b', 3], [], [{ name: 'target', dtype: 'float32', shape: ['b', 3] }]],
    ['mse', ['b', 1], [], [{ name: 'target', dtype: 'float32', shape: null }]],
    ['bce', ['b', 3], [], [{ name: 'labels', dtype: 'int64', shape: ['b', 3] }]],
    ['bce', ['b', 3], ['target'], [{ name: 'target', dtype: 'float32', shape: ['b', 3] }]],
    ['mnr', ['b', 3], [], []],
    ['kl', ['b', 3], [], [{ name: 'teacher', dtype: 'float32', shape: ['b', 3] }]],
  ])('of %s behind %j with the data %j', (loss, shape, keys, expected) => {
    expect(inputs(loss, shape, keys)).toEqual(expected);
  });

  test('of ctc', () => {
    expect(inputs('ctc', ['b', 't', 9])).toEqual([
      { name: 'labels', dtype: 'int64', shape: ['b', 'labels_length'] },
      { name: 'input_lengths', dtype: 'int64', shape: ['b'] },
      { name: 'label_lengths', dtype: 'int64', shape: ['b'] },
    ]);
  });

  test('an input of the model may not have the name of one', () => {
    const graph = graphWith();
    graph.inputs.push({ name: 'labels', dtype: 'int64', shape: null });
    const error = refusal('cross-entropy', ['b', 3], {}, graph);
    expect(error.message).toContain('has an input of that name');
    expect(error.hint).toContain('Rename labels');
  });

  test('a value within the model may: the input has another one then', () => {
    const graph = graphWith();
    graph.add({ name: '', opType: 'Relu', inputs: ['x'], outputs: ['target'] });
    const { inputs, renamed } = addLoss(graph, 'mse', {
      ...{ name: 'x', dtype: 'float32', shape: ['b', 3] },
    });
    expect(inputs.map(({ name }) => name)).toEqual(['target']);
    expect([...renamed]).toEqual([['target', 'target_1']]);
    expect(graph.inputs.map(({ name }) => name)).toContain('target_1');
  });
});

describe('outputs that do not fit', () => {
  test.each<[LossName, Dim[]]>([
    ['cross-entropy', ['b']],
    ['causal-lm', ['b', 9]],
    ['ctc', ['b', 9]],
    ['mnr', ['b', 't', 9]],
    ['kl', ['b']],
    ['mse', []],
  ])('%s behind %j', (loss, shape) => {
    const error = refusal(loss, shape);
    expect(error.message).toContain(`the loss ${loss} takes`);
    expect(error.message).toContain(`found x: float32 [${shape.join(', ')}]`);
    expect(error.hint).toContain('`modelOutput`');
  });

  test('integers', () => {
    const error = refusal('cross-entropy', ['b', 3], {}, graphWith('int64'), 'int64');
    expect(error.message).toContain('found x: int64 [b, 3]');
  });

  test('opsets without the operators', () => {
    const error = refusal('cross-entropy', ['b', 3], {}, graphWith('float32', 9));
    expect(error.code).toBe('unsupported');
    expect(error.message).toContain('opset 9');
  });
});

test.each<[LossName, LossOptions, string]>([
  [
    'cross-entropy',
    { labelSmoothing: 1 },
    '`labelSmoothing` is 1, expected a share from 0 to below 1',
  ],
  ['cross-entropy', { ignoreIndex: 0.5 }, '`ignoreIndex` is 0.5, expected a whole number'],
  ['cross-entropy', { classWeights: [1, 2] }, '2 class weights for the 3 classes'],
  ['cross-entropy', { classWeights: [1, -2, 1] }, '`classWeights`[1] is -2, expected 0 or more'],
  ['focal', { focalGamma: -1 }, '`focalGamma` is -1'],
  ['focal', { classWeights: [1, 2] }, '2 class weights for the 3 classes'],
  ['bce', { labelSmoothing: -0.1 }, '`labelSmoothing` is -0.1'],
  ['bce', { posWeight: [1, 2] }, '2 weights of positive answers'],
  ['bce', { posWeight: -1 }, '`posWeight` is -1, expected 0 or more'],
  ['kl', { temperature: 0 }, 'temperature'],
  ['mnr', { scale: -1 }, 'scale'],
  ['mse', { blank: 1 }, 'unknown option `blank` of the loss mse'],
])('%s refuses the options %j', (loss, options, message) => {
  const error = refusal(loss, ['b', 3], options);
  expect(error.code).toBe('invalid-argument');
  expect(error.message).toContain(message);
});

test('ctc refuses a blank that is no class', () => {
  expect(refusal('ctc', ['b', 't', 3], { blank: 3 }).message).toContain('classes 0 to 2');
});

describe('models that end in probabilities', () => {
  const seedOf = (nodes: (graph: GraphBuilder) => string, loss: LossName, opset = 17) => {
    const graph = graphWith('float32', opset);
    const name = nodes(graph);
    return addLoss(graph, loss, { name, dtype: 'float32', shape: ['b', 't', 5] }).logits;
  };
  const axis = (value: number) => ({ axis: { int: value } });

  test.each<LossName>(['cross-entropy', 'causal-lm', 'ctc', 'kl'])(
    '%s goes before their Softmax',
    (loss) => {
      expect(seedOf((graph) => graph.op('Softmax', ['x'], axis(-1)), loss)).toBe('x');
      expect(seedOf((graph) => graph.op('Softmax', ['x'], axis(2)), loss)).toBe('x');
      expect(seedOf((graph) => graph.op('Softmax', ['x']), loss)).toBe('x');
    },
  );

  test('also where an Identity names the output', () => {
    const named = (graph: GraphBuilder) => graph.op('Identity', [graph.op('Softmax', ['x'])]);
    expect(seedOf(named, 'cross-entropy')).toBe('x');
  });

  test('bce goes before a Sigmoid, and only before that', () => {
    expect(seedOf((graph) => graph.op('Sigmoid', ['x']), 'bce')).toBe('x');
    expect(seedOf((graph) => graph.op('Softmax', ['x']), 'bce')).toBe('softmax');
  });

  test('a Softmax over other axes stays', () => {
    expect(seedOf((graph) => graph.op('Softmax', ['x'], axis(1)), 'ctc')).toBe('softmax');
    // Before opset 13 the default is axis 1, and all behind it.
    expect(seedOf((graph) => graph.op('Softmax', ['x']), 'ctc', 12)).toBe('softmax');
  });

  test('one over an unknown number of axes is not taken for logits', () => {
    const graph = graphWith();
    const rows = graph.op('Softmax', [graph.op('Flatten', ['x'])]);
    const name = graph.op('Reshape', [rows, graph.op('Shape', ['x'])]);
    const add = () => addLoss(graph, 'cross-entropy', { name, dtype: 'float32', shape: null });
    expect(add).toThrow(/comes from a Softmax over an unknown number of axes/);
  });

  test('log-probabilities are logits', () => {
    expect(seedOf((graph) => graph.op('LogSoftmax', ['x']), 'ctc')).toBe('logsoftmax');
  });

  test('mse takes the output as it is', () => {
    expect(seedOf((graph) => graph.op('Softmax', ['x']), 'mse')).toBe('softmax');
  });
});
