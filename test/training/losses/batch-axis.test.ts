/** Outputs whose first axis is not the one of samples. */
import { expect, it } from 'vitest';
import { evaluate } from '../../../src/commands/evaluate.js';
import { GraphBuilder } from '../../../src/graph/builder.js';
import { batchFirst } from '../../../src/training/losses/batch-axis.js';
import { safetensors } from '../../data/data.js';
import { randomNumbers } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, type NodeProto, node, tensor, value } from '../../support/models.js';

const files = temporaryFolder();
const [SAMPLES, FRAMES, CLASSES] = [3, 5, 4];

function modelOf(
  input: (number | string)[],
  tail: readonly NodeProto[],
  shape: (number | string)[],
): string {
  const bytes = model({
    nodes: [node('MatMul', ['x', 'w'], 'z', {}, 'layer'), ...tail],
    initializers: [
      tensor('w', [6, CLASSES]),
      tensor('first', [1], [0], 'int64'),
      tensor('rows', [2], [-1, CLASSES], 'int64'),
    ],
    inputs: [value('x', input)],
    outputs: [value('y', shape)],
  });
  return files.write(bytes);
}

const numbers = (...dims: number[]) => {
  const count = dims.reduce((a, b) => a * b, 1);
  return ['float32', dims, [...randomNumbers(1, count)]] as const;
};
const how = { provider: 'cpu', threads: 1 } as const;

it('ctc turns [frames, batch, classes]', async () => {
  const x = numbers(SAMPLES, FRAMES, 6);
  const labels = ['int64', [SAMPLES, 2], [1, 2, 2, 1, 3, 0]] as const;
  const label_lengths = ['int64', [SAMPLES], [2, 2, 1]] as const;
  const data = files.write(safetensors({ x, labels, label_lengths } as never), 'd.safetensors');
  const input = ['batch', FRAMES, 6];
  const plain = modelOf(input, [node('Identity', ['z'], 'y')], ['batch', FRAMES, CLASSES]);
  const turn = [node('Softmax', ['z'], 'p', { axis: -1 })];
  turn.push(node('Transpose', ['p'], 'y', { perm: [1, 0, 2] }));
  const turned = modelOf(input, turn, [FRAMES, 'batch', CLASSES]);
  const options = { ...how, data, loss: 'ctc', batchSize: 2 } as const;
  const [expected, found] = [await evaluate(plain, options), await evaluate(turned, options)];
  expect(found.loss).toBeCloseTo(expected.loss, 5);
  // Measures read what the loss reads.
  expect(found.cer).toBe(expected.cer);
});

it.each([
  ['samples first', [] as const, true],
  ['frames first', [1, 0, 2] as const, false],
])(
  'ctc of as many frames as samples is %s where no Transpose says otherwise',
  async (_, perm, isClear) => {
    const x = numbers(FRAMES, FRAMES, 6);
    const labels = ['int64', [FRAMES, 1], [1, 2, 1, 3, 2]] as const;
    const label_lengths = ['int64', [FRAMES], [1, 1, 1, 1, 1]] as const;
    const data = files.write(safetensors({ x, labels, label_lengths } as never), 'd.safetensors');
    const last = perm.length
      ? node('Transpose', ['z'], 'y', { perm })
      : node('Identity', ['z'], 'y');
    const path = modelOf([FRAMES, FRAMES, 6], [last], [FRAMES, FRAMES, CLASSES]);
    const run = () => evaluate(path, { ...how, data, loss: 'ctc', batchSize: FRAMES });
    if (isClear) expect((await run()).loss).toBeGreaterThan(0);
    else expect((await failure(run, 'invalid-argument')).message).toContain('cannot be told');
  },
);

it('a batch of 1 that the model takes the axis from is given it back', async () => {
  const labels = ['int64', [SAMPLES], [1, 3, 0]] as const;
  const data = files.write(
    safetensors({ x: numbers(SAMPLES, 6), labels } as never),
    'd.safetensors',
  );
  const squeezed = [node('Squeeze', ['z', 'first'], 'y')];
  const plain = modelOf([1, 6], [node('Identity', ['z'], 'y')], [1, CLASSES]);
  const options = { ...how, data, loss: 'cross-entropy', batchSize: 1 } as const;
  const expected = await evaluate(plain, options);
  const found = await evaluate(modelOf([1, 6], squeezed, [CLASSES]), options);
  expect(found.loss).toBeCloseTo(expected.loss, 6);
  expect(found.accuracy).toBe(expected.accuracy);
});

