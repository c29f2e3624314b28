import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { profileModel } from '../../src/runtime/profile.js';
import { openSession } from '../../src/runtime/session.js';
import { tensorFromNumbers } from '../../src/runtime/tensor-value.js';
import { describeOnWebGpu } from '../support/vulkan.js';
import { bytesOf, failure, floats, graph, node } from './models.js';

/** softmax(x x) x, with the softmax of the given operator. */
function attention(softmax: string): Uint8Array {
  return bytesOf(
    graph({ x: ['float32', [4, 4]] }, { y: ['float32', [4, 4]] }, [
      node('MatMul', ['x', 'x'], ['scores']),
      node(softmax, ['scores'], ['weights'], { axis: -1 }),
      node('MatMul', ['weights', 'x'], ['y']),
    ]),
  );
}

const feeds = new Map([['x', tensorFromNumbers('float32', [4, 4], new Float64Array(16).fill(1))]]);

describe('profileModel', () => {
  it('counts the nodes of each provider', async () => {
    const { placement } = await profileModel(attention('LogSoftmax'), feeds);
    expect(placement).toEqual({
      nodes: { cpu: 3 },
      fallbacks: [],
      copies: { toHost: 0, toDevice: 0 },
    });
  });

  it('sees the graph behind the optimizations', async () => {
    const folding = bytesOf(
      graph(
        { x: ['float32', [4, 4]] },
        { y: ['float32', [4, 4]] },
        [node('Neg', ['two'], ['minus']), node('Mul', ['x', 'minus'], ['y'])],
        [floats('two', [], [2])],
      ),
    );
    const nodes = async (withoutOptimizers: string[]) =>
      (await profileModel(folding, feeds, { withoutOptimizers })).placement.nodes;
    expect(await nodes([])).toEqual({ cpu: 1 });
    expect(await nodes(['ConstantFolding'])).toEqual({ cpu: 2 });
  });

  it('leaves nothing behind', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'placement-'));
    vi.stubEnv('TMPDIR', folder);
    await profileModel(attention('Softmax'), feeds);
    await failure(() => profileModel(attention('Softmax'), new Map()));
    await failure(() => profileModel(new Uint8Array(4), feeds));
    vi.unstubAllEnvs();
    // Fails where something is in it.
    rmdirSync(folder);
  });

  it('tells what the operators of one run take', async () => {
    const { operators, msPerRun } = await profileModel(attention('Softmax'), feeds, { runs: 2 });
    expect(operators.map(({ op, count }) => [op, count]).sort()).toEqual([
      ['MatMul', 2],
      ['Softmax', 1],
    ]);
    const total = operators.reduce((sum, { ms }) => sum + ms, 0);
    expect(total).toBeGreaterThan(0);
    expect(total).toBeLessThanOrEqual(msPerRun);
  });
});

describeOnWebGpu('on WebGPU', () => {
  const provider = 'webgpu';

  it('all nodes that it has kernels for run there', async () => {
    const { placement, operators } = await profileModel(attention('Softmax'), feeds, { provider });
    expect(placement).toEqual({
      nodes: { webgpu: 3 },
      fallbacks: [],
      copies: { toHost: 0, toDevice: 0 },
    });
    expect(operators.map(({ op }) => op).sort()).toEqual(['MatMul', 'Softmax']);
  });

  it('the others fall back to the CPU and are named', async () => {
    const { placement } = await profileModel(attention('LogSoftmax'), feeds, { provider });
    expect(placement).toEqual({
      nodes: { webgpu: 2, cpu: 1 },
      fallbacks: [{ node: 'weights', op: 'LogSoftmax' }],
      copies: { toHost: 1, toDevice: 1 },
    });
  });

  it('falling back can be forbidden', async () => {
    const options = { provider, cpuFallback: false } as const;
    const session = await openSession(attention('Softmax'), options);
    await session.release();
    expect(await failure(() => openSession(attention('LogSoftmax'), options))).toMatchObject({
      code: 'provider',
      message: expect.stringContaining('webgpu has no kernels for some operators'),
      hint: expect.stringContaining('cpuFallback'),
    });
  });
});
