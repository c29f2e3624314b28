import { readFileSync } from 'node:fs';
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { collect, MessageEdit } from '../../src/onnx/edit.js';
import {
  AttributeField,
  EntryField,
  GraphField,
  ModelField,
  NodeField,
  TensorField,
} from '../../src/onnx/fields.js';
import { allGraphs, enclosingGraphs, nodeLabel, standardOpset } from '../../src/onnx/model.js';
import { openModel } from '../../src/onnx/parse.js';
import { failure, temporaryFolder } from '../support/files.js';
import { body, constant, model, node, tensor, value } from '../support/models.js';
import { bytesField, concat, extend, parse, varint, varintField } from '../support/wire.js';
import { zooCases, zooModel } from '../support/zoo.js';

const { onnx } = onnxProto;
const simple = model({
  nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'product')],
  initializers: [tensor('w', [2, 3])],
  inputs: [value('x', ['batch', 2])],
  outputs: ['y'],
});

describe('a model', () => {
  it.each([3, 4, 7, 8, 10, 11, 13])('of IR version %i is read', (irVersion) => {
    const { graph, ...read } = parse(model({ ...minimal, irVersion }));
    expect(read.irVersion).toBe(irVersion);
    expect(graph.nodes.map(nodeLabel)).toEqual(['product']);
    expect(graph.inputs.map(({ name }) => name)).toEqual(irVersion < 4 ? ['x', 'w'] : ['x']);
  });

  const minimal = {
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'product')],
    initializers: [tensor('w', [2, 3])],
    inputs: ['x'],
    outputs: ['y'],
  };

  it.each(zooCases)('%s has its nodes in the order of the file', (name) => {
    const read = openModel(zooModel(name));
    const proto = onnx.ModelProto.decode(readFileSync(zooModel(name)));
    expect(
      read.graph.nodes.map(({ opType, inputs, outputs }) => [opType, inputs, outputs]),
    ).toEqual(proto.graph!.node!.map(({ opType, input, output }) => [opType, input, output]));
    expect([...read.graph.initializers.keys()]).toEqual(
      proto.graph!.initializer!.map((initializer) => initializer.name),
    );
    read.close();
  });

  it.each(zooCases)('%s is the same bytes after an edit that changes nothing', async (name) => {
    const read = openModel(zooModel(name));
    const edit = new MessageEdit(read.source, read.range);
    const graph = edit.child(read.graph.field);
    for (const one of read.graph.nodes) graph.child(one.field);
    expect(Buffer.compare(await collect(edit.pieces()), readFileSync(zooModel(name)))).toBe(0);
    read.close();
  });

  it('says what its inputs and operators are', () => {
    const read = parse(simple);
    expect(read.graph.inputs[0]).toMatchObject({ name: 'x', dataType: 1, shape: ['batch', 2] });
    expect(read.graph.outputs[0]!.shape).toBeNull();
    expect(read.producer).toBe('test');
    expect(standardOpset(read)).toBe(17);
  });

  it('may call the standard domain ai.onnx', () => {
    const named = extend(
      model({ nodes: [node('ai.onnx:Relu', ['x'], 'y')], inputs: ['x'], outputs: ['y'] }),
      [],
      bytesField(ModelField.opsetImport, concat(bytesField(1, 'ai.onnx'), varintField(2, 21))),
    );
    const read = parse(named);
    expect(read.graph.nodes[0]!.domain).toBe('');
    expect(read.opsets.map(({ domain }) => domain)).toEqual(['', '', '']);
  });
});

describe('subgraphs and functions', () => {
  const branch = (name: string) =>
    body({ nodes: [node('MatMul', ['x', name], 'r')], outputs: ['r'] });
  const nested = model({
    nodes: [
      node('If', ['c'], 'y', {
        then_branch: { graph: branch('a') },
        else_branch: { graph: branch('b') },
      }),
    ],
    initializers: [tensor('a', [2, 2]), tensor('b', [2, 2])],
    inputs: ['x', value('c', [], 'bool')],
    outputs: ['y'],
  });

  it('gives the bodies of control flow after the graph around them', () => {
    const { graph } = parse(nested);
    const bodies = [...allGraphs(graph)].slice(1);
    expect(bodies.map((inner) => inner.nodes[0]!.inputs[1])).toEqual(['a', 'b']);
    expect([...enclosingGraphs(bodies[1]!)]).toEqual([bodies[1], graph]);
  });

  it('keeps functions apart from the graph', () => {
    const read = parse(
      model({
        nodes: [node('local:Twice', ['x'], 'y')],
        inputs: ['x'],
        outputs: ['y'],
        functions: [
          {
            name: 'Twice',
            domain: 'local',
            input: ['i'],
            output: ['o'],
            node: [node('Add', ['i', 'i'], 'o')],
          },
        ],
      }),
    );
    expect(read.functions).toMatchObject([
      {
        name: 'Twice',
        domain: 'local',
        body: { inputs: [{ name: 'i' }], outputs: [{ name: 'o' }], nodes: [{ opType: 'Add' }] },
      },
    ]);
  });

  it('reads 64 levels and refuses more', async () => {
    const nest = (levels: number) => {
      let inner = bytesField(GraphField.name, 'innermost');
      for (let i = 0; i < levels; i++) {
        const attribute = bytesField(AttributeField.g, inner);
        inner = bytesField(GraphField.node, bytesField(NodeField.attribute, attribute));
      }
      return parse(concat(varintField(1, 8), bytesField(ModelField.graph, inner)));
    };
    expect([...allGraphs(nest(64).graph)].at(-1)!.name).toBe('innermost');
    const { message } = await failure(() => nest(65), 'invalid-model');
    expect(message).toContain('at most 64 nested graphs');
  });
});

