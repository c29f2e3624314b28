import { describe, expect, it } from 'vitest';
import type { ProviderName } from '../../src/runtime/provider-names.js';
import { openStatefulSession, type StatefulSession } from '../../src/runtime/stateful-session.js';
import { tensorFromNumbers, tensorToFloat64 } from '../../src/runtime/tensor-value.js';
import { describeOnWebGpu } from '../support/vulkan.js';
import { bytesOf, failure, floats, graph, node } from './models.js';

const state = [
  { input: 'x', output: 'x_next' },
  { input: 'n', output: 'n_next' },
];

const SIZE = 250_000;

/** x <- k x + 1 with a scalar k that is fed; n counts the steps; sum is that of the x before. */
const steps = bytesOf(
  graph(
    { x: ['float32', ['size']], n: ['float32', []], k: ['float32', []] },
    { sum: ['float32', []], x_next: ['float32', ['size']], n_next: ['float32', []] },
    [
      node('Mul', ['x', 'k'], ['kx']),
      node('Add', ['kx', 'one'], ['x_next']),
      node('Add', ['n', 'one'], ['n_next']),
      node('ReduceSum', ['x'], ['sum'], { keepdims: 0 }),
    ],
    [floats('one', [], [1])],
  ),
);

function values(name: string, numbers: number[]) {
  const dims = name === 'x' ? [numbers.length] : [];
  return [name, tensorFromNumbers('float32', dims, Float64Array.from(numbers))] as const;
}

const start = (x: number[], n = 0) => new Map([values('x', x), values('n', [n])]);

const factor = (k: number) => new Map([values('k', [k])]);

async function stateOf(session: StatefulSession): Promise<Record<string, number[]>> {
  const read = await session.readState();
  return Object.fromEntries([...read].map(([name, value]) => [name, [...tensorToFloat64(value)]]));
}

const open = (provider: ProviderName, initial = start([1, 2])) =>
  openStatefulSession(steps, { provider, state, initial });

