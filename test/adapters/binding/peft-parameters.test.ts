/** Parameters that were trained whole, or changed, beside adapters of PEFT. */
import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { foldAdapters, merge } from '../../../src/commands/merge.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { randomNumbers } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import {
  constant,
  type GraphParts,
  model,
  type NodeProto,
  node,
  pattern,
  type TensorProto,
  tensor,
  value,
} from '../../support/models.js';
import { loraTensors, type PeftTensors, peftFolder } from '../../support/peft.js';
import { expectClose, feed, maxDifference, run } from '../../support/run.js';

const folder = temporaryFolder();
const LORA = { peft_type: 'LORA', r: 2, lora_alpha: 4 };
const Q = loraTensors('q', [4, 4]);

/** A layer `q` that takes an adapter, and whatever stands behind it, from `q` to `y`. */
function modelWith(
  nodes: readonly NodeProto[],
  initializers: readonly TensorProto[],
  outputs: GraphParts['outputs'] = ['y'],
): Uint8Array {
  return model({
    nodes: [node('MatMul', ['x', 'wq'], 'q', {}, '/q/MatMul'), ...nodes],
    initializers: [tensor('wq', [4, 4]), ...initializers],
    inputs: [value('x', [2, 4])],
    outputs,
  });
}

const peft = (tensors: PeftTensors, config = {}) =>
  peftFolder(folder.fresh('peft'), { ...LORA, ...config }, { ...Q, ...tensors });

const x = { x: feed([2, 4], [1, -2, 0.5, 3, -1, 2, 1.5, -0.5]) };
const key = (name: string) => `base_model.model.${name}`;

/**
 * Applied and merged, the model must do what the same graph with these constants and the adapter of `q`
 * does; and taken out again, the adapter must leave the model as it was.
 */
async function expectConstants(before: Uint8Array, adapter: string, after: Uint8Array) {
  const [base, target] = [folder.write(before), folder.write(after)];
  const [expected, applied, merged, back] = [1, 2, 3, 4].map(() => folder.fresh()) as [
    string,
    string,
    string,
    string,
  ];
  await apply(target, peft({}), { output: expected });
  await apply(base, adapter, { output: applied });
  await foldAdapters(base, { adapter, output: merged });
  await unpatch(applied, { output: back });
  const outputs = await run(expected, x);
  const old = await run(base, x);
  expect(maxDifference(outputs.y!.data, old.y!.data)).toBeGreaterThan(0.1);
  expectClose(await run(applied, x), outputs, 1e-5);
  expectClose(await run(merged, x), outputs, 1e-5);
  expect(sameFiles(base, back)).toBe(true);
}

// [out, in] = [3, 4], as PyTorch has it, and the same as [in, out].
const WEIGHT = randomNumbers(5, 12);
const TURNED = Float64Array.from(WEIGHT, (_, i) => WEIGHT[(i % 3) * 4 + Math.floor(i / 3)]!);
const BIAS = [0.5, -1, 2];