describe('what newer versions of ONNX added', () => {
  const entry = (key: string, text: string) =>
    concat(bytesField(EntryField.key, key), bytesField(EntryField.value, text));

  it('is read from the metadata of models and nodes', () => {
    const read = parse(
      extend(
        extend(simple, [], bytesField(ModelField.metadataProps, entry('k', 'v'))),
        [ModelField.graph, GraphField.node],
        bytesField(NodeField.metadataProps, entry('namespace', 'encoder')),
      ),
    );
    expect(read.metadata.map((one) => [one.key, one.value()])).toEqual([['k', 'v']]);
    const [metadata] = read.graph.nodes[0]!.metadata;
    expect([metadata!.key, metadata!.value()]).toEqual(['namespace', 'encoder']);
  });

  it('is passed over where it is not known', () => {
    const unknown = concat(varintField(900, 2n ** 63n), bytesField(901, 'what?', 5));
    const paths = [
      [],
      [ModelField.graph],
      [ModelField.graph, GraphField.node],
      [ModelField.graph, GraphField.initializer],
      [ModelField.graph, GraphField.input, 2, 1, 2],
    ];
    for (const path of paths) {
      const { graph } = parse(extend(simple, path, unknown));
      expect(graph.nodes[0]!.inputs).toEqual(['x', 'w']);
      expect(graph.initializers.get('w')!.dims).toEqual([2, 3]);
      expect(graph.inputs[0]!.shape).toEqual(['batch', 2]);
    }
  });
});

describe('tensors and attributes', () => {
  it('read dimensions packed and one a record', () => {
    const initializer = (...dims: Uint8Array[]) =>
      parse(
        extend(
          simple,
          [7],
          bytesField(GraphField.initializer, concat(...dims, bytesField(8, 't'))),
        ),
      );
    const unpacked = initializer(varintField(1, 300), varintField(1, 4));
    const packed = initializer(bytesField(1, concat(varint(300), varint(4))));
    for (const { graph } of [unpacked, packed]) {
      expect(graph.initializers.get('t')!.dims).toEqual([300, 4]);
    }
  });

  it.each([
    ['negative', varintField(TensorField.dims, -1), 'found -1'],
    ['larger than 2^53', varintField(TensorField.dims, 2n ** 60n), 'a dimension of 0 or more'],
    ['a whole weight', bytesField(TensorField.dims, new Uint8Array(2000)), 'found 2000 bytes'],
  ])('refuse a dimension that is %s', async (_, dims, problem) => {
    const damaged = extend(simple, [ModelField.graph, GraphField.initializer], dims);
    expect((await failure(() => parse(damaged), 'invalid-model')).message).toContain(problem);
  });

  it('leave long attributes in the file', () => {
    const { graph } = parse(
      model({
        nodes: [
          node('E', ['x'], 'y', {
            engine: 'x'.repeat(70_000),
            table: Array(70_000).fill(1),
            short: [1, 2],
          }),
        ],
        inputs: ['x'],
        outputs: ['y'],
      }),
    );
    const { attributes } = graph.nodes[0]!;
    expect(attributes.get('engine')!.s).toBeUndefined();
    expect(attributes.get('short')!.ints).toEqual([1, 2]);
  });

  it('find the tensor of a Constant', () => {
    const { graph } = parse(
      model({ nodes: [constant('c', tensor('', [2]))], inputs: [], outputs: ['c'] }),
    );
    expect(graph.nodes[0]!.attributes.get('value')!.tensor!.dims).toEqual([2]);
  });
});

describe('what is no model', () => {
  const files = temporaryFolder();

  it.each([
    ['an empty file', new Uint8Array(), 'is empty, expected an ONNX model'],
    ['text', Buffer.from('{"not": "a model"}\n'), 'is not a valid ONNX file: at byte'],
    ['zeros', new Uint8Array(100), 'expected a field number'],
    ['no graph', varintField(1, 8), 'is not an ONNX model: it has no graph'],
    ['no IR version', bytesField(7, ''), 'it has no IR version'],
    ['two graphs', concat(varintField(1, 8), bytesField(7, ''), bytesField(7, '')), 'one graph'],
  ])('%s is refused', async (_, bytes, problem) => {
    const path = files.write(bytes);
    const { message } = await failure(() => openModel(path), 'invalid-model');
    expect(message).toContain(problem);
    expect(message).toContain(path);
  });
});
