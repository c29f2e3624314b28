/** Advice on models whose changes are made to suit one structure. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type AdviseOptions, advise } from '../../src/commands/advise.js';
import { patch } from '../../src/commands/patch.js';
import { safetensors } from '../data/data.js';
import { randomNumbers } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';

const folder = temporaryFolder();
const SIZE = 32;

/** Random numbers of rank `rank` in each block where `has(n, j)`, on a grid of K x K. */
function blocks(seed: number, k: number, rank: number, has: (n: number, j: number) => boolean) {
  const width = SIZE / k;
  const matrix = new Float64Array(SIZE * SIZE);
  for (let n = 0; n < k; n++) {
    for (let j = 0; j < k; j++) {
      if (!has(n, j)) continue;
      const left = randomNumbers(seed + 100 * (n * k + j), width * rank);
      const right = randomNumbers(seed + 100 * (n * k + j) + 50, rank * width);
      for (let x = 0; x < width; x++) {
        for (let y = 0; y < width; y++) {
          const at = (n * width + x) * SIZE + j * width + y;
          for (let r = 0; r < rank; r++) matrix[at]! += left[x * rank + r]! * right[r * width + y]!;
        }
      }
    }
  }
  return matrix;
}

/** A change that each structure says without an error at rank 8, and no other does. */
const changes = {
  global: blocks(1, 1, 8, () => true),
  diagonal: blocks(2, 4, 8, (n, j) => n === j),
  localized: blocks(3, 4, 2, () => true),
};
const noise = () => randomNumbers(4, SIZE * SIZE);

type Weights = Readonly<Record<string, Float64Array>>;

/** Layers side by side: `y_a = x·W_a`, and so on. */
function layersOf(weights: Weights): Uint8Array {
  const names = Object.keys(weights);
  return model({
    nodes: names.map((name) =>
      node('MatMul', ['x', `${name}.weight`], `y_${name}`, {}, `/${name}/MatMul`),
    ),
    initializers: names.map((name) => tensor(`${name}.weight`, [SIZE, SIZE], weights[name])),
    inputs: [value('x', ['batch', SIZE])],
    outputs: names.map((name) => value(`y_${name}`, ['batch', SIZE])),
  });
}

const zeros = new Float64Array(SIZE * SIZE);
const file = (weights: Weights) => folder.write(layersOf(weights));

/** Base and tuned model of layers that change so. */
function pair(weights: Weights) {
  const base = Object.fromEntries(Object.keys(weights).map((name) => [name, zeros]));
  return { base: file(base), tuned: file(weights) };
}

async function choices(path: string, options: AdviseOptions) {
  const { layers } = await advise(path, { rank: 8, ...options });
  return Object.fromEntries(layers.map(({ module, choice }) => [module, choice]));
}

/** Samples of `y = x·change`, with x normal enough that the gradient at W = 0 is -change. */
function samples(change: Float64Array, count: number): string {
  const x = randomNumbers(9, count * SIZE);
  const target = new Float64Array(count * SIZE);
  for (let s = 0; s < count; s++) {
    for (let i = 0; i < SIZE; i++) {
      for (let j = 0; j < SIZE; j++) {
        target[s * SIZE + j]! += x[s * SIZE + i]! * change[i * SIZE + j]!;
      }
    }
  }
  return folder.write(
    safetensors({
      x: ['float32', [count, SIZE], [...x]],
      target: ['float32', [count, SIZE], [...target]],
    }),
    'data.safetensors',
  );
}