describe('modules_to_save', () => {
  const adapter = () =>
    peft({
      [key('head.weight')]: { shape: [3, 4], values: WEIGHT },
      [key('head.bias')]: { shape: [3], values: BIAS },
    });
  const head = '/head/MatMul';

  it('replace weight and bias of a Gemm, whose names are those of PyTorch', async () => {
    const gemm = (w?: Float64Array, b?: number[]) =>
      modelWith(
        [node('Gemm', ['q', 'head.weight', 'head.bias'], 'y', { transB: 1 }, '/head/Gemm')],
        [tensor('head.weight', [3, 4], w), tensor('head.bias', [3], b)],
      );
    await expectConstants(gemm(), adapter(), gemm(WEIGHT, BIAS));
  });

  describe('bring a bias that was zero, which the exporter left out,', () => {
    const gemm = (w?: Float64Array, bias: string[] = []) =>
      modelWith(
        [node('Gemm', ['q', 'head.weight', ...bias], 'y', { transB: 1 }, '/head/Gemm')],
        [tensor('head.weight', [3, 4], w), ...bias.map((name) => tensor(name, [3], BIAS))],
      );

    it('to a Gemm', async () => {
      await expectConstants(gemm(), adapter(), gemm(WEIGHT, ['head.bias']));
    });

    it('to a MatMul, in float16 or bfloat16 files too', async () => {
      const matmul = (w?: Float64Array, b?: number[]) =>
        modelWith(
          [
            node('MatMul', ['q', 'onnx::1'], b ? 'h' : 'y', {}, head),
            ...(b ? [node('Add', ['h', 'head.bias'], 'y')] : []),
          ],
          [tensor('onnx::1', [4, 3], w), ...(b ? [tensor('head.bias', [3], b)] : [])],
        );
      for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
        // Exact in all three types.
        const weight = Float64Array.from({ length: 12 }, (_, i) => (i - 5) / 8);
        const turned = weight.map((_, i) => weight[(i % 3) * 4 + Math.floor(i / 3)]!);
        const saved = peft({
          [key('head.weight')]: { shape: [3, 4], values: weight, dtype },
          [key('head.bias')]: { shape: [3], values: BIAS, dtype },
        });
        await expectConstants(matmul(), saved, matmul(turned, BIAS));
      }
    });

    it('and take it along into files, and by a scale', async () => {
      const [base, applied] = [folder.write(gemm()), folder.fresh()];
      const { replaced } = await apply(base, adapter(), { output: applied });
      expect(replaced).toEqual(['head.weight', 'head.bias']);
      for (const output of [folder.fresh('set.safetensors'), folder.fresh('peft-again')]) {
        await extract(applied, {
          output,
          format: output.endsWith('again') ? 'peft' : 'safetensors',
        });
        const again = folder.fresh();
        await apply(base, output, { output: again });
        expectClose(await run(again, x), await run(applied, x), 1e-6);
      }
      const [whole, half] = [folder.fresh(), folder.fresh()];
      const { verification } = await merge(applied, { output: whole });
      expect(verification).toMatchObject({ passed: true, proven: true });
      const scaled = await merge(applied, { output: half, scale: 0.5 });
      expect(scaled.verification).toMatchObject({ passed: true, proven: true });
      const by = async (path: string) => (await run(path, x)).y!.data;
      const [none, some] = [await by(base), await by(half)];
      expect(maxDifference(none, some)).toBeGreaterThan(0.1);
    });

    it('but not where the layer has an adapter as well', async () => {
      const bytes = modelWith([node('Relu', ['q'], 'y')], []);
      const saved = peft({ [key('q.base_layer.bias')]: { shape: [4] } });
      expect(await refusal(bytes, saved)).toContain('an adapter has taken its place');
    });
  });

  it('replace a weight that the exporter transposed and renamed', async () => {
    const folded = (w?: Float64Array, b?: number[]) =>
      modelWith(
        [node('MatMul', ['q', 'onnx::1'], 'h', {}, head), node('Add', ['head.bias', 'h'], 'y')],
        [tensor('onnx::1', [4, 3], w), tensor('head.bias', [3], b)],
      );
    await expectConstants(folded(), adapter(), folded(TURNED, BIAS));
  });

  it('replace a weight behind a Transpose, in half precision', async () => {
    const half = (w?: Float64Array, b?: number[]) =>
      modelWith(
        [
          node('Cast', ['s'], 'c', { to: 1 }),
          node('Transpose', ['c'], 't', { perm: [1, 0] }),
          node('MatMul', ['q', 't'], 'h', {}, head),
          node('Add', ['h', 'head.bias'], 'y'),
        ],
        [tensor('s', [3, 4], w, 'float16'), tensor('head.bias', [3], b)],
      );
    await expectConstants(half(), adapter(), half(WEIGHT, BIAS));
  });

  it('replace the values of Constant nodes', async () => {
    const constants = (w?: Float64Array, b?: number[]) =>
      modelWith(
        [
          constant('cw', tensor('', [4, 3], w)),
          constant('cb', tensor('', [3], b)),
          node('Gemm', ['q', 'cw', 'cb'], 'y', {}, '/head/Gemm'),
        ],
        [],
      );
    await expectConstants(constants(), adapter(), constants(TURNED, BIAS));
  });

  it('replace the parameters of a normalization', async () => {
    const norm = (w?: number[], b?: number[]) =>
      modelWith(
        [node('LayerNormalization', ['q', 'n1', 'n2'], 'y', {}, '/norm/LayerNormalization')],
        [tensor('n1', [4], w), tensor('n2', [4], b)],
      );
    const [w, b] = [
      [1, 2, 3, 4],
      [4, 3, 2, 1],
    ];
    const tensors = {
      [key('norm.weight')]: { shape: [4], values: w! },
      [key('norm.bias')]: { shape: [4], values: b! },
    };
    await expectConstants(norm(), peft(tensors), norm(w, b));
  });

  it('replace a Conv1D of transformers, which is [in, out] already', async () => {
    const conv1d = (w?: Float64Array) =>
      modelWith(
        [node('Gemm', ['q', 'h.weight'], 'y', {}, '/h/Gemm')],
        [tensor('h.weight', [4, 3], w)],
      );
    const tensors = { [key('h.weight')]: { shape: [4, 3], values: TURNED } };
    await expectConstants(conv1d(), peft(tensors, { fan_in_fan_out: true }), conv1d(TURNED));
  });

  it('do nothing where the model has these numbers already', async () => {
    const gemm = modelWith(
      [node('Gemm', ['q', 'head.weight', 'head.bias'], 'y', { transB: 1 }, '/head/Gemm')],
      [tensor('head.weight', [3, 4], WEIGHT), tensor('head.bias', [3], BIAS)],
    );
    const [plain, same] = [folder.fresh(), folder.fresh()];
    await apply(folder.write(gemm), peft({}), { output: plain });
    await apply(folder.write(gemm), adapter(), { output: same });
    expect(sameFiles(plain, same)).toBe(true);
  });
});

