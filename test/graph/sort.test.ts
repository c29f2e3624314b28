import { describe, expect, it } from 'vitest';
import { sortedNodes } from '../../src/graph/sort.js';
import type { NodeProto } from '../support/models.js';
import { body, model, node } from '../support/models.js';
import { parse } from '../support/wire.js';

function sorted(...nodes: NodeProto[]): string[] {
  const { graph } = parse(model({ nodes, inputs: ['x'], outputs: ['y'] }));
  return sortedNodes(graph).map(({ name }) => name);
}

const relu = (name: string, input: string, output: string) =>
  node('Relu', [input], output, {}, name);

describe('nodes are sorted', () => {
  it('behind what they read, the others where they were', () => {
    const nodes = [
      relu('b', 'a', 'b'),
      relu('y', 'b', 'y'),
      relu('z', 'x', 'z'),
      relu('a', 'x', 'a'),
    ];
    expect(sorted(...nodes)).toEqual(['a', 'b', 'y', 'z']);
  });

  it('not at all where they are in order', () => {
    const nodes = [
      relu('p', 'x', 'p'),
      relu('q', 'x', 'q'),
      relu('r', 'p', 'r'),
      relu('y', 'q', 'y'),
    ];
    expect(sorted(...nodes)).toEqual(['p', 'q', 'r', 'y']);
  });

  it('behind what their bodies read', () => {
    const inner = body({ nodes: [relu('', 'late', 'out')], outputs: ['out'] });
    const other = body({ nodes: [relu('', 'x', 'out')], outputs: ['out'] });
    const branches = { then_branch: { graph: other }, else_branch: { graph: inner } };
    expect(sorted(node('If', ['c'], 'y', branches, 'if'), relu('late', 'x', 'late'))).toEqual([
      'late',
      'if',
    ]);
  });

  it('in a chain longer than any stack', () => {
    const length = 20_000;
    const chain = Array.from({ length }, (_, i) =>
      relu(`n${i}`, i === 0 ? 'x' : `v${i}`, `v${i + 1}`),
    );
    const names = sorted(...chain.toReversed());
    expect(names).toEqual(chain.map(({ name }) => name));
  });

  it('unless they read each other', () => {
    const nodes = [relu('first', 'x', 'a'), relu('p', 'r', 'p'), relu('q', 'p', 'q')];
    expect(() => sorted(...nodes, relu('r', 'q', 'r'), relu('y', 'r', 'y'))).toThrow(
      'the graph has a circle: p -> q -> r -> p, expected nodes that do not read their own results',
    );
  });
});
