/** A linear layer behind the hidden states of a model. */
import { describe, expect, it } from 'vitest';
import { parseHead } from '../../../src/adapters/edit/head.js';
import { headOutputsOf } from '../../../src/adapters/model/head-outputs.js';
import { readManifests } from '../../../src/adapters/model/manifest.js';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { inspect } from '../../../src/commands/inspect.js';
import { merge } from '../../../src/commands/merge.js';
import { patch } from '../../../src/commands/patch.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { openSafetensors } from '../../../src/formats/safetensors.js';
import { encodeSafetensors } from '../../../src/formats/safetensors-output.js';
import { type DataTypeName, type FloatName, fromFloat64 } from '../../../src/onnx/dtype.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { openModel } from '../../../src/onnx/parse.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { randomNumbers } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { feed, maxDifference, run, type Values } from '../../support/run.js';
import { zooFeeds, zooModel } from '../../support/zoo.js';

const folder = temporaryFolder();
const OPTIONS = { rank: 2, blocks: 1 };

interface Encoder {
  readonly opset?: number;
  readonly mask?: DataTypeName;
  readonly dtype?: FloatName;
  /** The shape of the hidden states. */
  readonly shape?: readonly (number | string)[];
}

/** Hidden states [B, T, 4] of x [B, T, 3]. */
function encoder({ opset = 17, mask, dtype = 'float32', shape }: Encoder = {}): string {
  return folder.write(
    model({
      opset,
      nodes: [node('MatMul', ['x', 'w'], 'hidden', {}, 'layer')],
      initializers: [tensor('w', [3, 4], undefined, dtype)],
      inputs: [
        value('x', ['batch', 'time', 3], dtype),
        ...(mask ? [value('attention_mask', ['batch', 'time'], mask)] : []),
      ],
      outputs: [value('hidden', shape ?? ['batch', 'time', 4], dtype)],
    }),
  );
}

/** The model with adapters and a head. */
async function withHead(base: string, head: string, modelOutput?: string): Promise<string> {
  const output = folder.fresh('model.lora.onnx');
  await patch(base, { ...OPTIONS, head, modelOutput, output });
  return output;
}

/** Weight [H, classes] and bias of the head in a model. */
function numbersOf(path: string) {
  const opened = openModel(path);
  const files = new ExternalFiles(opened);
  const reader = new TensorReader(opened, files);
  const { head } = readManifests(opened)[0]!;
  const read = (name: string) => reader.float64(opened.graph.initializers.get(name)!).slice();
  const numbers = { weight: read(head!.weight), bias: read(head!.bias) };
  files.close();
  opened.close();
  return numbers;
}

/** What the head should make of hidden states, in float64. */
function logitsOf(
  hidden: Values,
  { weight, bias }: { weight: Float64Array; bias: Float64Array },
  share: (row: number, token: number) => number,
): number[] {
  const [batch = 0, time = 0, features = 0] = hidden.dims;
  const { length: classes } = bias;
  return Array.from({ length: batch * classes }, (_, at) => {
    const [row, column] = [Math.floor(at / classes), at % classes];
    let sum = bias[column]!;
    for (let t = 0; t < time; t++) {
      for (let f = 0; f < features; f++) {
        const x = hidden.data[(row * time + t) * features + f]!;
        sum += share(row, t) * x * weight[f * classes + column]!;
      }
    }
    return sum;
  });
}

function outputsOf(path: string): readonly string[] {
  const opened = openModel(path);
  const outputs = headOutputsOf(new PatchedModel(opened));
  opened.close();
  return outputs;
}

const x = [...randomNumbers(1, 2 * 5 * 3)];
const mask = [1, 1, 1, 0, 0, 1, 1, 1, 1, 1];

