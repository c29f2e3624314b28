/** No output takes the place of what the same command reads, `force` or not. */
import { linkSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { commands } from '../cli/commands/index.js';
import { advise } from '../src/commands/advise.js';
import { apply } from '../src/commands/apply.js';
import { combine } from '../src/commands/combine.js';
import { evaluate } from '../src/commands/evaluate.js';
import { extract } from '../src/commands/extract.js';
import { fit } from '../src/commands/fit.js';
import { inputOptions } from '../src/commands/inputs.js';
import { inspect } from '../src/commands/inspect.js';
import { merge } from '../src/commands/merge.js';
import { resolveTrainOptions, type TrainOptions } from '../src/commands/options/train.js';
import { patch } from '../src/commands/patch.js';
import { runTraining } from '../src/commands/train/run.js';
import { unpatch } from '../src/commands/unpatch.js';
import { temporaryFolder as cliFolder, run } from './cli/run.js';
import { patchFile, trained } from './support/adapters.js';
import { failure, temporaryFolder } from './support/files.js';
import { tinyData, tinyModel } from './training/tiny.js';

const files = temporaryFolder();
let folder: string;
const at = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = files.fresh('folder');
  mkdirSync(folder);
  writeFileSync(at('base.onnx'), tinyModel());
  const options = { rank: 2, blocks: 2, targets: ['all'], factors: trained };
  await patchFile(at('base.onnx'), at('model.onnx'), options);
  await extract(at('model.onnx'), { output: at('a.safetensors') });
  await extract(at('model.onnx'), { output: at('peft') });
  await merge(at('model.onnx'), { output: at('tuned.onnx'), verify: false });
  writeFileSync(at('data.safetensors'), tinyData());
  writeFileSync(at('eval.safetensors'), tinyData(6));
  for (const name of ['labels.txt', 'processor.json', 'dictionary.txt', 'config.json']) {
    writeFileSync(at(name), '{}');
  }
  mkdirSync(at('tokenizer'));
  writeFileSync(at('tokenizer/tokenizer.json'), '{}');
  mkdirSync(at('images/cat'), { recursive: true });
  writeFileSync(at('images/cat/1.png'), 'png');
  writeFileSync(at('rows.jsonl'), '{"image":"images/cat/1.png","label":1}\n');
});

const train = (path: string, options: TrainOptions) =>
  runTraining(path, resolveTrainOptions(options));
const loss = 'mse';
const force = true;

/** Commands with an output, by what the output would replace. */
const replacing: Readonly<
  Record<string, readonly [string, (output: string) => Promise<unknown>][]>
