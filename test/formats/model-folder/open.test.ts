/** Which file of a folder is the model, and what goes with it. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { companionsOf } from '../../../src/formats/model-folder/companions.js';
import { withDataFiles } from '../../../src/formats/model-folder/external-data.js';
import type { ModelFolder } from '../../../src/formats/model-folder/layout.js';
import { folderOfModel, openModelFolder } from '../../../src/formats/model-folder/open.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { folderWith, genaiConfig } from '../../support/model-folders.js';

const files = temporaryFolder();

/** A folder of transformers.js with these models. */
function published(...models: readonly string[]): string {
  return folderWith(files, {
    'config.json': {},
    ...Object.fromEntries(models.map((name) => [name, ''])),
  });
}

describe('the model of a folder of transformers.js', () => {
  it.each([
    { models: ['onnx/model.onnx'], chosen: 'onnx/model.onnx', forms: [] },
    { models: ['model.onnx'], chosen: 'model.onnx', forms: [] },
    {
      models: ['onnx/model.onnx', 'onnx/model_fp16.onnx', 'onnx/model_q4f16.onnx'],
      ...{ chosen: 'onnx/model.onnx', forms: ['onnx/model_fp16.onnx', 'onnx/model_q4f16.onnx'] },
    },
    { models: ['onnx/model_quantized.onnx'], chosen: 'onnx/model_quantized.onnx', forms: [] },
    {
      models: ['onnx/model.onnx', 'onnx/decoder_model_merged.onnx'],
      ...{ chosen: 'onnx/model.onnx', forms: ['onnx/decoder_model_merged.onnx'] },
    },
    {
      models: ['onnx/decoder_model.onnx', 'onnx/decoder_model_merged.onnx'],
      ...{ chosen: 'onnx/decoder_model_merged.onnx', forms: ['onnx/decoder_model.onnx'] },
    },
    { models: ['onnx/model.onnx', 'model.onnx'], chosen: 'onnx/model.onnx', forms: [] },
  ])('is $chosen of $models', ({ models, chosen, forms }) => {
    expect(openModelFolder(published(...models))).toMatchObject({ model: chosen, forms });
  });

  it.each([
    { models: ['onnx/model_q4.onnx', 'onnx/model_fp16.onnx'], what: '2 models' },
    { models: ['onnx/text_model.onnx', 'onnx/vision_model.onnx'], what: '2 models' },
    { models: ['onnx/decoder_model.onnx', 'onnx/decoder_with_past_model.onnx'], what: '2 models' },
  ])('is not guessed of $models', async ({ models, what }) => {
    const folder = published(...models);
    const { message, hint } = await failure(() => openModelFolder(folder), 'invalid-argument');
    const listed = [...models].sort().join(', ');
    expect(message).toBe(`${folder} holds ${what}, and any may be meant: ${listed}`);
    expect(hint).toContain(join(folder, [...models].sort()[0]!));
  });

  it('has other models beside it, and a file may be named instead', () => {
    const [whole, small] = ['onnx/decoder_model_merged.onnx', 'onnx/decoder_model_merged_q4.onnx'];
    const folder = published(whole, small, 'onnx/encoder_model.onnx');
    expect(openModelFolder(folder)).toMatchObject({ model: whole, forms: [small] });
    const named = folderOfModel(join(folder, small));
    expect(named).toMatchObject({ model: small, forms: [whole] });
    expect(named!.parts).toEqual(['onnx/encoder_model.onnx']);
  });

  it('is not a result of ours that lies beside it', () => {
    const folder = published('model_q4.onnx', 'model_q4.lora.onnx');
    expect(openModelFolder(folder).model).toBe('model_q4.onnx');
  });
});

