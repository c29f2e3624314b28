/** A slotted model as the docs/serving.md uses it, and held against its base. */
import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { OpenedModel } from '../../src/adapters/model/opened.js';
import { AdapterSession } from '../../src/adapters/slots/adapter-session.js';
import { compareWithBase, runBase } from '../../src/adapters/slots/slot-guard.js';
import { extract } from '../../src/commands/extract.js';
import { patch } from '../../src/commands/patch.js';
import type { GivenFeeds } from '../../src/runtime/given-feeds.js';
import { openSession } from '../../src/runtime/session.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';

const folder = temporaryFolder();

function layer(seed: number, nodes = [node('MatMul', ['x', 'w'], 'y', {}, '/layer/MatMul')]) {
  return folder.write(
    model({
      nodes,
      initializers: [tensor('w', [8, 4], randomNumbers(seed, 32))],
      inputs: [value('x', ['n', 8])],
      outputs: [value('y', ['n', 4])],
    }),
  );
}

/** `slots: true` is what the command line has as --slots. */
async function slotted(base: string): Promise<string> {
  return (await patch(base, { slots: true })).output;
}

describe('a slotted session', () => {
  it('takes tensors of ONNX Runtime and of ours, in objects and maps', async () => {
    const base = layer(1);
    const [patched, file] = [folder.fresh(), folder.fresh('german.safetensors')];
    await patchFile(base, patched, { rank: 2, blocks: 1, factors: trained });
    await extract(patched, { output: file });
    const session = await AdapterSession.open(await slotted(base));
    session.load('german', file);
    const data = Float32Array.from(randomNumbers(2, 24));
    const theirs = new Tensor('float32', data, [3, 8]);
    const ours = { dtype: 'float32', dims: [3, 8], data } as const;
    const forms: GivenFeeds[] = [
      { x: theirs },
      { x: ours },
      new Map([['x', theirs]]),
      new Map([['x', ours]]),
    ];
    const results = [];
    for (const feeds of forms) {
      const none = (await session.run(feeds)).get('y')!;
      const one = (await session.run(feeds, { adapters: 'german' })).get('y')!;
      results.push([none, one]);
    }
    await session.release();
    for (const result of results) expect(result).toEqual(results[0]);
    expect(results[0]![1]).not.toEqual(results[0]![0]);
  });

  it.each([
    { x: 5 },
    { x: [1, 2] },
    { x: null },
    { x: { dtype: 'string', dims: [1], data: ['a'] } },
    { x: { type: 'bfloat16', dims: [1], data: new Uint16Array(1) } },
  ])('refuses %o, naming the input', async (feeds) => {
    const session = await AdapterSession.open(await slotted(layer(1)));
    const error = await failure(() => session.run(feeds as never), 'invalid-argument');
    await session.release();
    expect(error.message).toMatch(/^the input x is not a tensor of numbers /);
  });

  it('makes no slots where they are declined', async () => {
    const { slots, adapters } = await patch(layer(1), { slots: false, rank: 2, blocks: 1 });
    expect(slots).toBeUndefined();
    expect(adapters).toHaveLength(1);
  });
});

describe('a slotted model that is opened', () => {
  it('is held against its base', async () => {
    const path = await slotted(layer(1));
    const session = await AdapterSession.open(path);
    expect(session.guard).toEqual({ maxRelDiff: 0, tolerance: 1e-4, passed: true });
    await session.release();
    const unguarded = await AdapterSession.open(path, { guard: false });
    expect(unguarded.guard).toBeUndefined();
    await unguarded.release();
  });

  it('is refused where it computes something else', async () => {
    const opened = OpenedModel.open(await slotted(layer(1)));
    const base = await runBase(opened, 1);
    const other = await openSession(await slotted(layer(2)));
    const compare = () => compareWithBase(opened, opened.patched.slots!, other, base);
    const error = await failure(compare, 'verification');
    expect(error.message).toContain(' with empty slots does not compute what its base does: ');
    opened.close();
  });

  it('is not judged where its base draws random numbers', async () => {
    const nodes = [
      node('RandomNormalLike', ['x'], 'drawn'),
      node('MatMul', ['drawn', 'w'], 'y', {}, '/layer/MatMul'),
    ];
    const session = await AdapterSession.open(await slotted(layer(1, nodes)));
    expect(session.guard).toMatchObject({ maxRelDiff: null, passed: null });
    expect(session.guard!.reason).toContain('random numbers');
    await session.release();
  });
});