> = {
  'base.onnx': [
    ['patch', (output) => patch(at('base.onnx'), { output, force })],
    ['apply', (output) => apply(at('base.onnx'), at('a.safetensors'), { output, force })],
    ['inspect --html', (html) => inspect(at('base.onnx'), { html, force })],
    [
      'fit',
      (output) => fit(at('base.onnx'), at('tuned.onnx'), { format: 'safetensors', output, force }),
    ],
    ['advise --write-config', (writeConfig) => advise(at('base.onnx'), { writeConfig, force })],
  ],
  'model.onnx': [
    ['unpatch', (output) => unpatch(at('model.onnx'), { output, force })],
    ['merge', (output) => merge(at('model.onnx'), { output, force })],
    ['extract', (output) => extract(at('model.onnx'), { format: 'safetensors', output, force })],
  ],
  'tuned.onnx': [
    [
      'fit',
      (output) => fit(at('base.onnx'), at('tuned.onnx'), { format: 'safetensors', output, force }),
    ],
    [
      'advise --tuned',
      (writeConfig) => advise(at('base.onnx'), { tuned: at('tuned.onnx'), writeConfig, force }),
    ],
  ],
  'a.safetensors': [
    [
      'merge --adapter',
      (output) => merge(at('base.onnx'), { adapter: at('a.safetensors'), output, force }),
    ],
    [
      'patch --adapter',
      (output) => patch(at('base.onnx'), { adapter: at('a.safetensors'), output, force }),
    ],
    ['apply', (output) => apply(at('base.onnx'), at('a.safetensors'), { output, force })],
    ['combine', (output) => combine([at('a.safetensors')], { output, force })],
  ],
  'peft/adapter_model.safetensors': [
    ['merge --adapter', (output) => merge(at('base.onnx'), { adapter: at('peft'), output, force })],
    ['apply', (output) => apply(at('base.onnx'), at('peft'), { output, force })],
    ['combine', () => combine([at('peft')], { output: at('peft'), force })],
  ],
  'data.safetensors': [
    [
      'merge --samples',
      (output) => merge(at('model.onnx'), { samples: at('data.safetensors'), output, force }),
    ],
    [
      'patch --samples',
      (output) =>
        patch(at('base.onnx'), {
          ...{ verify: true, samples: at('data.safetensors') },
          ...{ output, force },
        }),
    ],
    [
      'patch --data',
      (output) =>
        patch(at('base.onnx'), {
          init: 'gradient',
          loss,
          data: at('data.safetensors'),
          output,
          force,
        }),
    ],
    [
      'advise --data',
      (writeConfig) =>
        advise(at('base.onnx'), { loss, data: at('data.safetensors'), writeConfig, force }),
    ],
    [
      'eval --html',
      (html) => evaluate(at('base.onnx'), { loss, data: at('data.safetensors'), html, force }),
    ],
  ],
};

describe.each(Object.entries(replacing))('%s is not replaced', (name, cases) => {
  it.each(cases)('by %s', async (_, command) => {
    const before = readFileSync(at(name));
    const { message } = await failure(() => command(at(name)), 'invalid-argument');
    expect(message).toMatch(/is an input; inputs are never modified$/);
    expect(readFileSync(at(name)).equals(before)).toBe(true);
  });
});

describe('train replaces nothing that it reads', () => {
  const arrays = { data: 'data.safetensors', evalData: 'eval.safetensors' };
  /** What names each input. */
  const inputs: Readonly<Record<string, Readonly<Record<string, string>>>> = {
    'model.onnx': {},
    'data.safetensors': {},
    'eval.safetensors': {},
    'labels.txt': { data: 'rows.jsonl', labels: 'labels.txt', loss: 'cross-entropy' },
    'processor.json': { data: 'images', processor: 'processor.json' },
    'dictionary.txt': { data: 'images', dictionary: 'dictionary.txt', loss: 'ctc' },
    'tokenizer/tokenizer.json': { data: 'rows.jsonl', tokenizer: 'tokenizer' },
  };
  const outputs = ['output', 'log', 'plot', 'report', 'saveAdapter'] as const;
  const base = ({ loss: named, ...more }: Readonly<Record<string, string>> = {}) => {
    const given = Object.entries({ ...arrays, ...more }).map(([key, name]) => [key, at(name)]);
    const how = { loss: named ?? loss, force, output: files.fresh('out.onnx') };
    return { data: '', ...Object.fromEntries(given), ...how };
  };

  it.each(Object.entries(inputs))('%s', async (name, named) => {
    const before = readFileSync(at(name));
    for (const output of outputs) {
      // Adapters go by the ending.
      if (output === 'saveAdapter' && !name.endsWith('.safetensors')) continue;
      const options = { ...base(named), [output]: at(name) };
      const { message } = await failure(() => train(at('model.onnx'), options), 'invalid-argument');
      expect(message).toContain('is an input');
    }
    expect(readFileSync(at(name)).equals(before)).toBe(true);
  });

  it.each([
    [
      'emitStepGraph',
      () => ({ output: undefined, evalData: undefined, emitStepGraph: at('data.safetensors') }),
    ],
    [
      'checkpoint',
      () => {
        const data = join(files.fresh('ck'), 'checkpoint.safetensors');
        mkdirSync(dirname(data));
        writeFileSync(data, tinyData());
        return { data, checkpoint: dirname(data) };
      },
    ],
    [
      'an image below the folder of data',
      () => ({ data: at('images'), output: at('images/cat/1.png') }),
    ],
    [
      'an image that rows may name',
      () => ({ data: at('rows.jsonl'), output: at('images/cat/1.png') }),
    ],
  ])('by %s', async (_, more) => {
    const options = { ...base(), ...more() };
    expect(
      (await failure(() => train(at('model.onnx'), options), 'invalid-argument')).message,
    ).toContain('is an input');
  });

  it.each([
    ['output', 'log'],
    ['plot', 'report'],
    ['log', 'checkpoint'],
    ['output', 'tensorboard'],
  ] as const)('and puts no two outputs into one file: %s and %s', async (a, b) => {
    const path = files.fresh('same');
    const options = { ...base(), output: files.fresh('o.onnx'), [a]: path, [b]: path };
    expect(
      (await failure(() => train(at('model.onnx'), options), 'invalid-argument')).message,
    ).toContain('two outputs');
  });

  it('nor through a folder that is linked', async () => {
    const real = files.fresh('real');
    mkdirSync(real);
    symlinkSync(real, `${real}.link`);
    const options = { ...base(), output: join(real, 'x'), log: join(`${real}.link`, 'x') };
    expect(
      (await failure(() => train(at('model.onnx'), options), 'invalid-argument')).message,
    ).toContain('two outputs');
  });
});