describe('the logits of a head', () => {
  describe.each([7, 9, 12, 13, 17, 18, 23])('in opset %i', (opset) => {
    it.each<[string, DataTypeName | undefined, (row: number, token: number) => number]>([
      ['mean', undefined, () => 1 / 5],
      ['mean', 'int64', (row, t) => mask[row * 5 + t]! / (row === 0 ? 3 : 5)],
      ['mean', 'float32', (row, t) => mask[row * 5 + t]! / (row === 0 ? 3 : 5)],
      ['cls', 'int64', (_, t) => (t === 0 ? 1 : 0)],
    ])('are those of pooled states: %s, mask %s', async (pooling, dtype, share) => {
      const base = encoder({ opset, ...(dtype ? { mask: dtype } : {}) });
      const path = await withHead(base, `linear:3:${pooling}`);
      const feeds = { x: feed([2, 5, 3], x), attention_mask: feed([2, 5], mask, dtype) };
      const { hidden, logits } = await run(path, feeds);
      expect(logits!.dims).toEqual([2, 3]);
      const expected = logitsOf(hidden!, numbersOf(path), share);
      expect(maxDifference(logits!.data, expected)).toBeLessThan(1e-5);
      const back = folder.fresh();
      await unpatch(path, { output: back });
      expect(sameFiles(back, base)).toBe(true);
    });

    it.each<DataTypeName>(['int64', 'float32'])(
      'are the bias where a mask of %s leaves no token',
      async (dtype) => {
        const path = await withHead(encoder({ opset, mask: dtype }), 'linear:3:mean');
        const none = [...mask.slice(0, 5), 0, 0, 0, 0, 0];
        const feeds = { x: feed([2, 5, 3], x), attention_mask: feed([2, 5], none, dtype) };
        const { logits } = await run(path, feeds);
        expect([...logits!.data.slice(3)]).toEqual([...numbersOf(path).bias]);
      },
    );
  });

  it('are one for each token where nothing is pooled', async () => {
    const path = await withHead(encoder(), 'linear:3:none');
    const { logits } = await run(path, { x: feed([2, 5, 3], x) });
    expect(logits!.dims).toEqual([2, 5, 3]);
  });

  it.each(['float16', 'float64'] as const)('are float32 behind a model of %s', async (dtype) => {
    const path = await withHead(encoder({ dtype }), 'linear:3:mean');
    const { hidden, logits } = await run(path, { x: feed([2, 5, 3], x, dtype) });
    const expected = logitsOf(hidden!, numbersOf(path), () => 1 / 5);
    // ONNX Runtime computes float16 in float32, and hands it on to the Cast as it is.
    const tolerance = dtype === 'float16' ? 1e-3 : 1e-5;
    expect(maxDifference(logits!.data, expected)).toBeLessThan(tolerance);
  });

  it('have another name where the model has logits already', async () => {
    const base = folder.write(
      model({
        nodes: [
          node('MatMul', ['x', 'w'], 'hidden', {}, 'layer'),
          node('Identity', ['hidden'], 'logits'),
        ],
        initializers: [tensor('w', [3, 4])],
        inputs: [value('x', ['batch', 3])],
        outputs: [value('hidden', ['batch', 4]), value('logits', ['batch', 4])],
      }),
    );
    const unclear = await failure(() => withHead(base, 'linear:2:none'), 'invalid-argument');
    expect(unclear.message).toContain('hidden, logits');
    const path = await withHead(base, 'linear:2:none', 'hidden');
    const outputs = await run(path, { x: feed([2, 3], x.slice(0, 6)) });
    expect(outputs.logits_1!.dims).toEqual([2, 2]);
  });
});

