import { expect, it } from 'vitest';
import { NameAuthority } from '../../src/graph/names.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { body, model, node, tensor, value } from '../support/models.js';

function authority(): NameAuthority {
  const branch = body({
    nodes: [node('Relu', ['x'], 'inner', {}, 'inner node')],
    initializers: [tensor('inner weight', [1])],
    outputs: ['inner'],
  });
  const branches = { then_branch: { graph: branch }, else_branch: { graph: branch } };
  const bytes = model({
    nodes: [
      node('If', ['c'], 'picked', branches, 'if node'),
      node('Add', ['picked', 'w'], 'y', {}, 'add node'),
    ],
    initializers: [tensor('w', [1])],
    inputs: ['x', value('c', [], 'bool')],
    outputs: ['y'],
  });
  return new NameAuthority(parseModel(new MemorySource(bytes)));
}

it('gives a name that is new as it is, and the next number otherwise', () => {
  const names = authority();
  expect(names.fresh('new')).toBe('new');
  expect(names.fresh('new')).toBe('new_1');
  expect(names.fresh('new')).toBe('new_2');
});

it.each([
  ['an input', 'x'],
  ['an output', 'y'],
  ['an initializer', 'w'],
  ['a node', 'add node'],
  ["a node's output", 'picked'],
  ['a value in a body', 'inner'],
  ['a node in a body', 'inner node'],
  ['an initializer in a body', 'inner weight'],
])('does not give out the name of %s', (_, taken) => {
  expect(authority().fresh(taken)).toBe(`${taken}_1`);
});

it('does not give out a numbered name that the model has', () => {
  const names = authority();
  names.reserve('w_1');
  expect(names.fresh('w')).toBe('w_2');
});
