/** Commands on a folder in the place of a model. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply } from '../../src/commands/apply.js';
import { evaluate } from '../../src/commands/evaluate.js';
import { extract } from '../../src/commands/extract.js';
import { TextGenerator } from '../../src/commands/generate/generator.js';
import { inspect } from '../../src/commands/inspect.js';
import { foldAdapters, merge } from '../../src/commands/merge.js';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import { fromFloat64 } from '../../src/onnx/dtype.js';
import { ownerToken } from '../../src/onnx/owner.js';
import { tokenizerPath } from '../data/text/tokenizers.js';
import { randomNumbers } from '../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import { folderWith, genaiConfig } from '../support/model-folders.js';
import { model, node, pattern, tensor, value } from '../support/models.js';
import { loraTensors, peftFolder } from '../support/peft.js';
import { expectSame, feed, run } from '../support/run.js';

const files = temporaryFolder();
const X = { x: feed([2, 6], pattern(12)) };
const TOKENIZER = readFileSync(join(tokenizerPath('unigram'), 'tokenizer.json'));

/** `y = x·w`, with the weight in a data file of this name. */
function externalModel(location: string): Uint8Array {
  const { rawData: _, ...shell } = tensor('w', [6, 8]);
  const entries = Object.entries({ location, offset: '0', length: '192' });
  const externalData = entries.map(([key, text]) => ({ key, value: text }));
  return model({
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, '/layer/MatMul')],
    initializers: [{ ...shell, dataLocation: 1, externalData }],
    inputs: [value('x', ['batch', 6])],
    outputs: [value('y', ['batch', 8])],
  });
}

const numbers = fromFloat64('float32', pattern(48));

function genaiFolder(): string {
  return folderWith(files, {
    'genai_config.json': genaiConfig('decoder.onnx', { encoder: { filename: 'encoder.onnx' } }),
    'decoder.onnx': externalModel('decoder.onnx.data'),
    'decoder.onnx.data': numbers,
    'encoder.onnx': externalModel('enc.bin'),
    'enc.bin': numbers,
    'tokenizer.json': TOKENIZER,
    'chat_template.jinja': '{{ messages }}',
    'model.safetensors': 'other weights',
  });
}

const GENAI = [
  ...['chat_template.jinja', 'decoder.onnx', 'decoder.onnx.data', 'enc.bin', 'encoder.onnx'],
  ...['genai_config.json', 'tokenizer.json'],
];

function hubFolder(config: object = {}): string {
  return folderWith(files, {
    'config.json': config,
    'tokenizer.json': TOKENIZER,
    'onnx/model.onnx': externalModel('model.onnx_data'),
    'onnx/model.onnx_data': numbers,
    'onnx/model_q4.onnx': externalModel('model_q4.onnx_data'),
    'onnx/model_q4.onnx_data': numbers,
  });
}

function adapter(): string {
  return peftFolder(
    files.fresh('peft'),
    { peft_type: 'LORA', r: 2, lora_alpha: 4 },
    loraTensors('layer', [6, 8]),
  );
}

/** The files of a folder and of those in it. */
function filesBelow(folder: string): string[] {
  const all = readdirSync(folder, { recursive: true, withFileTypes: true });
  return all
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(folder.length + 1))
    .sort();
}