describe('a head', () => {
  it('starts as torch.nn.Linear does, from the seed', async () => {
    const base = encoder();
    const path = await withHead(base, 'linear:50:mean');
    const { weight, bias } = numbersOf(path);
    // Within ±1/√4; the mean of |u| is half the bound.
    expect(Math.max(...weight.map(Math.abs))).toBeLessThanOrEqual(0.5);
    expect(weight.reduce((sum, w) => sum + Math.abs(w), 0) / 200).toBeCloseTo(0.25, 1);
    expect([...bias]).toEqual(Array(50).fill(0));
    expect(sameFiles(await withHead(base, 'linear:50:mean'), path)).toBe(true);
    const other = folder.fresh();
    await patch(base, { ...OPTIONS, head: 'linear:50:mean', seed: 1, output: other });
    expect(numbersOf(other).weight).not.toEqual(weight);
  });

  it('counts as trainable, and is shown', async () => {
    const output = folder.fresh();
    const { parameters } = await patch(encoder(), { ...OPTIONS, head: 'linear:3', output });
    expect(parameters).toMatchObject({ trainable: 2 * (3 + 4) + 4 * 3 + 3, total: 12 + 14 + 15 });
    const { sets, targets, summary } = await inspect(output);
    expect(targets.map(({ node }) => node)).toEqual(['layer']);
    expect(sets[0]).toMatchObject({
      parameters: 14,
      head: { classes: 3, pooling: 'mean', input: 'hidden', output: 'logits', parameters: 15 },
    });
    expect(summary.adapterParameters).toBe(14);
  });

  it('takes no adapters itself, and stays when another set is taken out', async () => {
    const one = await withHead(encoder(), 'linear:3');
    const two = folder.fresh();
    const { adapters } = await patch(one, { ...OPTIONS, name: 'second', output: two });
    expect(adapters.map(({ nodes }) => nodes)).toEqual([['layer']]);
    const back = folder.fresh();
    await unpatch(two, { name: 'second', output: back });
    expect(sameFiles(back, one)).toBe(true);
  });

  it('is not taken out below another one that reads it', async () => {
    const one = await withHead(encoder(), 'linear:3');
    const two = folder.fresh();
    const second = { name: 'second', head: 'linear:2:none', modelOutput: 'logits' };
    await patch(one, { ...OPTIONS, ...second, output: two });
    const alone = () => unpatch(two, { name: 'default', output: folder.fresh() });
    const error = await failure(alone, 'unsupported');
    expect(error.message).toContain('logits');
    const back = folder.fresh();
    await unpatch(two, { output: back });
    expect((await run(back, { x: feed([2, 5, 3], x) })).hidden).toBeDefined();
  });

  it('stays in the merged model, behind the same hidden states', async () => {
    const base = zooModel('minilm-embed');
    const { outputs } = await inspect(base);
    const path = await withHead(
      base,
      `linear:3:${outputs[0]!.shape!.length === 3 ? 'mean' : 'none'}`,
      outputs[0]!.name,
    );
    const merged = folder.fresh();
    const { verification } = await merge(path, { output: merged });
    expect(verification!.passed).toBe(true);
    const [before, after] = [
      await run(path, zooFeeds('minilm-embed')),
      await run(merged, zooFeeds('minilm-embed')),
    ];
    expect(maxDifference(after.logits!.data, before.logits!.data)).toBeLessThan(1e-5);
    expect((await inspect(merged)).sets).toEqual([]);
  });

  it('is known in the merged model, beside heads that follow', async () => {
    const first = folder.fresh();
    await merge(await withHead(encoder(), 'linear:3'), { output: first });
    expect(outputsOf(first)).toEqual(['logits']);
    const options = { ...OPTIONS, head: 'linear:2', modelOutput: 'hidden' };
    const second = folder.fresh();
    await patch(first, { ...options, output: second });
    expect(outputsOf(second)).toEqual(['logits', 'logits_1']);
    const both = folder.fresh();
    await merge(second, { output: both });
    expect(outputsOf(both)).toEqual(['logits', 'logits_1']);
  });

  it('travels in an adapter file', async () => {
    const base = encoder({ mask: 'int64' });
    const path = await withHead(base, 'linear:3');
    const adapter = folder.fresh('adapter.safetensors');
    const { parameters } = await extract(path, { output: adapter });
    expect(parameters).toBe(14 + 15);
    const applied = folder.fresh();
    await apply(base, adapter, { output: applied });
    expect(sameFiles(applied, path)).toBe(true);
    const [fromFile, fromModel] = [folder.fresh(), folder.fresh()];
    await merge(base, { adapter, output: fromFile });
    await merge(path, { output: fromModel });
    expect(sameFiles(fromFile, fromModel)).toBe(true);
  });

  it('of another size than the hidden states is refused', async () => {
    const adapter = folder.fresh('adapter.safetensors');
    await extract(await withHead(encoder(), 'linear:3'), { output: adapter });
    // The same layer in a model whose output is something else of another size.
    const other = folder.write(
      model({
        nodes: [
          node('MatMul', ['x', 'w'], 'y', {}, 'layer'),
          node('Concat', ['y', 'y'], 'hidden', { axis: 2 }),
        ],
        initializers: [tensor('w', [3, 4])],
        inputs: [value('x', ['batch', 'time', 3])],
        outputs: [value('hidden', ['batch', 'time', 8])],
      }),
    );
    const error = await failure(
      () => apply(other, adapter, { output: folder.fresh() }),
      'adapter-mismatch',
    );
    expect(error.message).toMatch(/head.*4.*8/);
  });

  it.each(['weight', 'bias'])('with a %s of another type or shape is refused', async (part) => {
    const adapter = folder.fresh('adapter.safetensors');
    await extract(await withHead(encoder(), 'linear:3'), { output: adapter });
    for (const dtype of ['float16', 'float32'] as const) {
      const file = openSafetensors(adapter);
      const tensors = [...file.tensors].map(([name, { shape }]) => {
        const numbers = file.readFloat64(name);
        if (name !== `head.${part}`) {
          return { name, dtype: 'float32' as const, shape, data: fromFloat64('float32', numbers) };
        }
        const cut = dtype === 'float32' ? numbers.subarray(1) : numbers;
        const dims = dtype === 'float32' ? [cut.length] : shape;
        return { name, dtype, shape: dims, data: fromFloat64(dtype, Float64Array.from(cut)) };
      });
      const changed = folder.write(encodeSafetensors(tensors, file.metadata), 'a.safetensors');
      file.close();
      const error = await failure(
        () => apply(encoder(), changed, { output: folder.fresh() }),
        'invalid-adapter',
      );
      expect(error.message).toContain(`head.${part}`);
    }
  });
});

