import { join } from 'node:path';
import { expect, test } from 'vitest';
import * as stable from '../../src/index.js';
import * as pieces from '../../src/pieces.js';
import { failure } from '../support/files.js';
import { zooModel } from '../support/zoo.js';

const unknown = { thredas: 1 } as object;
const model = zooModel('mlp-regression');
const pair = [{ path: model }, { path: model }] as const;
const request = { inputs: [], labelKind: 'classes', ...unknown } as const;
const step = { optimizer: 'sgd', clip: 0, accumulate: 1, fused: true, ...unknown } as const;

// Options are looked at first: there is nothing yet that could be built.
const nothing = undefined as never;

test.each<[string, () => unknown]>([
  ['openDataset', () => stable.openDataset('data.safetensors', request)],
  ['verifyModels', () => stable.verifyModels(model, ...pair, unknown)],
  ['compareModels', () => stable.compareModels(...pair, [], unknown)],
  ['profileModel', () => stable.profileModel(model, new Map(), unknown)],
  ['openSession', () => stable.openSession(model, unknown)],
  ['AdapterSession.open', () => stable.AdapterSession.open(model, unknown)],
  ['buildForward', () => pieces.buildForward(nothing, nothing, { loss: 'mse', ...unknown })],
  ['buildStepGraph', () => pieces.buildStepGraph(nothing, step)],
])('%s refuses an option that it does not have', async (name, call) => {
  const { message, hint } = await failure(call, 'invalid-argument');
  expect(message).toBe(`unknown option \`thredas\` of ${name}`);
  expect(hint).toMatch(/^(Did you mean|It has:) `/);
});

test('TextTokenizer.encode refuses an option that it does not have', async () => {
  const tokenizer = stable.TextTokenizer.open(
    join(import.meta.dirname, '../fixtures/tokenizers/byte-fallback'),
  );
  const options = { maxlength: 2 } as object;
  const { message, hint } = await failure(
    async () => tokenizer.encode(['a'], options),
    'invalid-argument',
  );
  expect(message).toBe('unknown option `maxlength` of TextTokenizer.encode');
  expect(hint).toBe('Did you mean `maxLength`?');
});

test('options that are not an object are refused', async () => {
  const { message } = await failure(() => stable.extract(model, 'a' as never), 'invalid-argument');
  expect(message).toBe('the options of extract are "a", expected an object');
});

test('options that commands give one another are not listed', async () => {
  const options = { output: 'a', zzz: 1 } as never;
  const { hint } = await failure(() => stable.extract(model, options), 'invalid-argument');
  expect(hint).toMatch(/^It has: `name`, `output`/);
  expect(hint).not.toMatch(/alsoRead|finalOutput/);
});

test.each<[string, () => unknown]>([
  ['`seed` of inspect', () => stable.inspect(model, { seed: 1 } as object)],
  ['`seed` of extract', () => stable.extract(model, { output: 'a', seed: 1 } as never)],
  ['`seed` of unpatch', () => stable.unpatch(model, { seed: 1 } as object)],
  ['`seed` of apply', () => stable.apply(model, 'a.safetensors', { seed: 1 } as object)],
  ['without `html`', () => stable.inspect(model, { force: true })],
  ['without `html`', () => stable.evaluate(model, { data: 'a', loss: 'mse', force: true })],
  ['without `writeConfig`', () => stable.advise(model, { force: true })],
  ['without `verify`', () => stable.patch(model, { samples: 'a.safetensors' })],
  ['without `verify`', () => stable.patch(model, { slots: true, seed: 1 })],
  ['without `verify`', () => stable.addSlots(model, { seed: 1 })],
  ['with `adapter`', () => stable.patch(model, { adapter: 'a.safetensors', seed: 1 })],
  ['with `samples`', () => stable.merge(model, { samples: 'a.safetensors', seed: 1 })],
  ['without `method` dare', () => stable.combine(['a', 'b'], { output: 'c', seed: 1 })],
  ['at `temperature` 0', () => stable.generate(model, { prompt: 'a', seed: 1 })],
])('an option without effect is refused: %s (%#)', async (part, call) => {
  expect((await failure(call, 'invalid-argument')).message).toContain(part);
});
