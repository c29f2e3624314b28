import { describe, expect, it } from 'vitest';
import { type Value, ValueIndex } from '../../src/graph/uses.js';
import type { Graph, Model } from '../../src/onnx/model.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { body, constant, model, node, tensor, value } from '../support/models.js';

function index(bytes: Uint8Array): { model: Model; values: ValueIndex } {
  const parsed = parseModel(new MemorySource(bytes));
  return { model: parsed, values: new ValueIndex(parsed) };
}

/** `Relu[0]` for an input of a node, `output[0]` for an output of a graph. */
function usesOf(value: Value | undefined): string[] {
  return (value?.uses ?? []).map(({ node, index }) => `${node?.opType ?? 'output'}[${index}]`);
}

function bodyOf(graph: Graph, attribute: string, at = 0): Graph {
  return graph.nodes[at]!.attributes.get(attribute)!.graphs[0]!;
}

describe('values of one graph', () => {
  const { model: parsed, values } = index(
    model({
      nodes: [node('Mul', ['x', 'x'], 'y'), node('Add', ['y', 'w'], 'z'), node('Relu', ['y'], 'v')],
      initializers: [tensor('w', [2])],
      inputs: ['x'],
      outputs: ['z', 'y', 'y'],
    }),
  );
  const { graph } = parsed;

  it('knows an input, an initializer and what computes the rest', () => {
    expect(values.resolve(graph, 'x')).toMatchObject({ isInput: true, producer: undefined });
    expect(values.resolve(graph, 'w')).toMatchObject({ isInput: false, producer: undefined });
    expect(values.resolve(graph, 'w')!.initializer).toBe(graph.initializers.get('w'));
    expect(values.resolve(graph, 'y')!.producer).toBe(graph.nodes[0]);
  });

  it('counts every reading: twice by one node, and each graph output', () => {
    expect(usesOf(values.resolve(graph, 'x'))).toEqual(['Mul[0]', 'Mul[1]']);
    expect(usesOf(values.resolve(graph, 'y'))).toEqual([
      'Add[0]',
      'Relu[0]',
      'output[1]',
      'output[2]',
    ]);
    expect(usesOf(values.resolve(graph, 'v'))).toEqual([]);
  });

  it('knows no value behind an empty or undefined name', () => {
    expect(values.resolve(graph, '')).toBeUndefined();
    expect(values.resolve(graph, 'nowhere')).toBeUndefined();
  });
});

it('takes an initializer that is an input too as both (IR 3)', () => {
  const { model: parsed, values } = index(
    model({
      opset: 8,
      nodes: [node('Add', ['x', 'w'], 'y')],
      initializers: [tensor('w', [2])],
      inputs: ['x'],
      outputs: ['y'],
    }),
  );
  const w = values.resolve(parsed.graph, 'w')!;
  expect(w.isInput).toBe(true);
  expect(w.initializer?.name).toBe('w');
});

describe('values of If, Loop and Scan bodies', () => {
  const inner = body({ nodes: [node('Neg', ['x'], 'in2')], outputs: ['in2'] });
  const loopBody = body({
    nodes: [
      node('If', ['c'], 'picked', { then_branch: { graph: inner }, else_branch: { graph: inner } }),
      node('Add', ['picked', 's'], 'next'),
    ],
    inputs: [value('i', [], 'int64'), value('go', [], 'bool'), 's'],
    outputs: ['go', 'next'],
  });
  const scanBody = body({
    nodes: [node('Mul', ['e', 'x'], 'out')],
    inputs: ['e'],
    outputs: ['out'],
  });
  const { model: parsed, values } = index(
    model({
      nodes: [
        node('Loop', ['', 'c', 'x'], 'looped', { body: { graph: loopBody } }),
        node('Scan', ['x'], 'scanned', { body: { graph: scanBody }, num_scan_inputs: 1 }),
      ],
      inputs: ['x', value('c', [], 'bool')],
      outputs: ['looped', 'scanned'],
    }),
  );

  it('counts what a body captures, at any depth, as uses of the outer value', () => {
    const x = values.resolve(parsed.graph, 'x')!;
    expect(usesOf(x).sort()).toEqual(['Loop[2]', 'Mul[1]', 'Neg[0]', 'Neg[0]', 'Scan[0]']);
    const loop = bodyOf(parsed.graph, 'body');
    const branch = bodyOf(loop, 'then_branch');
    expect(values.resolve(branch, 'x')).toBe(x);
    expect(x.uses.some(({ graph }) => graph === branch)).toBe(true);
  });

  it('keeps what a body defines inside it', () => {
    const loop = bodyOf(parsed.graph, 'body');
    expect(values.resolve(loop, 's')).toMatchObject({ graph: loop, isInput: true });
    expect(values.resolve(parsed.graph, 's')).toBeUndefined();
    expect(values.resolve(parsed.graph, 'next')).toBeUndefined();
  });

  it('takes the same name in two branches as two values', () => {
    const loop = bodyOf(parsed.graph, 'body');
    const one = values.resolve(bodyOf(loop, 'then_branch'), 'in2')!;
    const other = values.resolve(bodyOf(loop, 'else_branch'), 'in2')!;
    expect(one).not.toBe(other);
    expect(usesOf(one)).toEqual(['output[0]']);
  });
});

it('gives an inner definition precedence over an outer one of the same name', () => {
  const branch = body({ nodes: [constant('w', tensor('', [1]))], outputs: ['w'] });
  const { model: parsed, values } = index(
    model({
      nodes: [
        node('If', ['c'], 'y', { then_branch: { graph: branch }, else_branch: { graph: branch } }),
      ],
      initializers: [tensor('w', [2])],
      inputs: [value('c', [], 'bool')],
      outputs: ['y'],
    }),
  );
  expect(values.resolve(bodyOf(parsed.graph, 'then_branch'), 'w')!.producer?.opType).toBe(
    'Constant',
  );
  expect(usesOf(values.resolve(parsed.graph, 'w'))).toEqual([]);
});

it('shows a function its own values only', () => {
  const { model: parsed, values } = index(
    model({
      nodes: [node('local:Double', ['x'], 'y')],
      initializers: [tensor('w', [2])],
      inputs: ['x'],
      outputs: ['y'],
      functions: [
        {
          name: 'Double',
          domain: 'local',
          input: ['a'],
          output: ['b'],
          node: [node('Add', ['a', 'w'], 'b')],
          opsetImport: [{ domain: '', version: 17 }],
        },
      ],
    }),
  );
  const { body: inside } = parsed.functions[0]!;
  expect(usesOf(values.resolve(inside, 'a'))).toEqual(['Add[0]']);
  expect(usesOf(values.resolve(inside, 'b'))).toEqual(['output[0]']);
  expect(values.resolve(inside, 'w')).toBeUndefined();
  expect(usesOf(values.resolve(parsed.graph, 'w'))).toEqual([]);
});