describe('from a folder comes a folder', () => {
  it('with the model under its own name, and what it needs beside it', async () => {
    const folder = genaiFolder();
    const notes: string[] = [];
    const given = adapter();
    const { output } = await merge(folder, { adapter: given, onNote: (note) => notes.push(note) });
    expect(output).toBe(`${folder}.merged`);
    expect(filesBelow(output)).toEqual(GENAI);
    for (const name of GENAI.filter((one) => !one.startsWith('decoder'))) {
      expect(sameFiles(join(output, name), join(folder, name))).toBe(true);
    }
    expect(notes).toEqual([
      `${folder} is a folder of ONNX Runtime GenAI: its model is decoder.onnx`,
    ]);
    const alone = files.fresh();
    await foldAdapters(join(folder, 'decoder.onnx'), { adapter: given, output: alone });
    expectSame(await run(join(output, 'decoder.onnx'), X), await run(alone, X));
    expect(readdirSync(dirname(folder)).sort()).toEqual(['llama', 'llama.merged']);
  });

  it('all the way: patch, extract, unpatch, and back bit for bit', async () => {
    const folder = genaiFolder();
    const patched = await patch(folder, { rank: 2, blocks: 2, targets: ['all'], verify: true });
    expect(patched).toMatchObject({ output: `${folder}.lora`, verification: { passed: true } });
    expect((await inspect(patched.output)).summary.adapted).toBe(1);
    const alone = files.fresh('adapter.safetensors');
    await extract(patched.output, { output: alone });
    expect((await apply(folder, alone, { output: files.fresh('again') })).adapters).toHaveLength(1);
    const { output } = await unpatch(patched.output);
    expect(basename(output)).toBe('llama.base');
    for (const name of GENAI) {
      expect(sameFiles(join(output, name), join(folder, name))).toBe(true);
    }
  });

  it('with slots, without other forms of the model, which keep the old weights', async () => {
    const folder = hubFolder();
    const notes: string[] = [];
    const { output } = await patch(folder, {
      slots: 'optional',
      onNote: (note) => notes.push(note),
    });
    expect(output).toBe(`${folder}.slots`);
    const kept = ['config.json', 'onnx/model.onnx', 'onnx/model.onnx_data', 'tokenizer.json'];
    expect(filesBelow(output)).toEqual(kept);
    expect(notes).toEqual([
      `${folder} is a folder of transformers.js: its model is onnx/model.onnx, not onnx/model_q4.onnx`,
      `${folder}: left out, for their weights are the old ones: onnx/model_q4.onnx`,
    ]);
  });

  it('with data files that transformers.js finds', async () => {
    const stated = { 'transformers.js_config': { use_external_data_format: { 'model.onnx': 2 } } };
    const { output } = await merge(hubFolder(stated), { adapter: adapter(), verify: false });
    expect(existsSync(join(output, 'onnx/model.onnx_data'))).toBe(true);
    const config = JSON.parse(readFileSync(join(output, 'config.json'), 'utf8'));
    const { use_external_data_format: counts } = config['transformers.js_config'];
    expect(counts).toEqual({ 'model.onnx': 1 });
  });

  it('of the file that is named, where the output ends in a slash', async () => {
    const file = join(hubFolder(), 'onnx/model_q4.onnx');
    const target = files.fresh('out');
    const { output } = await merge(file, {
      adapter: adapter(),
      output: `${target}/`,
      verify: false,
    });
    expect(output).toBe(target);
    const model = ['onnx/model_q4.onnx', 'onnx/model_q4.onnx_data'];
    expect(filesBelow(target)).toEqual(['config.json', ...model, 'tokenizer.json']);
  });
});

it('an output that ends in .onnx is the model alone', async () => {
  const output = files.fresh('alone.onnx');
  await merge(genaiFolder(), { adapter: adapter(), output, verify: false });
  expect(readdirSync(dirname(output)).sort()).toEqual(['alone.onnx', 'alone.onnx.data']);
});

