/** HiRA as PEFT has it: folders that PEFT wrote, what it computed with them, and folders for it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { combine } from '../../../src/commands/combine.js';
import { extract } from '../../../src/commands/extract.js';
import { merge } from '../../../src/commands/merge.js';
import { patch } from '../../../src/commands/patch.js';
import { openSafetensors } from '../../../src/formats/safetensors.js';
import { insertInto, patchFile, randomNumbers, trained } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { type PeftTensors, peftFolder } from '../../support/peft.js';
import { feed, maxDifference, run } from '../../support/run.js';

const recorded = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../fixtures/kinds/peft.json'), 'utf8'),
).hira as {
  readonly output: readonly number[];
  readonly final: Readonly<Record<string, readonly number[]>>;
  readonly folded: Readonly<Record<'first' | 'second', readonly number[]>>;
};

const folder = temporaryFolder();
const [IN, HIDDEN, OUT, ROWS] = [6, 8, 4, 15];
const X = randomNumbers(100, ROWS * IN);

/** `x·W1ᵀ`, tanh, `·W2ᵀ` with the weights as PyTorch keeps them. */
function base(first: Iterable<number>, second: Iterable<number>): string {
  return folder.write(
    model({
      nodes: [
        node('Gemm', ['x', 'first.weight', 'b1'], 'h', { transB: 1 }, '/first/Gemm'),
        node('Tanh', ['h'], 't'),
        node('Gemm', ['t', 'second.weight', 'b2'], 'y', { transB: 1 }, '/second/Gemm'),
      ],
      initializers: [
        tensor('first.weight', [HIDDEN, IN], [...first]),
        tensor('second.weight', [OUT, HIDDEN], [...second]),
        tensor('b1', [HIDDEN], [...randomNumbers(12, HIDDEN)]),
        tensor('b2', [OUT], [...randomNumbers(14, OUT)]),
      ],
      inputs: [value('x', ['n', IN])],
      outputs: [value('y', ['n', OUT])],
    }),
  );
}

const original = () => base(randomNumbers(11, HIDDEN * IN), randomNumbers(13, OUT * HIDDEN));
const outputOf = async (path: string) => (await run(path, { x: feed([ROWS, IN], X) })).y!.data;

const CONFIG = { peft_type: 'HIRA', r: 2 };
const key = (module: string, factor: string) => `base_model.model.${module}.hira_${factor}`;

/** A folder like those of `save_pretrained`. */
function saved(numbers: (name: string) => ArrayLike<number>, config: object = CONFIG): string {
  const tensors: PeftTensors = {
    [key('first', 'A')]: { shape: [2, IN], values: numbers('first.hira_A') },
    [key('first', 'B')]: { shape: [HIDDEN, 2], values: numbers('first.hira_B') },
    [key('second', 'A')]: { shape: [2, HIDDEN], values: numbers('second.hira_A') },
    [key('second', 'B')]: { shape: [OUT, 2], values: numbers('second.hira_B') },
  };
  return peftFolder(folder.fresh('peft'), { ...config }, tensors);
}

/** The numbers that record.py starts with. */
function initial(name: string): Float64Array {
  const second = name.startsWith('second') ? 1 : 0;
  const [sizeA, sizeB] = second ? [2 * HIDDEN, 2 * OUT] : [2 * IN, 2 * HIDDEN];
  return name.endsWith('A')
    ? randomNumbers(21 + second, sizeA, 0.5)
    : randomNumbers(31 + second, sizeB, 0.5);
}

const final = (name: string) => recorded.final[name]!;

