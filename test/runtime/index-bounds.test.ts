import { describe, expect, it } from 'vitest';
import { ValueIndex } from '../../src/graph/uses.js';
import { IndexTracer } from '../../src/runtime/index-bounds.js';
import {
  bytesOf,
  type FunctionMessage,
  floats,
  graph,
  ints,
  modelOf,
  type NodeMessage,
  node,
} from './models.js';

function boundsOf(
  nodes: NodeMessage[],
  rows = 10,
  functions: FunctionMessage[] = [],
  options?: { strict: boolean },
) {
  const table = floats('table', [rows, 2], new Array(2 * rows).fill(0));
  const constants = [table, ints('one', [1]), ints('offsets', [-1, 3]), ints('axes', [0])];
  const main = graph({ ids: ['int64', ['n']] }, { y: ['float32', null] }, nodes, constants);
  const model = modelOf(bytesOf(main, functions));
  return new IndexTracer(model, new ValueIndex(model)).bounds('ids', options);
}

const gather = (ids: string, attributes = {}) => node('Gather', ['table', ids], ['y'], attributes);

describe('bounds', () => {
  it('are the rows of the table', () => {
    expect(boundsOf([gather('ids')])).toEqual({ min: 0, limit: 10 });
    expect(boundsOf([gather('ids', { axis: 1 })])).toEqual({ min: 0, limit: 2 });
    expect(boundsOf([gather('ids', { axis: -1 })])).toEqual({ min: 0, limit: 2 });
  });

  it('follow what keeps the numbers', () => {
    const steps = [
      node('Cast', ['ids'], ['a'], { to: 6 }),
      node('Unsqueeze', ['a', 'axes'], ['b']),
      node('Concat', ['b', 'b'], ['c'], { axis: 0 }),
      node('Where', ['cond', 'other', 'c'], ['d']),
      gather('d'),
    ];
    expect(boundsOf(steps)).toEqual({ min: 0, limit: 10 });
  });

  it('hold strictly only for what is looked up as it is', () => {
    const strict = (nodes: NodeMessage[]) => boundsOf(nodes, 10, [], { strict: true });
    const clipped = [node('Clip', ['ids', '', 'one'], ['a']), gather('a')];
    expect(boundsOf(clipped)).toEqual({ min: 0, limit: 10 });
    expect(strict(clipped)).toBeUndefined();
    expect(strict([node('Identity', ['ids'], ['a']), gather('a')])).toEqual({ min: 0, limit: 10 });
  });

  it('count constant offsets', () => {
    expect(boundsOf([node('Add', ['ids', 'offsets'], ['a']), gather('a')])).toEqual({
      min: 1,
      limit: 7,
    });
    expect(boundsOf([node('Add', ['one', 'ids'], ['a']), gather('a')])).toEqual({
      min: 0,
      limit: 9,
    });
    expect(boundsOf([node('Sub', ['ids', 'one'], ['a']), gather('a')])).toEqual({
      min: 1,
      limit: 11,
    });
  });

  it('are the tightest of several tables', () => {
    const nodes = [
      gather('ids'),
      node('Gather', ['table', 'ids'], ['z'], { axis: 1 }),
      node('Add', ['ids', 'one'], ['a']),
      node('Gather', ['table', 'a'], ['w']),
    ];
    expect(boundsOf(nodes)).toEqual({ min: 0, limit: 2 });
  });

  it('see the embeddings of fused transformers', () => {
    const fused = (inputs: string[]) =>
      node('EmbedLayerNormalization', inputs, ['y'], {}, 'com.microsoft');
    expect(boundsOf([fused(['ids', '', 'table', 'p', 's'])])).toEqual({ min: 0, limit: 10 });
    expect(boundsOf([fused(['x', 'ids', 'w', 'p', 'table'])])).toEqual({ min: 0, limit: 10 });
  });

  it('see into branches and functions, and out again', () => {
    const branch = graph({}, { b: ['int64', null] }, [node('Identity', ['ids'], ['b'])]);
    const choose = node('If', ['cond'], ['a'], { then_branch: branch, else_branch: branch });
    expect(boundsOf([choose, gather('a')])).toEqual({ min: 0, limit: 10 });
    const shift: FunctionMessage = {
      name: 'Shift',
      domain: 'local',
      input: ['v'],
      output: ['w'],
      node: [node('Identity', ['v'], ['w'])],
      opsetImport: [{ domain: '', version: 17 }],
    };
    const call = node('Shift', ['ids'], ['a'], {}, 'local');
    expect(boundsOf([call, gather('a')], 10, [shift])).toEqual({ min: 0, limit: 10 });
  });

  it('end where the numbers change', () => {
    expect(boundsOf([node('Shape', ['ids'], ['a']), gather('a')])).toBeUndefined();
    expect(boundsOf([node('Sub', ['one', 'ids'], ['a']), gather('a')])).toBeUndefined();
    expect(boundsOf([node('Gather', ['ids', 'one'], ['y'])])).toBeUndefined();
    expect(boundsOf([node('Gather', ['computed', 'ids'], ['y'])])).toBeUndefined();
  });
});