describe('biases', () => {
  const biased = (b?: ArrayLike<number>) =>
    model({
      nodes: [
        node('MatMul', ['x', 'wq'], 'h', {}, '/q/MatMul'),
        node('Add', ['q.bias', 'h'], 'y', {}, '/q/Add'),
      ],
      initializers: [tensor('wq', [4, 4]), tensor('q.bias', [4], b)],
      inputs: [value('x', [2, 4])],
      outputs: ['y'],
    });

  it('that were trained replace those of the model', async () => {
    const values = [1, 2, 3, 4];
    const tensors = { [key('q.base_layer.bias')]: { shape: [4], values } };
    await expectConstants(biased([0, 0, 0, 1]), peft(tensors), biased(values));
  });

  it('behind B join them with the adapter’s scale', async () => {
    const tensors = { [key('q.lora_B.bias')]: { shape: [4], values: [1, -1, 2, 0.5] } };
    // s = 2
    await expectConstants(biased([1, 1, 1, 1]), peft(tensors), biased([3, -1, 5, 2]));
  });

  it('behind B are refused where the layer has none', async () => {
    const bytes = modelWith([node('Relu', ['q'], 'y')], []);
    const adapter = peft({ [key('q.lora_B.bias')]: { shape: [4] } });
    expect(await refusal(bytes, adapter)).toContain(
      'q.bias (the model has no constant for its bias',
    );
  });
});