describe('a head is refused', () => {
  it.each([
    'linear',
    'linear:0',
    'linear:1.5',
    'linear:two',
    'linear:2:max',
    'mlp:2',
    'linear:2:mean:3',
    'linear:',
  ])('that is written %s', async (text) => {
    const error = await failure(() => parseHead(text), 'invalid-argument');
    expect(error.message).toContain(JSON.stringify(text));
    expect(error.hint).toContain('linear:3');
  });

  it.each<[string, string, Encoder, RegExp]>([
    [
      'an open size',
      'linear:2:mean',
      { shape: ['batch', 'time', 'features'] },
      /\[batch, time, features\].*fixed/,
    ],
    [
      'one row a sample, which has nothing to pool',
      'linear:2:mean',
      { shape: ['batch', 4] },
      /\[batch, 4\].*3 axes/,
    ],
    [
      'a mask that is no [B, T]',
      'linear:2:mean',
      { mask: 'int64', shape: ['batch', 'time', 'time', 4] },
      /axes/,
    ],
  ])('on %s', async (_, head, parts, message) => {
    const error = await failure(() => withHead(encoder(parts), head), 'invalid-argument');
    expect(error.message).toMatch(message);
    expect(error.hint).toContain('`modelOutput`');
  });

  it('on hidden states whose mask has other axes than they', async () => {
    const base = folder.write(
      model({
        nodes: [
          node('MatMul', ['x', 'w'], 'h', {}, 'layer'),
          node('Where', ['attention_mask', 'h', 'h'], 'hidden'),
        ],
        initializers: [tensor('w', [3, 4])],
        inputs: [
          value('x', ['batch', 'time', 3]),
          value('attention_mask', ['batch', 1, 1], 'bool'),
        ],
        outputs: [value('hidden', ['batch', 'time', 4])],
      }),
    );
    const error = await failure(() => withHead(base, 'linear:2'), 'invalid-argument');
    expect(error.message).toContain('attention_mask');
  });

  it('on an output that is not there', async () => {
    const error = await failure(() => withHead(encoder(), 'linear:2', 'h'), 'invalid-argument');
    expect(error.message).toContain('hidden');
  });
});
