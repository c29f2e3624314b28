import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { loadGraph } from '../../src/graph/load.js';
import { collect } from '../../src/onnx/edit.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { openSession } from '../../src/runtime/session.js';
import { failure } from '../support/files.js';
import {
  body,
  constant,
  type FunctionProto,
  type ModelParts,
  model,
  node,
  tensor,
  value,
} from '../support/models.js';

const { AttributeType } = onnxProto.onnx.AttributeProto;

function load(bytes: Uint8Array) {
  const read = parseModel(new MemorySource(bytes));
  return loadGraph(read, new TensorReader(read, new ExternalFiles(read)));
}

/** y for x = [1, 2], which has to be what the model itself computes. */
async function result(parts: Omit<ModelParts, 'inputs' | 'outputs'>) {
  const bytes = model({
    ...parts,
    inputs: [value('x', [2])],
    outputs: [value('y', [2])],
  });
  const graph = load(bytes);
  const x = { dtype: 'float32', dims: [2], data: Float32Array.of(1, 2) } as const;
  const results = await Promise.all(
    [bytes, await collect(graph.modelPieces())].map(async (file) => {
      const session = await openSession(file);
      const found = (await session.run(new Map([['x', x]]))).get('y')!.data;
      await session.release();
      return [...(found as Float32Array)];
    }),
  );
  expect(results[1]).toEqual(results[0]);
  return { y: results[1], operators: graph.nodes.map(({ opType }) => opType), graph };
}

const affine: FunctionProto = {
  name: 'Affine',
  domain: 'local',
  input: ['i', 'scale'],
  output: ['o'],
  opsetImport: [{ domain: '', version: 17 }],
  node: [node('Mul', ['i', 'scale'], 'm'), node('Add', ['m', 'i'], 'o')],
};
const three = tensor('three', [], [3]);

describe('functions', () => {
  it('become their nodes, each call with values of its own', async () => {
    const { y, operators, graph } = await result({
      nodes: [node('local:Affine', ['x', 'three'], 'a'), node('local:Affine', ['a', 'three'], 'y')],
      initializers: [three],
      functions: [affine],
    });
    expect(y).toEqual([16, 32]);
    expect(operators).toEqual(['Mul', 'Add', 'Identity', 'Mul', 'Add', 'Identity']);
    const names = graph.nodes.flatMap(({ outputs }) => outputs);
    expect(new Set(names).size).toBe(names.length);
  });

  it('see through calls of other functions', async () => {
    const twice: FunctionProto = {
      name: 'Twice',
      domain: 'local',
      input: ['i', 'scale'],
      output: ['o'],
      opsetImport: [
        { domain: '', version: 17 },
        { domain: 'local', version: 1 },
      ],
      node: [node('local:Affine', ['i', 'scale'], 'm'), node('local:Affine', ['m', 'scale'], 'o')],
    };
    const { y, operators } = await result({
      nodes: [node('local:Twice', ['x', 'three'], 'y')],
      initializers: [three],
      functions: [affine, twice],
    });
    expect(y).toEqual([16, 32]);
    expect(operators).not.toContain('Affine');
  });

  it('take attributes from the call', async () => {
    const leaky: FunctionProto = {
      name: 'Leaky',
      domain: 'local',
      input: ['i'],
      output: ['o'],
      attribute: ['slope'],
      opsetImport: [{ domain: '', version: 17 }],
      node: [
        node('Neg', ['i'], 'n'),
        {
          ...node('LeakyRelu', ['n'], 'o'),
          attribute: [{ name: 'alpha', refAttrName: 'slope', type: AttributeType.FLOAT }],
        },
      ],
    };
    const call = node('local:Leaky', ['x'], 'y', { slope: { float: 0.5 } });
    const { y, graph } = await result({ nodes: [call], functions: [leaky] });
    expect(y).toEqual([-0.5, -1]);
    expect(graph.nodes[1]!.attributes).toEqual({ alpha: { float: 0.5 } });
  });

  it('leave out what the call leaves out', async () => {
    const clip: FunctionProto = {
      name: 'AtMost',
      domain: 'local',
      input: ['i', 'low', 'high'],
      output: ['o'],
      opsetImport: [{ domain: '', version: 17 }],
      node: [node('Clip', ['i', 'low', 'high'], 'o')],
    };
    const { y } = await result({
      nodes: [node('local:AtMost', ['x', '', 'three'], 'y')],
      initializers: [tensor('three', [], [1.5])],
      functions: [clip],
    });
    expect(y).toEqual([1, 1.5]);
  });

  it('keep the bodies in them, with the names of the place they stand in', async () => {
    const step = body({
      nodes: [node('Add', ['sum', 'i'], 'next'), node('Identity', ['going'], 'goes')],
      inputs: [value('at', [], 'int64'), value('going', [], 'bool'), value('sum', [2])],
      outputs: [value('goes', [], 'bool'), value('next', [2])],
    });
    const loop: FunctionProto = {
      name: 'Repeat',
      domain: 'local',
      input: ['i', 'times'],
      output: ['o'],
      opsetImport: [{ domain: '', version: 17 }],
      node: [node('Loop', ['times', '', 'i'], 'o', { body: { graph: step } })],
    };
    const calls = [
      node('local:Repeat', ['x', 'times'], 'a'),
      node('local:Repeat', ['a', 'times'], 'y'),
    ];
    const { y, graph } = await result({
      nodes: calls,
      initializers: [tensor('times', [], [2], 'int64')],
      functions: [loop],
    });
    expect(y).toEqual([9, 18]);
    expect(graph.nodes[0]!.attributes).toMatchObject({ body: { captures: ['x'] } });
  });

  it('that call themselves are refused', async () => {
    const endless = { ...affine, node: [node('local:Affine', ['i', 'scale'], 'o')] };
    const bytes = model({
      nodes: [node('local:Affine', ['x', 'three'], 'y', {}, 'call')],
      inputs: [value('x', [2])],
      outputs: [value('y', [2])],
      initializers: [three],
      functions: [endless],
    });
    const { message } = await failure(() => load(bytes), 'unsupported');
    expect(message).toMatch(/nested deeper than 64 calls/);
  });

  it('in another opset than the model are refused', async () => {
    const older = { ...affine, opsetImport: [{ domain: '', version: 11 }] };
    const bytes = model({
      nodes: [node('local:Affine', ['x', 'three'], 'y', {}, 'call')],
      inputs: [value('x', [2])],
      outputs: [value('y', [2])],
      initializers: [three],
      functions: [older],
    });
    const { message } = await failure(() => load(bytes), 'unsupported');
    expect(message).toBe(
      'call (Affine) cannot be inlined: the function Affine is written in opset 11, the model in 17',
    );
  });
});

