/** merge with a scale of -1 takes a fold out of the weights again. */
import { describe, expect, it } from 'vitest';
import { extract } from '../../src/commands/extract.js';
import { foldAdapters, merge } from '../../src/commands/merge.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { patchFile, trained } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { zooModel } from '../support/zoo.js';

const folder = temporaryFolder();

function weightsOf(path: string, names: readonly string[]): Record<string, Float64Array> {
  const model = openModel(path);
  const files = new ExternalFiles(model);
  const reader = new TensorReader(model, files);
  const read = (name: string) => reader.float64(model.graph.initializers.get(name)!).slice();
  const weights = Object.fromEntries(names.map((name) => [name, read(name)]));
  files.close();
  model.close();
  return weights;
}

const distance = (a: Float64Array, b: Float64Array) => Math.hypot(...a.map((x, i) => x - b[i]!));

/** The model with adapters folded in, and their file. */
async function folded(base: string) {
  const [patched, output] = [folder.fresh(), folder.fresh()];
  const adapter = folder.fresh('adapter.safetensors');
  await patchFile(base, patched, { factors: trained });
  await extract(patched, { output: adapter });
  await foldAdapters(base, { adapter, output });
  return { adapter, output };
}

describe('a fold of the negative', () => {
  it.each(['bert-cls-torchscript', 'bert-fp16', 'bert-external-data'])(
    'gives the weights of %s back within what it says',
    async (name) => {
      const base = zooModel(name);
      const { adapter, output: changed } = await folded(base);
      const output = folder.fresh();
      const { merged, verification } = await merge(changed, { adapter, scale: -1, output });
      expect(verification!.passed).toBe(true);
      const names = merged.map(({ weight }) => weight);
      const [before, between, after] = [base, changed, output].map((path) =>
        weightsOf(path, names),
      );
      for (const { weight, undoneWithin, weightNorm } of merged) {
        const left = distance(after![weight]!, before![weight]!);
        expect(left, weight).toBeLessThanOrEqual(undoneWithin!);
        expect(distance(between![weight]!, before![weight]!)).toBeGreaterThan(100 * undoneWithin!);
        expect(undoneWithin! / weightNorm).toBeLessThan(name === 'bert-fp16' ? 2e-3 : 2e-7);
      }
    },
  );

  it('leaves a quantized model that was dequantized for the fold with floats', async () => {
    const { adapter, output: changed } = await folded(zooModel('llama-q4-causal'));
    const { merged } = await foldAdapters(changed, { adapter, scale: -1, output: folder.fresh() });
    expect(new Set(merged.map(({ kind }) => kind))).toEqual(new Set(['in place']));
  });

  it('says nothing of it where the scale is positive', async () => {
    const { adapter } = await folded(zooModel('mlp-regression'));
    const options = { adapter, scale: 0.5, output: folder.fresh() };
    const { merged } = await foldAdapters(zooModel('mlp-regression'), options);
    expect(merged.every((weight) => !('undoneWithin' in weight))).toBe(true);
  });
});