describe('advice from a tuned model', () => {
  it('finds the structure that each layer was changed by', async () => {
    const { base, tuned } = pair({ a: changes.global, b: changes.diagonal, c: changes.localized });
    expect(await choices(base, { tuned })).toMatchObject({
      a: { structure: 'global', verdict: 'clear', rank: 8, parameters: 8 * 64 },
      b: { structure: 'diagonal', blocks: 4, verdict: 'clear' },
      c: { structure: 'localized', blocks: 4, verdict: 'clear' },
    });
  });

  it('measures every structure at equal parameters', async () => {
    const { base, tuned } = pair({ b: changes.diagonal });
    const { basis, layers } = await advise(base, { tuned, rank: 8 });
    expect(basis).toBe('tuned');
    const { scores } = layers[0]!;
    expect(scores.map(({ structure, blocks: k }) => `${structure} ${k}`)).toEqual([
      'global 1',
      ...['diagonal 2', 'diagonal 4', 'diagonal 8'],
      ...['localized 2', 'localized 4', 'localized 8'],
    ]);
    expect(scores.map(({ parameters }) => parameters)).toEqual(scores.map(() => 8 * 64));
    const of = (name: string, k: number) =>
      scores.find(({ structure, blocks: found }) => structure === name && found === k)!;
    expect(of('diagonal', 4).error).toBeLessThan(1e-6);
    // Larger blocks hold it too, but their rank is 16.
    expect(of('diagonal', 2).error).toBeGreaterThan(0.1);
  });

  it('keeps plain LoRA where nothing is clearly better', async () => {
    const { base, tuned } = pair({ a: noise() });
    const { overall, patch: options } = await advise(base, { tuned, rank: 8 });
    expect(overall).toMatchObject({ structure: 'global', verdict: 'close' });
    expect(options).toEqual({ structure: 'global', rank: 8 });
  });

  it('says which layers did not change', async () => {
    const base = file({ a: zeros, b: zeros });
    const tuned = file({ a: changes.global, b: zeros });
    const { layers, skipped } = await advise(base, { tuned, rank: 8 });
    expect(layers.map(({ module }) => module)).toEqual(['a']);
    expect(skipped).toEqual([
      { node: '/b/MatMul', reason: 'its weight is the same in the tuned model' },
    ]);
  });
});

describe('advice from the gradient', () => {
  it.each(['global', 'diagonal', 'localized'] as const)(
    'finds that the data want a %s change, in both halves of them',
    async (structure) => {
      const data = samples(changes[structure], 512);
      const options = { data, loss: 'mse', batchSize: 64, provider: 'cpu', rank: 8 } as const;
      const { basis, layers } = await advise(file({ a: zeros }), options);
      const [{ choice, agreement, scores }] = layers as [(typeof layers)[number]];
      expect(basis).toBe('gradient');
      expect(choice).toMatchObject({ structure, verdict: 'clear' });
      expect(agreement).toBeGreaterThan(0.8);
      expect(scores.every(({ heldOut }) => heldOut?.every((share) => share <= 1 + 1e-9))).toBe(
        true,
      );
    },
  );

  it('does not take noise for a structure', async () => {
    // Targets that have nothing to do with x: each batch pulls elsewhere.
    const count = 64;
    const data = folder.write(
      safetensors({
        x: ['float32', [count, SIZE], [...randomNumbers(5, count * SIZE)]],
        target: ['float32', [count, SIZE], [...randomNumbers(6, count * SIZE)]],
      }),
      'data.safetensors',
    );
    const options = { data, loss: 'mse', provider: 'cpu', rank: 8 } as const;
    const { layers, overall } = await advise(file({ a: zeros }), options);
    expect(layers[0]!.agreement).toBeLessThan(0.3);
    expect(Math.max(...layers[0]!.scores.map(({ share }) => share))).toBeLessThan(0.1);
    expect(overall.structure).toBe('global');
  });
});

describe('advice from the weights alone', () => {
  it('looks at how their numbers lie', async () => {
    const found = await advise(file({ a: changes.diagonal }), { rank: 8 });
    expect(found.basis).toBe('weights');
    expect(found.overall).toMatchObject({ structure: 'diagonal', blocks: 4 });
  });

  it('is none where weights are not finite', async () => {
    const broken = noise().fill(Number.NaN, 7, 8);
    const error = await failure(() => advise(file({ a: broken })), 'invalid-model');
    expect(error.message).toContain('the weight of a holds numbers that are not finite');
  });
});

