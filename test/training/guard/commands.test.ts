/** Every command that builds a graph from a file compares the two first: a fault in any of these graphs ends it. */
import { readdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { addAdaptersHere } from '../../../src/commands/add-adapters.js';
import { adviseHere } from '../../../src/commands/advise.js';
import { evaluateHere } from '../../../src/commands/evaluate.js';
import { adviseOptions } from '../../../src/commands/options/advise.js';
import { evalOptions } from '../../../src/commands/options/eval.js';
import { type PatchOptions, patchOptions } from '../../../src/commands/options/patch.js';
import type { GraphBuilder } from '../../../src/graph/builder.js';
import { resolveOptions } from '../../../src/options/resolve.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { tinyData, tinyModel, tinyRun, trainTiny } from '../tiny.js';

/** Which graphs that are built from a file, counted from 1, compute something else than it. */
const faulty = vi.hoisted(() => ({ from: Number.POSITIVE_INFINITY, built: 0 }));

vi.mock('../../../src/graph/load.js', async (original) => {
  const real = await original<typeof import('../../../src/graph/load.js')>();
  const planted = <T extends GraphBuilder>(graph: T): T => {
    if (++faulty.built < faulty.from) return graph;
    const at = graph.nodes.findIndex(({ opType }) => opType === 'Tanh');
    graph.nodes[at] = { ...graph.nodes[at]!, opType: 'Sigmoid' };
    return graph;
  };
  const loadPlaced: typeof real.loadPlaced = (...given) => {
    const loaded = real.loadPlaced(...given);
    planted(loaded.graph);
    return loaded;
  };
  const loadGraph: typeof real.loadGraph = (...given) => planted(real.loadGraph(...given));
  return { ...real, loadPlaced, loadGraph };
});

function plant(from: number): void {
  Object.assign(faulty, { from, built: 0 });
}

afterEach(() => plant(Number.POSITIVE_INFINITY));

const files = temporaryFolder();
const passed = { guard: { passed: true, seconds: expect.any(Number) } };

async function setup() {
  return {
    run: await tinyRun(files),
    base: files.write(tinyModel()),
    data: files.write(tinyData(), 'data.safetensors'),
  };
}

type Setup = Awaited<ReturnType<typeof setup>>;

const cpu = { loss: 'mse', provider: 'cpu', threads: 1 } as const;

const patchHere = (path: string, options: PatchOptions) =>
  addAdaptersHere(path, resolveOptions(patchOptions, options, 'patch'));

const commands = {
  train: ({ run }: Setup, guard?: boolean) => trainTiny(files, run, { steps: 1, guard }),
  'train --emit-step-graph': ({ run }: Setup, guard?: boolean) =>
    trainTiny(files, run, { emitStepGraph: files.fresh('step.onnx'), output: undefined, guard }),
  eval: ({ run, data }: Setup, guard?: boolean) =>
    evaluateHere(run.model, resolveOptions(evalOptions, { ...cpu, data, guard }, 'evaluate')),
  advise: ({ base, data }: Setup, guard?: boolean) =>
    adviseHere(base, resolveOptions(adviseOptions, { ...cpu, data, guard }, 'advise')),
  'patch --init gradient': ({ base, data }: Setup, guard?: boolean) =>
    patchHere(base, {
      ...{ ...cpu, data, init: 'gradient', rank: 2, blocks: 2, output: files.fresh(), guard },
    }),
  'patch --structure auto': ({ base, data }: Setup, guard?: boolean) =>
    patchHere(base, {
      ...{ ...cpu, data, structure: 'auto', rank: 2, output: files.fresh(), guard },
    }),
};

describe.each(Object.entries(commands))('the guard of %s', (_, command) => {
  it('stands in its result', async () => {
    expect(await command(await setup())).toMatchObject(passed);
  });

  it('stops it at the node that computes something else', async () => {
    const given = await setup();
    plant(1);
    const error = await failure(() => command(given), 'verification');
    expect(error.message).toContain('the first value that differs is t, of ');
    expect(error.message).toContain('(Tanh): expected ');
  });

  it('may be left out', async () => {
    const given = await setup();
    plant(1);
    expect(await command(given, false)).not.toHaveProperty('guard');
  });
});

describe('the guard of the data of an evaluation', () => {
  const train = ({ run, data }: Setup) => trainTiny(files, run, { steps: 1, evalData: data });

  it('stands in the result of the run', async () => {
    expect(await train(await setup())).toMatchObject({ evalGuard: passed.guard, ...passed });
  });

  it('stops the run before its first step', async () => {
    const given = await setup();
    plant(2);
    const error = await failure(() => train(given), 'verification');
    expect(error.message).toContain('the first value that differs is t, of ');
    const left = readdirSync(dirname(given.run.model));
    expect(left.filter((name) => name.includes('trained'))).toEqual([]);
  });
});
