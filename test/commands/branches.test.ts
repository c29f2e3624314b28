/** Models whose branches use the same names, as decoders that were merged into one: each name means a value of its own branch. */
import { describe, expect, it } from 'vitest';
import { AdapterSession } from '../../src/adapters/slots/adapter-session.js';
import { apply } from '../../src/commands/apply.js';
import { extract } from '../../src/commands/extract.js';
import { inspect } from '../../src/commands/inspect.js';
import { merge } from '../../src/commands/merge.js';
import type { PatchOptions } from '../../src/commands/patch.js';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { tensorFromNumbers, tensorToFloat64 } from '../../src/runtime/tensor-value.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { sameFiles, temporaryFolder } from '../support/files.js';
import { body, model, node, tensor, value } from '../support/models.js';
import { expectClose, feed, maxDifference, run } from '../support/run.js';

const folder = temporaryFolder();

/** `first` and `second` with a bias each, and one branch ends in a Tanh. */
function branch(weights: readonly [string, string], last: string) {
  return body({
    nodes: [
      node('MatMul', ['x', weights[0]], 'h', {}, '/net/first/MatMul'),
      node('Add', ['h', 'b1'], 'hb', {}, '/net/first/Add'),
      node('MatMul', ['hb', weights[1]], 'o', {}, '/net/second/MatMul'),
      node('Add', ['o', 'b2'], 'ob', {}, '/net/second/Add'),
      node(last, ['ob'], `y ${last}`),
    ],
    outputs: [`y ${last}`],
  });
}

/** The branches read the same weights, or weights of their own. */
function merged(isShared: boolean): Uint8Array {
  const others: [string, string] = isShared ? ['w1', 'w2'] : ['w3', 'w4'];
  return model({
    nodes: [
      node('If', ['use_cache'], 'y', {
        then_branch: { graph: branch(['w1', 'w2'], 'Identity') },
        else_branch: { graph: branch(others, 'Tanh') },
      }),
    ],
    initializers: [
      tensor('w1', [6, 8], randomNumbers(1, 48)),
      tensor('w2', [8, 4], randomNumbers(2, 32)),
      ...(isShared
        ? []
        : [tensor('w3', [6, 8], randomNumbers(3, 48)), tensor('w4', [8, 4], randomNumbers(4, 32))]),
      tensor('b1', [8], randomNumbers(5, 8)),
      tensor('b2', [4], randomNumbers(6, 4)),
    ],
    inputs: [value('x', ['n', 6]), value('use_cache', [1], 'bool')],
    outputs: [value('y', ['n', 4])],
  });
}

const X = randomNumbers(9, 18);

async function bothBranches(path: string) {
  const x = feed([3, 6], X);
  const outputs = [true, false].map((on) => run(path, { x, use_cache: feed([1], [+on], 'bool') }));
  const [on, off] = await Promise.all(outputs);
  return { on: on!.y!, off: off!.y! };
}

/** The base, with adapters in one more file, and their set in a file of its own. */
async function adapted(isShared: boolean, perNode = false) {
  const base = folder.write(merged(isShared));
  const [path, file] = [folder.fresh(), folder.fresh('a.safetensors')];
  await patchFile(base, path, { rank: 2, blocks: 2, perNode, factors: (a) => trained(a, 5) });
  await extract(path, { output: file });
  return { base, path, file };
}

const forms: [string, boolean, boolean][] = [
  ['share their weights', true, false],
  ['share their weights, with adapters of their own', true, true],
  ['have weights of their own', false, false],
];

describe.each(forms)('branches that %s', (_, isShared, perNode) => {
  it('are both changed by their adapters, and folded', async () => {
    const { base, path } = await adapted(isShared, perNode);
    const before = await bothBranches(base);
    const expected = await bothBranches(path);
    expect(maxDifference(expected.on.data, before.on.data)).toBeGreaterThan(0.1);
    expect(maxDifference(expected.off.data, before.off.data)).toBeGreaterThan(0.1);
    const output = folder.fresh();
    const { merged: weights, verification } = await merge(path, { output });
    expect(verification).toMatchObject({ passed: true });
    expectClose({ ...(await bothBranches(output)) }, { ...expected }, 1e-6);
    const nodes = weights.flatMap((weight) => weight.nodes);
    expect(nodes).toHaveLength(4);
    if (!perNode) expect(weights.every(({ kind }) => kind === 'in place')).toBe(true);
  });

  it('are what they were when the adapters are taken out', async () => {
    const { base, path } = await adapted(isShared, perNode);
    const output = folder.fresh();
    await unpatch(path, { output });
    expect(sameFiles(output, base)).toBe(true);
  });

  it('get back the adapters that were extracted', async () => {
    const { base, path, file } = await adapted(isShared, perNode);
    const output = folder.fresh();
    await apply(base, file, { output });
    expect(await bothBranches(output)).toEqual(await bothBranches(path));
  });

  it('show their adapters at each node', async () => {
    const { path } = await adapted(isShared, perNode);
    const { targets } = await inspect(path);
    expect(targets).toHaveLength(4);
    for (const { adapters } of targets) expect(adapters).toHaveLength(1);
  });

  it.each(['a.safetensors', 'a.onnx_adapter'])('take %s into slots', async (name) => {
    const { base, path } = await adapted(isShared, perNode);
    const [output, file] = [folder.fresh(), folder.fresh(name)];
    await extract(path, { output: file });
    const options: PatchOptions = { output, slots: 'required', perNode };
    const { slots } = await patch(base, options);
    expect(new Set(slots!.map((slot) => slot.name)).size).toBe(isShared && !perNode ? 2 : 4);
    const { targets } = await inspect(output);
    expect(targets.every(({ slot }) => slot !== null)).toBe(true);
    const expected = await bothBranches(path);
    const session = await AdapterSession.open(output);
    try {
      await session.load('a', file);
      for (const on of [true, false]) {
        const feeds = new Map([
          ['x', tensorFromNumbers('float32', [3, 6], X)],
          ['use_cache', tensorFromNumbers('bool', [1], Float64Array.of(+on))],
        ]);
        const y = (await session.run(feeds, { adapters: ['a'] })).get('y')!;
        const { data } = on ? expected.on : expected.off;
        expect(maxDifference(tensorToFloat64(y), data)).toBeLessThan(1e-5);
      }
    } finally {
      await session.release();
    }
  });
});

it('a file of adapters that says nothing of two branches of other weights is refused', async () => {
  const { file } = await adapted(true);
  const base = folder.write(merged(false));
  await expect(apply(base, file, { output: folder.fresh() })).rejects.toThrow(
    'it may be any of the nodes /net/first/MatMul, /net/first/MatMul',
  );
});