function sharedTests(provider: ProviderName): void {
  it('moves the state on and gives the other outputs', async () => {
    const session = await open(provider);
    const outputs = await session.run(factor(2));
    expect([...outputs.keys()]).toEqual(['sum']);
    expect(tensorToFloat64(outputs.get('sum')!)).toEqual(Float64Array.of(3));
    expect(tensorToFloat64((await session.run(factor(3))).get('sum')!)).toEqual(Float64Array.of(8));
    expect(await stateOf(session)).toEqual({ x: [10, 16], n: [2] });
    await session.release();
  });

  it('computes 1000 steps in constant memory, exactly', async () => {
    const session = await open(provider, start(new Array(SIZE).fill(0)));
    let x = 0;
    let warm = 0;
    for (let i = 0; i < 1000; i++) {
      await session.run(factor(0.9));
      x = Math.fround(Math.fround(x * Math.fround(0.9)) + 1);
      if (i === 300) warm = process.memoryUsage().rss;
    }
    const grown = process.memoryUsage().rss - warm;
    const read = await session.readState();
    expect([...new Set(tensorToFloat64(read.get('x')!))]).toEqual([x]);
    expect([...tensorToFloat64(read.get('n')!)]).toEqual([1000]);
    // A tensor kept a step would be 700 MB.
    expect(grown).toBeLessThan(70e6);
    await session.release();
  });

  it('keeps the state when a run fails', async () => {
    const session = await open(provider);
    await session.run(factor(2));
    const error = await failure(() => session.run(new Map()));
    expect(error).toMatchObject({
      code: 'runtime',
      message: expect.stringContaining("input 'k' is missing"),
      hint: expect.any(String),
    });
    const wrong = new Map([['k', tensorFromNumbers('float32', [3], new Float64Array(3))]]);
    expect(await failure(() => session.run(wrong))).toMatchObject({ code: 'runtime' });
    expect(await stateOf(session)).toEqual({ x: [3, 5], n: [1] });
    await session.run(factor(1));
    expect(await stateOf(session)).toEqual({ x: [4, 6], n: [2] });
    await session.release();
  });

  it('keeps the state when its outputs are refused', async () => {
    const session = await open(provider);
    await session.run(factor(2), () => false);
    const refused = await failure(() =>
      session.run(factor(2), () => {
        throw new Error('refused');
      }),
    );
    expect(refused).toEqual(new Error('refused'));
    expect(await stateOf(session)).toEqual({ x: [1, 2], n: [0] });
    await session.run(factor(2), (outputs) => tensorToFloat64(outputs.get('sum')!)[0] === 3);
    expect(await stateOf(session)).toEqual({ x: [3, 5], n: [1] });
    await session.release();
  });

  it('takes a state in the middle, and goes on from it to the same numbers', async () => {
    const session = await open(provider);
    for (let i = 0; i < 3; i++) await session.run(factor(0.3));
    const saved = await session.readState();
    for (let i = 0; i < 3; i++) await session.run(factor(0.3));
    const expected = await session.readState();
    await session.writeState(saved);
    for (let i = 0; i < 3; i++) await session.run(factor(0.3));
    expect(await session.readState()).toEqual(expected);
    await session.writeState(new Map([values('n', [9])]));
    const { x, n } = await stateOf(session);
    expect(n).toEqual([9]);
    expect(x).toEqual([...tensorToFloat64(expected.get('x')!)]);
    await session.release();
  });

  it('shares no memory with what it is given and gives', async () => {
    const initial = start([1, 2]);
    const session = await open(provider, initial);
    initial.get('x')!.data.fill(7 as never);
    (await session.readState()).get('x')!.data.fill(8 as never);
    expect(await stateOf(session)).toEqual({ x: [1, 2], n: [0] });
    await session.release();
  });

  it('lets calls wait for one another', async () => {
    const session = await open(provider);
    const first = session.run(factor(2));
    const between = session.readState();
    const second = session.run(factor(2));
    const end = session.release();
    expect([...tensorToFloat64((await between).get('x')!)]).toEqual([3, 5]);
    expect([...tensorToFloat64((await second).get('sum')!)]).toEqual([8]);
    await Promise.all([first, end, session.release()]);
    expect(await failure(() => session.run(factor(2)))).toBeInstanceOf(Error);
  });

  it('tells where the nodes ran, and runs on', async () => {
    const session = await openStatefulSession(steps, {
      provider,
      state,
      initial: start([1, 2]),
      reportPlacement: true,
    });
    expect(session.placement).toBeUndefined();
    await session.run(factor(2));
    expect(session.placement).toEqual({
      nodes: { [provider]: 4 },
      fallbacks: [],
      copies: { toHost: 0, toDevice: 0 },
    });
    await session.run(factor(2));
    expect(await stateOf(session)).toEqual({ x: [7, 11], n: [2] });
    await session.release();
  });
}

describe('on the CPU', () => sharedTests('cpu'));

describeOnWebGpu('on WebGPU', () => sharedTests('webgpu'));

describe('openStatefulSession', () => {
  const opened = (initial: ReturnType<typeof start>, slots = state) =>
    failure(() => openStatefulSession(steps, { state: slots, initial }));

  it.each([
    [{ input: 'y', output: 'x_next' }, 'the model has no input y, it has x, n, k'],
    [{ input: 'k', output: 'k_next' }, 'the model has no output k_next'],
  ])('refuses the slot %o', async (slot, message) => {
    expect(await opened(start([1]), [...state, slot])).toMatchObject({
      code: 'invalid-argument',
      message: expect.stringContaining(message),
    });
  });

  it.each([
    [new Map([values('x', [1])]), 'state n has no initial value'],
    [new Map([...start([1]), values('k', [1])]), 'k is not one of the state: x, n'],
    [
      new Map([
        values('n', [0]),
        ['x', tensorFromNumbers('float64', [1], new Float64Array(1))] as const,
      ]),
      'state x is float64 [1], the model takes float32 [size]',
    ],
    [
      new Map([
        values('n', [0]),
        ['x', tensorFromNumbers('float32', [1, 1], new Float64Array(1))] as const,
      ]),
      'state x is float32 [1, 1], the model takes float32 [size]',
    ],
  ])('refuses an initial state that does not fit', async (initial, message) => {
    expect(await opened(initial)).toMatchObject({ code: 'invalid-argument', message });
  });
});