describe('If', () => {
  const branches = {
    then_branch: {
      graph: body({
        nodes: [node('Mul', ['x', 'three'], 'm'), node('Add', ['m', 'bias'], 't')],
        initializers: [tensor('bias', [2], [0.5, 1])],
        outputs: [value('t', [2])],
      }),
    },
    else_branch: {
      graph: body({ nodes: [node('Neg', ['x'], 'e')], outputs: [value('e', [2])] }),
    },
  };

  it('with a constant condition becomes the branch it takes', async () => {
    const { y, operators } = await result({
      nodes: [node('If', ['yes'], 'y', branches)],
      initializers: [three, tensor('yes', [], [1], 'bool')],
    });
    expect(y).toEqual([3.5, 7]);
    expect(operators).toEqual(['Mul', 'Add', 'Identity']);
  });

  it('follows a condition through Cast and Not', async () => {
    const { y, operators } = await result({
      nodes: [
        constant('one', tensor('', [], [1], 'int64')),
        node('Cast', ['one'], 'yes', { to: 9 }),
        node('Not', ['yes'], 'no'),
        node('If', ['no'], 'y', branches),
      ],
      initializers: [three],
    });
    expect(y).toEqual([-1, -2]);
    expect(operators).toContain('Neg');
  });

  it('with a condition that depends on data stays, and says what it reads', async () => {
    const { y, graph } = await result({
      nodes: [
        node('ReduceSum', ['x'], 'sum', { keepdims: 0 }),
        node('Cast', ['sum'], 'some', { to: 9 }),
        node('If', ['some'], 'y', branches),
      ],
      initializers: [three],
    });
    expect(y).toEqual([3.5, 7]);
    expect(graph.nodes.at(-1)!.attributes).toMatchObject({
      then_branch: { captures: ['x', 'three'] },
      else_branch: { captures: ['x'] },
    });
  });

  it('passes on a value of the graph around it', async () => {
    const { y } = await result({
      nodes: [
        node('Abs', ['x'], 'a'),
        node('If', ['yes'], 'y', {
          then_branch: {
            graph: body({ nodes: [node('Identity', ['a'], 't')], outputs: [value('t', [2])] }),
          },
          else_branch: branches.else_branch,
        }),
      ],
      initializers: [tensor('yes', [], [1], 'bool')],
    });
    expect(y).toEqual([1, 2]);
  });
});
