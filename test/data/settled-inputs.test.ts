/** Decoders in the forms of several exporters: texts alone train them, and the cache continues them. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../../src/commands/evaluate.js';
import { TextGenerator } from '../../src/commands/generate/generator.js';
import { merge } from '../../src/commands/merge.js';
import { patchFile, trained } from '../support/adapters.js';
import { decoder, forms } from '../support/decoders.js';
import { temporaryFolder } from '../support/files.js';
import { trainTiny } from '../training/tiny.js';
import { tokenizerPath } from './text/tokenizers.js';

const files = temporaryFolder();
const tokenizer = tokenizerPath('unigram');
const rows = ['the model reads its input', 'the input', 'its model reads'];
const lines = rows.map((text) => `${JSON.stringify({ text })}\n`).join('');
const how = { tokenizer, loss: 'causal-lm', provider: 'cpu', threads: 1 } as const;

/** The losses of some steps, and of a model that has adapters already. */
async function losses(bytes: Uint8Array) {
  const [base, path] = [files.write(bytes), files.fresh()];
  await patchFile(base, path, { rank: 2, blocks: 1, factors: (a) => trained(a, 3) });
  const data = files.write(Buffer.from(lines), 'texts.jsonl');
  const { loss } = await evaluate(path, { ...how, data, batchSize: 2 });
  const run = await trainTiny(files, { model: path, data }, { ...how, steps: 4, batchSize: 2 });
  return [loss, run.loss!.first, run.loss!.last];
}

async function answer(bytes: Uint8Array): Promise<readonly number[]> {
  const options = { tokenizer, provider: 'cpu', threads: 1, eos: ['1'] } as const;
  const generator = await TextGenerator.open(files.write(bytes), options);
  try {
    const { ids } = await generator.complete(rows[0]!, { maxNewTokens: 8 });
    expect(generator.usesCache).toBe(true);
    return ids;
  } finally {
    await generator.release();
  }
}

describe.each(Object.entries(forms))('a decoder that is %s', (name, form) => {
  const plain = () => decoder(name === 'lengths' ? { attention: 'gqa' } : {});

  it('learns from texts as the plain one does', async () => {
    const [found, expected] = [await losses(form()), await losses(plain())];
    for (const [i, loss] of found.entries()) expect(loss).toBeCloseTo(expected[i]!, 5);
    expect(found[2]).toBeLessThan(found[1]!);
  });

  it('answers as the plain one does, with its cache', async () => {
    expect(await answer(form())).toEqual(await answer(plain()));
  });
});

it.each(Object.keys(forms))(
  'adapters of a decoder that is %s are folded with a proof',
  async (name) => {
    const [path, output] = [files.fresh(), files.fresh()];
    const options = {
      rank: 2,
      blocks: 1,
      factors: (a: Parameters<typeof trained>[0]) => trained(a, 3),
    };
    await patchFile(files.write(forms[name]!()), path, options);
    const { verification } = await merge(path, { output });
    expect(verification).toMatchObject({ passed: true });
  },
);
