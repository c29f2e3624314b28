/** Adapters that the output of the loss does not depend on. */
import { describe, expect, it } from 'vitest';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import type { TrainOptions } from '../../src/commands/options/train.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { safetensors } from '../data/data.js';
import { insertInto, randomNumbers, trained } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';
import { trainTiny } from './tiny.js';

const files = temporaryFolder();

const twoOutputs = model({
  nodes: [
    node('MatMul', ['x', 'w1'], 'h', {}, '/body/MatMul'),
    node('MatMul', ['h', 'w2'], 'y', {}, '/head/MatMul'),
  ],
  initializers: [tensor('w1', [6, 8]), tensor('w2', [8, 4])],
  inputs: [value('x', ['batch', 6])],
  outputs: [value('h', ['batch', 8]), value('y', ['batch', 4])],
});

/** Trains on the inner output; gives the result, and which adapters have other numbers than before. */
async function trainInner(targets: readonly string[], more: Partial<TrainOptions> = {}) {
  const bytes = await insertInto(twoOutputs, { rank: 2, blocks: 1, targets, factors: trained });
  const run = {
    model: files.write(bytes),
    data: files.write(
      safetensors({
        x: ['float32', [8, 6], [...randomNumbers(1, 48)]],
        target: ['float32', [8, 8], [...randomNumbers(2, 64)]],
      }),
      'data.safetensors',
    ),
  };
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  const options = { modelOutput: 'h', weightDecay: 0.1, steps: 3, onNote } as const;
  const result = await trainTiny(files, run, { ...options, ...more });
  const [before, after] = [numbersOf(run.model), numbersOf(result.output)];
  const changed = [...before].filter(
    ([name, numbers]) => after.get(name)!.join() !== numbers.join(),
  );
  return { result, notes, changed: changed.map(([name]) => name) };
}

/** The factors of all adapters in a file. */
function numbersOf(path: string): Map<string, Float32Array> {
  const opened = openModel(path);
  const external = new ExternalFiles(opened);
  const reader = new TensorReader(opened, external);
  const patched = new PatchedModel(opened);
  const names = patched.sets[0]!.adapters.flatMap(({ a, b }) => [a, b]);
  const numbers = names.map((name) => [name, reader.float32(patched.initializer(name))] as const);
  external.close();
  opened.close();
  return new Map(numbers);
}

describe('training on an inner output', () => {
  it.each([{}, { optimizer: 'sgd' }, { accumulate: 2 }, { dropout: 0.1 }] as const)(
    'leaves adapters behind it as they are, and says so: %o',
    async (more) => {
      const { result, notes, changed } = await trainInner(['body', 'head'], more);
      expect(changed).toEqual(['lora/default/body/A', 'lora/default/body/B']);
      expect(result.withoutGradient).toEqual(['/head/MatMul']);
      expect(notes).toContain('no gradient, for they do not reach h: /head/MatMul');
      expect(result.guard?.passed).toBe(true);
    },
  );

  it('tells nothing where every adapter reaches it', async () => {
    const { result, notes } = await trainInner(['body']);
    expect(result).not.toHaveProperty('withoutGradient');
    expect(notes).toEqual([]);
  });

  it('is an error where none does', async () => {
    const error = await failure(() => trainInner(['head']), 'invalid-argument');
    expect(error.message).toMatch(
      /: no adapter of default reaches the output h, expected one that /,
    );
    expect(error.node).toBe('/head/MatMul');
    expect(error.hint).toBe(
      'Choose another one with `modelOutput` (y), or patch layers that lie before h.',
    );
  });
});