describe('an adapter of an embedding', () => {
  const A = [1, 0, 2, -1, 3, 0, 1, 1, 0, 2, -2, 1];
  const B = [1, 2, 0, -1, 2, 2, 1, 0];
  const table = (values?: ArrayLike<number>) =>
    model({
      nodes: [
        node('Gather', ['emb.weight', 'ids'], 'e', {}, '/emb/Gather'),
        node('Add', ['e', 'x'], 'h'),
        node('MatMul', ['h', 'wq'], 'y', {}, '/q/MatMul'),
      ],
      initializers: [
        tensor('emb.weight', [6, 4], values),
        tensor('wq', [4, 4]),
        tensor('ids', [2], [5, 2], 'int64'),
      ],
      inputs: [value('x', [2, 4])],
      outputs: ['y'],
    });
  const tensors = {
    [key('emb.lora_embedding_A')]: { shape: [2, 6], values: A },
    [key('emb.lora_embedding_B')]: { shape: [4, 2], values: B },
  };
  /** s · (B · A)ᵀ, written out. */
  const change = (base: ArrayLike<number>) =>
    Float64Array.from(base, (w, i) => {
      const [row, column] = [Math.floor(i / 4), i % 4];
      return w + 2 * (A[row]! * B[column * 2]! + A[6 + row]! * B[column * 2 + 1]!);
    });

  it('becomes a change of its table', async () => {
    const base = Array.from({ length: 24 }, (_, i) => i / 8);
    await expectConstants(table(base), peft(tensors), table(change(base)));
  });

  it('changes the table that was saved with it', async () => {
    const saved = Array.from({ length: 24 }, (_, i) => 1 - i / 16);
    const resaved = { [key('emb.base_layer.weight')]: { shape: [6, 4], values: saved } };
    await expectConstants(table(), peft({ ...tensors, ...resaved }), table(change(saved)));
  });

  const tied = model({
    nodes: [
      node('Gather', ['emb.weight', 'ids'], 'e', {}, '/emb/Gather'),
      node('MatMul', ['e', 'wq'], 'h', {}, '/q/MatMul'),
      node('Transpose', ['emb.weight'], 't', { perm: [1, 0] }),
      node('MatMul', ['h', 't'], 'y', {}, '/lm_head/MatMul'),
    ],
    initializers: [
      tensor('emb.weight', [6, 4]),
      tensor('wq', [4, 4]),
      tensor('ids', [2], [5, 2], 'int64'),
    ],
    inputs: [value('x', [2, 4])],
    outputs: ['y'],
  });

  it('is refused where no layer has an adapter beside it', async () => {
    const alone = peftFolder(folder.fresh('peft'), LORA, tensors);
    const run = () => apply(folder.write(table()), alone, { output: folder.fresh() });
    const { message } = await failure(run, 'unsupported');
    expect(message).toContain('has no adapter of a layer');
  });

  it('may come with the output layer of that table, which was not trained: nothing is replaced', async () => {
    const values = pattern(24);
    const untrained = peft({ [key('lm_head.base_layer.weight')]: { shape: [6, 4], values } });
    const { unmatched, replaced } = await apply(folder.write(tied), untrained, {
      output: folder.fresh(),
    });
    expect(unmatched).toEqual([]);
    expect(replaced).toEqual([]);
  });
});

/** What is said when an adapter is not applied. */
async function refusal(bytes: Uint8Array, adapter: string, allowUnmatched = false) {
  const output = folder.fresh();
  const run = () => apply(folder.write(bytes), adapter, { output, allowUnmatched });
  const { message } = await failure(run, 'adapter-mismatch');
  expect(existsSync(output)).toBe(false);
  return message;
}