describe('what follows from advice', () => {
  it('is a config that gives patch the same structures', async () => {
    const { base, tuned } = pair({ a: changes.global, b: changes.diagonal, c: changes.localized });
    const writeConfig = folder.fresh('lora.json');
    const { layers, parameters } = await advise(base, { tuned, rank: 8, writeConfig });
    const config = JSON.parse(readFileSync(writeConfig, 'utf8'));
    const { adapters } = await patch(base, { ...config, output: folder.fresh() });
    expect(adapters.map(({ name, structure, grid }) => [name, structure, grid[0]])).toEqual(
      layers.map(({ module, choice }) => [module, choice.structure, choice.blocks]),
    );
    expect(adapters.reduce((sum, adapter) => sum + adapter.parameters, 0)).toBe(parameters);
  });

  it('stays within a budget, which goes where it captures the most', async () => {
    const large = changes.global.map((number) => 10 * number);
    const { base, tuned } = pair({ small: changes.global, large });
    const budget = 9 * 2 * SIZE;
    const { layers, parameters, patch: options } = await advise(base, { tuned, rank: 8, budget });
    const rank = Object.fromEntries(layers.map(({ module, choice }) => [module, choice.rank]));
    expect(parameters).toBeLessThanOrEqual(budget);
    expect(rank.large).toBe(8);
    expect(rank.small).toBe(1);
    const { adapters } = await patch(base, { ...options, output: folder.fresh() });
    expect(adapters.reduce((sum, adapter) => sum + adapter.parameters, 0)).toBe(parameters);
  });

  it('leaves a layer out that a budget has nothing for', async () => {
    const tiny = changes.global.map((number) => 1e-3 * number);
    const { base, tuned } = pair({ tiny, large: changes.global });
    const { layers, patch: options } = await advise(base, { tuned, rank: 8, budget: 2 * SIZE });
    expect(layers.map(({ choice }) => choice.rank)).toEqual([0, 1]);
    expect(options.exclude).toEqual(['tiny']);
    const { adapters } = await patch(base, { ...options, output: folder.fresh() });
    expect(adapters.map(({ name }) => name)).toEqual(['large']);
  });
});

describe('bad input', () => {
  it.each([
    [{ data: 'x.safetensors' }, '`data` needs `loss`'],
    [{ loss: 'mse' }, '`loss` has no effect without `data`'],
    [{ data: 'x.safetensors', loss: 'mse', tuned: 'y.onnx' }, '`data` has no effect with `tuned`'],
    [{ rank: 0 }, '`rank` is 0'],
    [{ budget: 1.5 }, '`budget` is 1.5'],
    [{ budget: 3 }, 'the smallest adapter has 64'],
  ] as const)('%o', async (options, message) => {
    const run = () => advise(file({ a: changes.global }), options as AdviseOptions);
    const error = await failure(run, 'invalid-argument');
    expect(error.message).toContain(message);
  });

  it('is a model that carries adapters already', async () => {
    const patched = folder.fresh();
    await patch(file({ a: zeros }), { output: patched, rank: 8 });
    const error = await failure(() => advise(patched), 'unsupported');
    expect(error.message).toContain('carries adapters');
  });

  it('is a model of which no layer changed', async () => {
    const base = file({ a: zeros });
    const error = await failure(() => advise(base, { tuned: file({ a: zeros }) }), 'no-target');
    expect(error.message).toContain('a: its weight is the same');
  });
});

describe('patch with structure auto', () => {
  const patched = async (weights: Weights, options: Parameters<typeof patch>[1]) => {
    const notes: string[] = [];
    const { adapters } = await patch(file(weights), {
      ...{ structure: 'auto', rank: 8, output: folder.fresh() },
      onNote: (text) => notes.push(text),
      ...options,
    });
    const found = adapters.map(({ name, structure, grid }) => `${name} ${structure} ${grid[0]}`);
    return { found, notes };
  };

  it('gives layers what the data want', async () => {
    const data = samples(changes.diagonal, 512);
    const options = { data, loss: 'mse', batchSize: 64, provider: 'cpu' } as const;
    const { found, notes } = await patched({ a: zeros }, options);
    expect(found).toEqual(['a diagonal 4']);
    expect(notes).toContain(`structure auto: diagonal; from the gradient on ${data}`);
  });

  it('goes by the weights where there are no data, and says so', async () => {
    const weights = { a: changes.localized, b: changes.localized, c: changes.diagonal };
    const { found, notes } = await patched(weights, {});
    expect(found).toEqual(['a localized 4', 'b localized 4', 'c diagonal 4']);
    expect(notes.join()).toMatch(/weights alone, which say little/);
  });

  it('lets patterns go first, and takes grids that divide the ranks of others', async () => {
    const weights = { a: changes.localized, b: changes.localized };
    const options = { structurePattern: ['a=global'], rankPattern: ['b=6'] };
    expect((await patched(weights, options)).found).toEqual(['a global 1', 'b localized 2']);
  });

  it.each([
    [{ blocks: 2 }, '`blocks` has no effect with `structure` auto'],
    [{ data: 'x.safetensors' }, '`data` needs `loss`'],
    [{ loss: 'mse' }, '`loss` has no effect without `data`'],
  ] as const)('refuses %o', async (options, message) => {
    const error = await failure(() => patched({ a: zeros }, options), 'invalid-argument');
    expect(error.message).toContain(message);
  });
});