describe('a PEFT folder of HIRA', () => {
  it('computes beside the weights what PEFT computed', async () => {
    const { output } = await apply(original(), saved(initial), { output: folder.fresh() });
    expect(maxDifference(await outputOf(output), recorded.output)).toBeLessThan(1e-5);
  });

  it('folds into the weights that PEFT folds it into', async () => {
    const model = original();
    const merged = await merge(model, { adapter: saved(final), output: folder.fresh() });
    expect(merged.verification!.passed).toBe(true);
    const { first, second } = recorded.folded;
    expect(
      maxDifference(await outputOf(merged.output), await outputOf(base(first, second))),
    ).toBeLessThan(1e-5);
  });

  it('comes back as it was', async () => {
    const path = saved(final);
    const { output } = await apply(original(), path, { output: folder.fresh() });
    const back = folder.fresh('back');
    const { peft } = await extract(output, { output: back });
    expect(peft).toMatchObject({ type: 'hira', reason: undefined });
    expect(peft!.modules.map(({ form }) => form)).toEqual(['same', 'same']);
    for (const name of ['first.hira_A', 'second.hira_B']) {
      const read = (at: string) => {
        const file = openSafetensors(join(at, 'adapter_model.safetensors'));
        const values = [...file.readFloat64(`base_model.model.${name}`)];
        file.close();
        return values;
      };
      expect(read(back)).toEqual(read(path));
    }
    const config = JSON.parse(readFileSync(join(back, 'adapter_config.json'), 'utf8'));
    expect(config).toMatchObject({ peft_type: 'HIRA', r: 2, target_modules: ['first', 'second'] });
    expect(config).not.toHaveProperty('lora_alpha');
  });

  it('has the ranks of its tensors, whatever its pattern says', async () => {
    const path = saved(final, { ...CONFIG, rank_pattern: { second: 3 } });
    const { adapters } = await apply(original(), path, { output: folder.fresh() });
    expect(adapters.map(({ rank, scale, kind }) => [rank, scale, kind])).toEqual([
      [2, 1, 'hira'],
      [2, 1, 'hira'],
    ]);
  });

  it('is written with one rank and a scale of 1: ranks get zeros, the scale goes into B', async () => {
    const patched = folder.fresh();
    const options = { kind: 'hira', rank: 4, blocks: 1, alpha: 6, targets: ['all'] } as const;
    const how = { ...options, rankPattern: ['first=2'], factors: trained };
    await patchFile(original(), patched, how);
    const written = folder.fresh('written');
    const { peft } = await extract(patched, { output: written });
    expect(peft!.modules.map(({ rank }) => rank)).toEqual([4, 4]);
    const applied = await apply(original(), written, { output: folder.fresh() });
    expect(maxDifference(await outputOf(applied.output), await outputOf(patched))).toBeLessThan(
      1e-6,
    );
  });
});

describe('HiRA', () => {
  const hira = { kind: 'hira', rank: 2, blocks: 1, targets: ['all'] } as const;
  const trainedFile = async (seed: number) => {
    const path = folder.fresh();
    const factors = (adapters: Parameters<typeof trained>[0]) => trained(adapters, seed);
    await patchFile(original(), path, { ...hira, factors });
    const output = folder.fresh(`adapter-${seed}.safetensors`);
    await extract(path, { output });
    return { path, output };
  };

  it('has a scale of 1 where nothing is said of alpha', async () => {
    const { adapters } = await patch(original(), { ...hira, output: folder.fresh() });
    expect(adapters.map(({ scale }) => scale)).toEqual([1, 1]);
  });

  it('has exact sums with its own kind', async () => {
    const [one, two] = [await trainedFile(1), await trainedFile(2)];
    const sum = folder.fresh('sum.safetensors');
    await combine([one.output, two.output], { output: sum, weights: [0.5, 2] });
    // One layer, so that outputs are linear in the adapters.
    const single = await firstLayer();
    const only = async (adapter: string) => {
      const how = { output: folder.fresh(), allowUnmatched: true };
      return outputOf((await apply(single, adapter, how)).output);
    };
    const y = await outputOf(single);
    const [a, b] = [await only(one.output), await only(two.output)];
    const expected = y.map((v, i) => v + 0.5 * (a[i]! - v) + 2 * (b[i]! - v));
    expect(maxDifference(await only(sum), expected)).toBeLessThan(1e-5);
  });

  it('is refused where A·B would be taken for its change', async () => {
    const { path, output } = await trainedFile(3);
    const refused = async (run: () => unknown, text: string, code = 'unsupported' as const) =>
      expect((await failure(run, code)).message).toContain(text);
    const to = { output: folder.fresh('refused.safetensors') };
    await refused(() => combine([output, output], { ...to, method: 'svd' }), 'svd looks at A·B');
    await refused(() => extract(path, { output: folder.fresh('a.onnx_adapter') }), 'HiRA');
    await refused(() => extract(path, { output: folder.fresh('p'), peftType: 'lora' }), 'LORA');
    await refused(() => extract(path, { output: folder.fresh('p'), peftRank: 1 }), 'HIRA');
    await refused(() => merge(path, { output: folder.fresh(), scale: -1 }), 'does not undo');
    const lora = folder.write(await insertInto(original(), { ...hira, kind: 'lora' }));
    const plain = folder.fresh('plain.safetensors');
    await extract(lora, { output: plain });
    await refused(() => combine([output, plain], to), 'one kind');
    const pissa = () => patch(original(), { ...hira, init: 'pissa', output: folder.fresh() });
    expect((await failure(pissa, 'invalid-argument')).message).toContain('HiRA');
  });
});

async function firstLayer(): Promise<string> {
  return folder.write(
    model({
      nodes: [node('Gemm', ['x', 'first.weight', 'b1'], 'y', { transB: 1 }, '/first/Gemm')],
      initializers: [
        tensor('first.weight', [HIDDEN, IN], [...randomNumbers(11, HIDDEN * IN)]),
        tensor('b1', [HIDDEN], [...randomNumbers(12, HIDDEN)]),
      ],
      inputs: [value('x', ['n', IN])],
      outputs: [value('y', ['n', HIDDEN])],
    }),
  );
}