describe('a parameter is refused', () => {
  const gemm = modelWith(
    [node('Gemm', ['q', 'head.weight'], 'y', { transB: 1 }, '/head/Gemm')],
    [tensor('head.weight', [3, 4])],
  );

  it('that the model has no constant for, unless that is allowed', async () => {
    const adapter = peft({ [key('tail.weight')]: { shape: [3, 4] } });
    expect(await refusal(gemm, adapter)).toContain(
      'tail.weight (the model has no constant for its weight',
    );
    const options = { output: folder.fresh(), allowUnmatched: true };
    const { unmatched } = await apply(folder.write(gemm), adapter, options);
    expect(unmatched).toEqual(['tail.weight']);
  });

  it('of a convolution that the exporter put a batch normalization into', async () => {
    const folded = modelWith(
      [
        node('Reshape', ['q', 'image'], 'i'),
        node('Conv', ['i', 'onnx::Conv_7', 'onnx::Conv_8'], 'c', {}, '/conv/Conv'),
        node('Flatten', ['c'], 'y'),
      ],
      [
        tensor('image', [4], [2, 4, 1, 1], 'int64'),
        tensor('onnx::Conv_7', [3, 4, 1, 1]),
        tensor('onnx::Conv_8', [3]),
      ],
    );
    const weight = peft({ [key('conv.weight')]: { shape: [3, 4, 1, 1] } });
    expect(await refusal(folded, weight)).toContain(
      'folded a batch normalization into onnx::Conv_7',
    );
    const bias = peft({ [key('conv.bias')]: { shape: [3] } });
    expect(await refusal(folded, bias)).toContain('folded a batch normalization into onnx::Conv_8');
    const adapter = peft({
      [key('conv.lora_A.weight')]: { shape: [2, 4, 1, 1] },
      [key('conv.lora_B.weight')]: { shape: [3, 2, 1, 1] },
    });
    expect(await refusal(folded, adapter)).toContain(
      'so that it is not the layer that was trained',
    );
  });

  it('whose place another one has', async () => {
    // A batch normalization that was folded left its path on the convolution.
    const bytes = modelWith(
      [
        node('Reshape', ['q', 'image'], 'i'),
        node('Conv', ['i', 'conv.weight', 'conv.bias'], 'c', {}, '/norm/Conv'),
        node('Flatten', ['c'], 'y'),
      ],
      [
        tensor('image', [4], [2, 4, 1, 1], 'int64'),
        tensor('conv.weight', [3, 4, 1, 1]),
        tensor('conv.bias', [3]),
      ],
    );
    const adapter = peft({ [key('norm.bias')]: { shape: [3] } });
    expect(await refusal(bytes, adapter)).toContain('the constant in its place is conv.bias');
  });

  it('of another shape, whatever is allowed', async () => {
    const adapter = peft({ [key('head.weight')]: { shape: [5, 4] } });
    expect(await refusal(gemm, adapter, true)).toContain(
      'head.weight (it has the shape [5, 4], the layer has [3, 4]',
    );
  });

  it('of a table of another vocabulary', async () => {
    const bytes = modelWith(
      [node('Gather', ['emb.weight', 'ids'], 'e', {}, '/emb/Gather'), node('Add', ['q', 'e'], 'y')],
      [tensor('emb.weight', [6, 4]), tensor('ids', [2], [0, 1], 'int64')],
    );
    const adapter = peft({ [key('emb.weight')]: { shape: [8, 4] } });
    expect(await refusal(bytes, adapter)).toContain('whose vocabulary was resized');
  });

  it('that may be [in, out] or [out, in]', async () => {
    const square = modelWith(
      [node('Gemm', ['q', 'h.weight'], 'y', {}, '/h/Gemm')],
      [tensor('h.weight', [4, 4])],
    );
    const adapter = peft({ [key('h.weight')]: { shape: [4, 4] } }, { fan_in_fan_out: true });
    expect(await refusal(square, adapter)).toContain('may be [in, out] or [out, in]');
  });

  it('that is quantized in the model', async () => {
    const quantized = modelWith(
      [
        node('DequantizeLinear', ['wi', 'scale', 'zero'], 'w'),
        node('MatMul', ['q', 'w'], 'y', {}, '/head/MatMul'),
      ],
      [
        tensor('wi', [4, 3], Array(12).fill(1), 'uint8'),
        tensor('scale', [], [0.1]),
        tensor('zero', [], [0], 'uint8'),
      ],
    );
    const adapter = peft({ [key('head.weight')]: { shape: [3, 4] } });
    expect(await refusal(quantized, adapter)).toContain('wi is quantized (uint8)');
  });

  it('with NaN in it', async () => {
    const values = Array(12).fill(Number.NaN);
    const adapter = peft({ [key('head.weight')]: { shape: [3, 4], values } });
    const output = folder.fresh();
    await failure(() => apply(folder.write(gemm), adapter, { output }), 'invalid-adapter');
    expect(existsSync(output)).toBe(false);
  });
});