it.each([
  ['a symbolic link', symlinkSync],
  ['a hard link', linkSync],
])('%s to an input is the input', async (_, link) => {
  const output = files.fresh('link');
  link(at('data.safetensors'), output);
  const command = () => merge(at('model.onnx'), { samples: at('data.safetensors'), output, force });
  expect((await failure(command, 'invalid-argument')).message).toContain('is an input');
});

it.runIf(process.platform !== 'win32').each(['/dev/null', '/dev/stdout'])(
  '%s is not replaced by a file',
  async (output) => {
    const command = () => merge(at('model.onnx'), { output, force });
    await failure(command, 'not-a-file');
  },
);

it('a folder that is read may hold outputs that nobody reads', async () => {
  const output = at('tokenizer/model.onnx');
  writeFileSync(output, 'old');
  await patch(at('base.onnx'), {
    rank: 2,
    blocks: 2,
    targets: ['all'],
    alsoRead: [at('tokenizer')],
    output,
    force,
  });
  expect(readFileSync(output).length).toBeGreaterThan(3);
});

describe('on the command line', () => {
  it('the file that options came from is not replaced', async () => {
    const place = cliFolder({ 'model.onnx': 'mlp-regression/model.onnx' });
    writeFileSync(join(place, 'config.json'), '{"rank": 2}');
    const args = ['patch', 'model.onnx', '--config', 'config.json', '-o', 'config.json', '--force'];
    const { code, stderr } = await run(place, args);
    expect({ code, stderr }).toMatchObject({ code: 1 });
    expect(stderr).toContain('config.json is an input');
    expect(readFileSync(join(place, 'config.json'), 'utf8')).toBe('{"rank": 2}');
  });

  it('every option that is a path is known to be read or written', () => {
    const written = ['output', 'html', 'writeConfig', 'saveAdapter', 'log', 'plot', 'report'];
    const folders = ['checkpoint', 'tensorboard', 'emitStepGraph'];
    const known = new Set<string>([...inputOptions, ...written, ...folders]);
    const paths = commands.flatMap(({ options }) =>
      Object.entries(options).flatMap(([key, { type }]) => (type === 'path' ? [key] : [])),
    );
    expect(paths.filter((key) => !known.has(key))).toEqual([]);
  });
});
