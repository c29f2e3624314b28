/** Work grows with the layers, and not with their square. */
import { describe, expect, it } from 'vitest';
import { apply } from '../../src/commands/apply.js';
import { extract } from '../../src/commands/extract.js';
import { inspect } from '../../src/commands/inspect.js';
import { foldAdapters } from '../../src/commands/merge.js';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { cpuSeconds } from '../support/cpu-time.js';
import { temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';

const files = temporaryFolder();
const small = { rank: 1, blocks: 1, force: true };

/** Layers in a row; all of them of one weight, or each of its own. */
function layersModel(layers: number, isShared: boolean): string {
  const x = (i: number) => (i === 0 ? 'x' : `h${i}`);
  const weights = isShared
    ? ['w.weight']
    : Array.from({ length: layers }, (_, i) => `w${i}.weight`);
  const weight = (i: number) => weights[isShared ? 0 : i]!;
  return files.write(
    model({
      nodes: Array.from({ length: layers }, (_, i) => node('MatMul', [x(i), weight(i)], x(i + 1))),
      initializers: weights.map((name) => tensor(name, [1, 1])),
      inputs: [value('x', ['n', 1])],
      outputs: [x(layers)],
    }),
  );
}

interface Paths {
  readonly base: string;
  readonly adapted: string;
  readonly slotted: string;
  readonly shared: string;
  readonly adapter: string;
}

type Command = (paths: Paths) => Promise<unknown>;
const output = () => ({ output: files.fresh(), force: true });

const commands: Readonly<Record<string, Command>> = {
  patch: ({ base }) => patch(base, { ...small, ...output() }),
  'patch of one weight': ({ shared }) => patch(shared, { ...small, ...output() }),
  'patch with slots': ({ base }) => patch(base, { slots: 'required', ...output() }),
  'inspect of adapters': ({ adapted }) => inspect(adapted),
  'inspect of slots': ({ slotted }) => inspect(slotted),
  unpatch: ({ adapted }) => unpatch(adapted, output()),
  merge: ({ adapted }) => foldAdapters(adapted, output()),
  extract: ({ adapted }) => extract(adapted, { output: files.fresh('a.safetensors') }),
  'extract for a runtime': ({ adapted }) =>
    extract(adapted, { output: files.fresh('a.onnx_adapter') }),
  apply: ({ base, adapter }) => apply(base, adapter, output()),
};

async function made(layers: number): Promise<Paths> {
  const [base, shared] = [layersModel(layers, false), layersModel(layers, true)];
  const [adapted, slotted] = [files.fresh(), files.fresh()];
  const adapter = files.fresh('adapter.safetensors');
  await patch(base, { ...small, output: adapted });
  await patch(base, { slots: 'required', output: slotted });
  await extract(adapted, { output: adapter });
  return { base, shared, adapted, slotted, adapter };
}

const FEW = 1000;

describe('twice the layers', () => {
  let few: Paths;
  let many: Paths;
  it('are made', async () => {
    few = await made(FEW);
    many = await made(2 * FEW);
  });

  // A model of 18,432 layers took minutes: each layer looked for itself among all.
  it.each(Object.entries(commands))('take less than three times of %s', async (_, command) => {
    const seconds: [number, number] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    // The best of two: garbage is collected when it likes.
    for (let i = 0; i < 2; i++) {
      for (const [at, paths] of [few, many].entries()) {
        seconds[at] = Math.min(seconds[at]!, await cpuSeconds(() => command(paths)));
      }
    }
    expect(seconds[1] / seconds[0]).toBeLessThan(3);
  });
});