describe('the model of a folder of ONNX Runtime GenAI', () => {
  it('is the one that genai_config.json names', () => {
    const encoder = { encoder: { filename: 'encoder.onnx' } };
    const vision = { vision: { filename: 'eye.onnx', config_filename: 'processor.json' } };
    const config = genaiConfig('text.onnx', { ...encoder, ...vision });
    const there = ['text.onnx', 'encoder.onnx', 'eye.onnx', 'processor.json', 'model.onnx'];
    const folder = folderWith(files, {
      'genai_config.json': config,
      'config.json': {},
      ...Object.fromEntries(there.map((name) => [name, ''])),
    });
    expect(openModelFolder(folder)).toMatchObject({
      ...{ layout: 'ONNX Runtime GenAI', model: 'text.onnx' },
      ...{ parts: ['encoder.onnx', 'eye.onnx'], named: ['processor.json'] },
    });
  });

  it.each([
    { named: '../other/model.onnx', code: 'invalid-data', problem: 'leads out of its folder' },
    { named: '/etc/passwd', code: 'invalid-data', problem: 'leads out of its folder' },
    { named: 'gone.onnx', code: 'file-not-found', problem: 'gone.onnx does not exist' },
  ] as const)('is nothing outside the folder: $named', async ({ named, code, problem }) => {
    const folder = folderWith(files, { 'genai_config.json': genaiConfig(named) });
    const { message } = await failure(() => openModelFolder(folder), code);
    expect(message).toContain(problem);
  });

  it('is not guessed where a decoder is cut into stages, or none is named', async () => {
    const pipeline = [{ first: { filename: 'a.onnx' } }, { second: { filename: 'b.onnx' } }];
    const staged = { model: { decoder: { pipeline } } };
    const cut = folderWith(files, { 'genai_config.json': staged });
    const { message } = await failure(() => openModelFolder(cut), 'invalid-argument');
    expect(message).toContain('its decoder is a pipeline of a.onnx, b.onnx');
    const open = folderWith(files, { 'genai_config.json': { model: {} }, 'x.onnx': '' });
    const unnamed = await failure(() => openModelFolder(open), 'invalid-argument');
    expect(unnamed.message).toContain('no model.decoder.filename; there is x.onnx');
  });

  it('is not found with a configuration that is damaged', async () => {
    const folder = folderWith(files, { 'genai_config.json': '{"model":' });
    const { message } = await failure(() => openModelFolder(folder), 'invalid-data');
    expect(message).toBe(`${join(folder, 'genai_config.json')} is not a JSON object`);
  });
});

it('a folder without a configuration is not one of a model', async () => {
  const folder = folderWith(files, { 'onnx/model.onnx': '', 'readme.md': '' });
  const { message, hint } = await failure(() => openModelFolder(folder), 'not-a-file');
  expect(message).toContain("is not a model's folder: no genai_config.json, or config.json");
  expect(hint).toBe(`Name the model's file: ${join(folder, 'onnx/model.onnx')}`);
});

describe('what goes with a model', () => {
  it('is what programs read as text, not other weights', () => {
    const kept = ['config.json', 'tokenizer.json', 'chat_template.jinja', 'vocab.txt', 'LICENSE'];
    const left = ['model.safetensors', 'model.safetensors.index.json', 'adapter_config.json'];
    const all = [...kept, ...left, '.gitattributes', 'onnx/model.onnx', 'onnx/model_q4.onnx'];
    const folder = folderWith(files, Object.fromEntries(all.map((name) => [name, '{}'])));
    const names = companionsOf(openModelFolder(folder)).map(({ name }) => name);
    expect(names.sort()).toEqual(kept.sort());
  });

  it('is never behind a link that leads out', async () => {
    const folder = published('model.onnx');
    const outside = files.write(new Uint8Array(2), 'secret.json');
    symlinkSync(outside, join(folder, 'tokenizer.json'));
    const { message, hint } = await failure(() => openModelFolder(folder), 'invalid-data');
    expect(message).toBe(`${join(folder, 'tokenizer.json')} leads out of its folder`);
    expect(hint).toContain('cp -rL');
  });

  it('may be a link inside the folder', () => {
    const folder = published('model.onnx');
    mkdirSync(join(folder, 'blobs'));
    writeFileSync(join(folder, 'blobs/1'), '{}');
    symlinkSync('blobs/1', join(folder, 'tokenizer.json'));
    const found = companionsOf(openModelFolder(folder));
    expect(found.map(({ name }) => name)).toContain('tokenizer.json');
    expect(dirname(found[0]!.path)).toBe(folder);
  });
});

describe('the number of data files in the configuration', () => {
  const folder: ModelFolder = {
    ...{ path: '', layout: 'transformers.js', model: 'onnx/model_q4.onnx' },
    ...{ parts: ['onnx/encoder.onnx'], forms: [], named: [] },
  };
  const counted = (use_external_data_format: unknown) => ({
    'transformers.js_config': { dtype: 'q4', use_external_data_format },
  });

  it.each([
    { stated: { 'model_q4.onnx': 1 }, files: 1 },
    { stated: { model: 1 }, files: 1 },
    { stated: true, files: 1 },
    { stated: undefined, files: 0 },
  ])('stays where $stated says $files', ({ stated, files }) => {
    const config = counted(stated);
    expect(withDataFiles(config, folder, files)).toBe(config);
  });

  it.each([
    { stated: { model: 2 }, becomes: { model: 2, 'model_q4.onnx': 1 } },
    { stated: 3, becomes: { 'encoder.onnx': 3, 'model_q4.onnx': 1 } },
    { stated: undefined, becomes: { 'model_q4.onnx': 1 } },
  ])('becomes that of the model where $stated is another', ({ stated, becomes }) => {
    expect(withDataFiles(counted(stated), folder, 1)).toEqual(counted(becomes));
  });
});