it('texts find the tokenizer of the folder', async () => {
  const classifier = model({
    opset: 20,
    nodes: [
      node('Gather', ['table', 'input_ids'], 'h'),
      node('ReduceMean', ['h', 'axis'], 'logits', { keepdims: 0 }),
    ],
    initializers: [
      tensor('table', [200, 2], randomNumbers(1, 400)),
      tensor('axis', [1], [1], 'int64'),
    ],
    inputs: [value('input_ids', ['batch', 'length'], 'int64')],
    outputs: [value('logits', ['batch', 2])],
  });
  const folder = folderWith(files, {
    ...{ 'config.json': {}, 'model.onnx': classifier, 'tokenizer.json': TOKENIZER },
  });
  const rows = [0, 1].map((label) => JSON.stringify({ text: 'the model reads', label }));
  const data = files.write(Buffer.from(rows.join('\n')), 'rows.jsonl');
  const result = await evaluate(folder, { data, loss: 'cross-entropy' });
  expect(result).toMatchObject({ samples: 2, model: join(folder, 'model.onnx') });
  const other = folderWith(files, { 'config.json': {}, 'model.onnx': classifier });
  const bare = () => evaluate(other, { data, loss: 'cross-entropy' });
  const { message } = await failure(bare, 'file-not-found');
  expect(message).toBe(`${other} holds no tokenizer.json`);
});

describe('an output folder', () => {
  it('that is there is refused, and replaced with force', async () => {
    const folder = genaiFolder();
    const output = files.fresh('out');
    const how = { adapter: adapter(), output, verify: false };
    await merge(folder, how);
    const first = readFileSync(join(output, 'decoder.onnx.data'));
    const { message } = await failure(() => merge(folder, how), 'output-exists');
    expect(message).toBe(`${output} exists already`);
    await merge(folder, { ...how, scale: 2, force: true });
    expect(filesBelow(output)).toEqual(GENAI);
    expect(first.equals(readFileSync(join(output, 'decoder.onnx.data')))).toBe(false);
    expect(readdirSync(dirname(output))).toEqual(['out']);
  });

  it('is not replaced where it holds something else', async () => {
    const output = folderWith(
      files,
      { 'tokenizer.json': '{}', 'thesis/chapter.tex': 'all' },
      'mine',
    );
    const how = { adapter: adapter(), output, force: true };
    const { message } = await failure(() => merge(genaiFolder(), how), 'output-exists');
    expect(message).toContain('holds thesis/chapter.tex, which is not a part of a model');
    expect(filesBelow(output)).toHaveLength(2);
  });

  it.each([
    { place: 'the folder itself', output: (folder: string) => folder },
    { place: 'a folder in it', output: (folder: string) => join(folder, 'merged') },
    { place: 'the folder around it', output: (folder: string) => dirname(folder) },
  ])('is not $place', async ({ output }) => {
    const folder = genaiFolder();
    const before = filesBelow(dirname(folder));
    const how = { adapter: adapter(), output: output(folder), force: true };
    const { hint } = await failure(() => merge(folder, how), 'invalid-argument');
    expect(hint).toContain('Inputs are never modified');
    expect(filesBelow(dirname(folder))).toEqual(before);
  });

  it('is not there where the work fails, nor anything else', async () => {
    const folder = genaiFolder();
    const target = files.fresh('out');
    const wrong = peftFolder(
      files.fresh('peft'),
      { peft_type: 'LORA', r: 2 },
      loraTensors('other', [6, 8]),
    );
    await failure(() => merge(folder, { adapter: wrong, output: target }), 'adapter-mismatch');
    const controller = new AbortController();
    const how = { adapter: adapter(), output: target, verify: false };
    const onProgress = ({ phase }: { phase: string }) => {
      if (phase === 'writing') controller.abort();
    };
    const aborted = () => merge(folder, { ...how, signal: controller.signal, onProgress });
    await failure(aborted, 'aborted');
    expect(readdirSync(dirname(target))).toEqual([]);
  });

  it('of a run that was killed is taken away by the next one', async () => {
    const folder = genaiFolder();
    const target = files.fresh('out');
    // Of a process that had this number before.
    const dead = ownerToken().replace(/.{8}$/, '12345678');
    const killed = join(dirname(target), `.out.${dead}.0123456789ab.tmp`);
    mkdirSync(killed);
    writeFileSync(join(killed, 'decoder.onnx'), 'half');
    await merge(folder, { adapter: adapter(), output: target, verify: false });
    expect(readdirSync(dirname(target))).toEqual(['out']);
  });
});