it.each([
  ['Reshape', (to: string) => node('Reshape', ['z', 'rows'], to)],
  ['Flatten', (to: string) => node('Flatten', ['z'], to, { axis: 2 })],
])('rows of all samples that %s puts on one axis are theirs again', async (_, flatten) => {
  const labels = ['int64', [SAMPLES, FRAMES], [1, 3, 0, 2, -100, 1, 1, 0, 2, 3, 3, 2, 1, 0, 1]];
  const data = files.write(
    safetensors({ x: numbers(SAMPLES, FRAMES, 6), labels } as never),
    'd.safetensors',
  );
  const input = ['batch', 'length', 6];
  const options = { ...how, data, loss: 'cross-entropy', batchSize: 2 } as const;
  const plain = modelOf(input, [node('Identity', ['z'], 'y')], ['batch', 'length', CLASSES]);
  const expected = await evaluate(plain, options);
  const logits = await evaluate(modelOf(input, [flatten('y')], ['rows', CLASSES]), options);
  expect(logits).toMatchObject({ loss: expected.loss, accuracy: expected.accuracy });
  const shares = [flatten('flat'), node('Softmax', ['flat'], 'y', { axis: -1 })];
  const ofShares = await evaluate(modelOf(input, shares, ['rows', CLASSES]), options);
  expect(ofShares.loss).toBeCloseTo(expected.loss, 6);
  expect(ofShares.accuracy).toBe(expected.accuracy);
});

it('one position is not taken for an axis of samples', async () => {
  const labels = ['int64', [SAMPLES], [1, 3, 0]] as const;
  const data = files.write(
    safetensors({ x: numbers(SAMPLES, 1, 6), labels } as never),
    'd.safetensors',
  );
  const path = modelOf(['batch', 1, 6], [node('Reshape', ['z', 'rows'], 'y')], ['n', CLASSES]);
  const options = { ...how, data, loss: 'cross-entropy', batchSize: 2 } as const;
  expect((await evaluate(path, options)).samples).toBe(SAMPLES);
});

it('a batch that is open, and squeezed away, is a batch of 1', async () => {
  const labels = ['int64', [SAMPLES, FRAMES], Array.from({ length: 15 }, (_, i) => i % CLASSES)];
  const data = files.write(
    safetensors({ x: numbers(SAMPLES, FRAMES, 6), labels } as never),
    'd.safetensors',
  );
  const input = ['batch', 'length', 6];
  const plain = modelOf(input, [node('Identity', ['z'], 'y')], ['batch', 'length', CLASSES]);
  const squeezed = modelOf(
    input,
    [node('Squeeze', ['z', 'first'], 'y', {}, 'squeeze')],
    ['length', CLASSES],
  );
  const options = { ...how, data, loss: 'cross-entropy', batchSize: 1 } as const;
  expect((await evaluate(squeezed, options)).loss).toBe((await evaluate(plain, options)).loss);
  const run = () => evaluate(squeezed, { ...options, batchSize: 2 });
  const { message } = await failure(run, 'runtime');
  expect(message).toMatch(/squeeze.* must be 1 instead of 2/);
});

it('an output without samples is told', async () => {
  const data = files.write(
    safetensors({ x: numbers(SAMPLES, 6), target: numbers(SAMPLES, CLASSES) } as never),
    'd.safetensors',
  );
  const mean = [node('ReduceMean', ['z'], 'y', { axes: [0], keepdims: 0 })];
  const path = modelOf(['batch', 6], mean, [CLASSES]);
  const run = () => evaluate(path, { ...how, data, loss: 'mse', batchSize: 2 });
  const { message } = await failure(run, 'invalid-argument');
  expect(message).toMatch(/output y is \[4\], whose first axis does not follow the axis batch/);
});

it('an output of open sizes is taken for samples first', () => {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  const output = { name: 'y', dtype: 'float32', shape: [null, CLASSES] } as const;
  for (const batch of ['batch', 1, 8]) {
    const inputs = [{ name: 'x', dtype: 'float32', shape: [batch, 6] }] as const;
    expect(batchFirst(graph, output, inputs, 'classes')).toBe(output);
  }
});
