import { expect, test } from 'vitest';
import { pairGraphs } from '../../src/graph/isomorphism.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { failure } from '../support/files.js';
import { body, constant, type ModelParts, model, node, tensor, value } from '../support/models.js';

function open(parts: ModelParts, label: string) {
  return parseModel(new MemorySource(model(parts), label));
}

function pairs(first: ModelParts, second: ModelParts): string[] {
  const { constants: found } = pairGraphs(open(first, 'base'), open(second, 'tuned'));
  const nameOf = ({ tensor: { name }, node: from }: (typeof found)[number]['second']) =>
    from?.outputs[0] ?? name;
  return found.map((pair) => `${pair.name} = ${nameOf(pair.second)}`).sort();
}

const base: ModelParts = {
  nodes: [node('MatMul', ['x', 'w'], 'h', {}, 'dense'), node('Add', ['h', 'b'], 'y', {}, 'bias')],
  initializers: [tensor('w', [3, 4]), tensor('b', [4])],
  inputs: [value('x', ['n', 3])],
  outputs: ['y'],
};

test('constants are paired by where they stand, whatever names and order say', () => {
  const renamed: ModelParts = {
    nodes: [
      constant('val_7', tensor('', [4])),
      node('MatMul', ['x', 'onnx::MatMul_9'], 'h2'),
      node('Add', ['h2', 'val_7'], 'y'),
    ],
    initializers: [tensor('onnx::MatMul_9', [3, 4])],
    inputs: [value('x', ['n', 3])],
    outputs: ['y'],
  };
  expect(pairs(base, renamed)).toEqual(['b = val_7', 'w = onnx::MatMul_9']);
});

test('an Identity between a tensor and its use makes no difference', () => {
  const aliased = {
    ...base,
    nodes: [node('Identity', ['w'], 'alias'), node('MatMul', ['x', 'alias'], 'h'), base.nodes[1]!],
  };
  expect(pairs(base, aliased)).toEqual(['b = b', 'w = w']);
});

test('constants of bodies and functions are paired too', () => {
  const withBodies = (name: string): ModelParts => ({
    nodes: [
      node('If', ['c'], 'z', {
        then_branch: { graph: body({ nodes: [constant(name, tensor('', [2]))], outputs: [name] }) },
        else_branch: { graph: body({ nodes: [node('Identity', ['w'], 'e')], outputs: ['e'] }) },
      }),
      node('own:Scale', ['z'], 'y'),
    ],
    initializers: [tensor('w', [2])],
    inputs: [value('c', [], 'bool')],
    outputs: ['y'],
    functions: [
      {
        domain: 'own',
        name: 'Scale',
        input: ['v'],
        output: ['scaled'],
        node: [constant(`f_${name}`, tensor('', [1])), node('Mul', ['v', `f_${name}`], 'scaled')],
        opsetImport: [{ domain: '', version: 17 }],
      },
    ],
  });
  expect(pairs(withBodies('t'), withBodies('u'))).toEqual(['f_t = f_u', 't = u', 'w = w']);
});

test('a tensor that is stored once in one model may be stored twice in the other', () => {
  const twice = (second: string): ModelParts => ({
    nodes: [node('MatMul', ['x', 'w'], 'h'), node('MatMul', ['h', second], 'y')],
    initializers: [tensor('w', [3, 3]), ...(second === 'w' ? [] : [tensor(second, [3, 3])])],
    inputs: [value('x', ['n', 3])],
    outputs: ['y'],
  });
  expect(pairs(twice('w'), twice('w2'))).toEqual(['w = w', 'w = w2']);
});

const differences: [string, ModelParts, string][] = [
  [
    'an operator',
    { ...base, nodes: [base.nodes[0]!, node('Sub', ['h', 'b'], 'y', {}, 'bias')] },
    'bias is Add, in the other bias is Sub',
  ],
  [
    'a shape',
    { ...base, initializers: [tensor('w', [3, 4]), tensor('b', [1, 4])] },
    'b (input 1 of bias) has the shape [4], in the other [1, 4]',
  ],
  [
    'a type',
    { ...base, initializers: [tensor('w', [3, 4], undefined, 'float16'), tensor('b', [4])] },
    'w (input 1 of dense) is float32, in the other float16; weights are float32 in one, float16 in the other',
  ],
  [
    'an attribute',
    { ...base, nodes: [node('MatMul', ['x', 'w'], 'h', { axis: 1 }), base.nodes[1]!] },
    'dense (MatMul) has axis = nothing, in the other 1',
  ],
  [
    'a constant that is computed',
    { ...base, nodes: [node('Relu', ['w'], 'r'), node('MatMul', ['x', 'r'], 'h'), base.nodes[1]!] },
    'input 1 of dense is the constant w, in the other computed by r (Relu)',
  ],
  [
    'a missing input',
    { ...base, nodes: [base.nodes[0]!, node('Add', ['h', 'h'], 'y')] },
    'input 1 of bias is the constant b, in the other computed by dense (MatMul)',
  ],
  ['an output more', { ...base, outputs: ['y', 'h'] }, 'the graph has 1 outputs, in the other 2'],
];

test.each(differences)('%s that differs is named', async (_, second, text) => {
  const { message } = await failure(() => pairs(base, second), 'model-mismatch');
  expect(message).toContain(text);
});

test('of several differences the first one in the graph is told', async () => {
  const second = {
    ...base,
    nodes: [node('Gemm', ['x', 'w'], 'h', {}, 'dense'), base.nodes[1]!],
    initializers: [tensor('w', [3, 4]), tensor('b', [1, 4])],
  };
  const { message, node: where } = await failure(() => pairs(base, second), 'model-mismatch');
  expect(where).toBe('dense');
  expect(message).toContain(
    'dense is MatMul, in the other dense is Gemm (the first of 2 differences)',
  );
});