it('a file that is missing beside the model is named', async () => {
  const folder = folderWith(files, {
    'genai_config.json': genaiConfig('decoder.onnx', { encoder: { filename: 'encoder.onnx' } }),
    'decoder.onnx': externalModel('decoder.onnx.data'),
    'encoder.onnx': externalModel('enc.bin'),
  });
  const encoder = await failure(() => patch(folder), 'file-not-found');
  expect(encoder.message).toBe(`${join(folder, 'enc.bin')} does not exist`);
  writeFileSync(join(folder, 'enc.bin'), numbers);
  const data = await failure(() => patch(folder), 'external-data');
  expect(data.message).toContain('decoder.onnx.data');
});

describe('one line says what is wrong with', () => {
  const CHAT = [
    { role: 'user', content: 'the model' },
    { role: 'assistant', content: 'reads' },
  ];
  const data = (row: object) => files.write(Buffer.from(JSON.stringify(row)), 'rows.jsonl');
  const evaluated = (folder: string, row: object) =>
    failure(
      () => evaluate(folder, { data: data(row), loss: 'causal-lm' }),
      'messages' in row ? 'invalid-argument' : 'invalid-data',
    );
  const folderOf = (rows: number, past: readonly object[] = []) =>
    folderWith(files, {
      ...{ 'config.json': {}, 'tokenizer.json': TOKENIZER },
      'model.onnx': model({
        nodes: [node('Gather', ['table', 'input_ids'], 'logits')],
        initializers: [tensor('table', [rows, rows])],
        inputs: [value('input_ids', ['batch', 'length'], 'int64'), ...past],
        outputs: [value('logits', ['batch', 'length', rows])],
      }),
    });

  it('conversations without a template', async () => {
    const folder = folderOf(200);
    const { message } = await evaluated(folder, { messages: CHAT });
    expect(message).toBe(`${join(folder, 'tokenizer.json')} has no chat template for messages`);
  });

  it('a tokenizer of another model', async () => {
    const folder = folderOf(20);
    const { message, hint } = await evaluated(folder, { text: 'the model reads its input' });
    expect(message).toMatch(/key input_ids holds 0 to \d+, expected 0 to 19/);
    expect(hint).toContain('Is it the tokenizer of this model?');
  });

  it('a tokenizer with more tokens than the model has', async () => {
    const notes: string[] = [];
    const onNote = (note: string) => notes.push(note);
    const generator = await TextGenerator.open(folderOf(20), { provider: 'cpu', onNote });
    await generator.release();
    expect(notes.at(-1)).toMatch(/has tokens up to \d+, and the vocabulary of .* ends at 19/);
  });

  it('a cache that cannot be empty', async () => {
    const past = ['key', 'value'].map((name) => value(`past_key_values.0.${name}`, [4, 1, 16, 8]));
    const { message } = await failure(
      () => evaluate(folderOf(200, past), { data: data({ text: 'the model' }), loss: 'causal-lm' }),
      'unsupported',
    );
    expect(message).toContain('past_key_values.0.key');
  });
});

it('arrays need no tokenizer of the folder', async () => {
  const arrays = [
    { name: 'x', dtype: 'float32', shape: [2, 6], data: fromFloat64('float32', pattern(12)) },
    { name: 'target', dtype: 'float32', shape: [2, 8], data: fromFloat64('float32', pattern(16)) },
  ] as const;
  const data = files.write(encodeSafetensors(arrays), 'data.safetensors');
  const folder = folderWith(files, {
    ...{ 'config.json': {}, 'model.onnx': externalModel('model.onnx.data') },
    'model.onnx.data': numbers,
  });
  expect(await evaluate(folder, { data, loss: 'mse' })).toMatchObject({ samples: 2 });
});
