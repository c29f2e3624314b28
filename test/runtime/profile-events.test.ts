import { describe, expect, it } from 'vitest';
import { profileModel } from '../../src/runtime/profile.js';
import { parseEvents } from '../../src/runtime/profile-events.js';
import { tensorFromNumbers } from '../../src/runtime/tensor-value.js';
import { model, node, value } from '../support/models.js';

const NAMES = [
  'a "quoted" name',
  'C:\\new\\top',
  'two\nlines',
  '","args" : {"op_name" : "X"}},',
  'ü',
];

describe('a profile of nodes with odd names', () => {
  it('counts each of them', async () => {
    const chain = NAMES.map((name, i) => {
      const output = i === NAMES.length - 1 ? 'y' : `v${i + 1}`;
      return node('Exp', [i === 0 ? 'x' : `v${i}`], output, {}, name);
    });
    const bytes = model({ nodes: chain, inputs: [value('x', [2])], outputs: [value('y', [2])] });
    const feeds = new Map([['x', tensorFromNumbers('float32', [2], Float64Array.of(-9, -9))]]);
    const options = { provider: 'cpu', optimization: 'disabled' } as const;
    const { operators, placement } = await profileModel(bytes, feeds, options);
    expect(operators).toMatchObject([{ op: 'Exp', count: NAMES.length }]);
    expect(placement.nodes).toEqual({ cpu: NAMES.length });
  });

  it('leaves out what is no event', () => {
    const event =
      '{"cat" : "Node","pid" :1,"tid" :1,"dur" :2,"ts" :3,"ph" : "X","name" :"a"b","args" : {}}';
    const events = parseEvents(`[\n${event},\n{"cat" : "Node", "broken"\n]`);
    expect(events).toEqual([{ cat: 'Node', name: 'a"b', dur: 2, ts: 3, args: {} }]);
  });
});
