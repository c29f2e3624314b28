import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import onnxProto from 'onnx-proto';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { insertInto } from '../support/adapters.js';
import { unbalanced } from '../support/markup.js';
import { expectClose, expectSame, feed, run as outputsOf } from '../support/run.js';
import { zooSamples } from '../support/samples.js';
import { zooFeeds } from '../support/zoo.js';
import { type Finished, finished, run, start, temporaryFolder, zooFile } from './run.js';

const losses = { 'mlp-regression': 'mse', 'bert-cls-torchscript': 'cross-entropy' } as const;
type Case = keyof typeof losses;

/** What a case makes, made once. */
function once<T>(make: (name: Case) => T): (name: Case) => T {
  const made = new Map<Case, T>();
  return (name) => {
    if (!made.has(name)) made.set(name, make(name));
    return made.get(name)!;
  };
}

const patchedOf = once((name) => insertInto(zooFile(`${name}/model.onnx`), { rank: 8 }));
const samplesOf = once((name) => zooSamples(name, 'lora', 5));

/** A folder with a base model, the same with fresh adapters, and its recorded training data. */
async function folderOf(name: Case): Promise<string> {
  const folder = temporaryFolder({ 'model.onnx': `${name}/model.onnx` });
  writeFileSync(join(folder, 'model.lora.onnx'), await patchedOf(name));
  writeFileSync(join(folder, 'data.safetensors'), samplesOf(name));
  return folder;
}

/** `train` with what it cannot do without. */
function train(name: Case, ...more: readonly string[]): string[] {
  const data = ['--data', 'data.safetensors', '--loss', losses[name]];
  return ['train', 'model.lora.onnx', ...data, '--provider', 'cpu', '--threads', '1', ...more];
}

function linesOf(path: string) {
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line));
}

/** The keys of the document, those of its parts behind a dot. */
function keysOf(document: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(document).flatMap(([key, value]) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.keys(value).map((part) => `${key}.${part}`)
      : [key],
  );
}

describe('train', () => {
  it('says what it did, and writes beside the model by default', async () => {
    const folder = await folderOf('mlp-regression');
    const { code, stdout, stderr } = await run(folder, train('mlp-regression'));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    // 80 samples are ten batches, three times.
    expect(stdout).toMatch(/^30 steps in \d+s, [\d.]+ MB of memory at most\n/);
    expect(stdout).toMatch(/\nloss 0\.\d+ -> 0\.\d+, best 0\.\d+\n/);
    expect(stdout).toMatch(/\nprovider cpu: \d+ on cpu of the step's nodes\n/);
    expect(stdout).toMatch(/\nwrote model\.trained\.onnx\n$/);
    expect(readdirSync(folder)).toContain('model.trained.onnx');
  });

  it('prints one JSON document with --json, notes and all else on stderr', async () => {
    const folder = await folderOf('mlp-regression');
    const more = [
      '--steps',
      '3',
      '--json',
      '--provider',
      'auto',
      '--save-adapter',
      'a.safetensors',
    ];
    const { code, stdout, stderr } = await run(folder, train('mlp-regression', ...more));
    expect(code).toBe(0);
    expect(stderr).toMatch(/^provider auto: \w+ \(.*\)\n$/);
    const result = JSON.parse(stdout);
    expect(keysOf(result)).toEqual([
      ...['output', 'adapter', 'steps', 'loss.first', 'loss.last', 'loss.best'],
      ...['guard.maxRelDiff', 'guard.tolerance', 'guard.passed', 'guard.seconds'],
      ...['provider.requested', 'provider.used', 'provider.nodes', 'provider.fallbacks'],
      ...['seconds', 'peakMemoryBytes'],
    ]);
    expect(result).toMatchObject({
      output: 'model.trained.onnx',
      adapter: 'a.safetensors',
      steps: 3,
      provider: { requested: 'auto', nodes: { [result.provider.used]: expect.any(Number) } },
    });
    expect(result.peakMemoryBytes).toBeGreaterThan(1e7);
  });

  it('logs each step and evaluation, and draws them', async () => {
    const folder = await folderOf('mlp-regression');
    const more = ['--steps', '4', '--eval-data', 'data.safetensors', '--eval-every', '2', '--json'];
    const files = ['--log', 'run.jsonl', '--plot', 'run.svg', '--report', 'run.html'];
    files.push('--tensorboard', 'curves');
    const { code, stdout } = await run(folder, train('mlp-regression', ...more, ...files));
    expect(code).toBe(0);
    const lines = linesOf(join(folder, 'run.jsonl'));
    expect(lines.map(({ step }) => step)).toEqual([1, 2, 2, 3, 4, 4]);
    expect(keysOf(lines[0])).toEqual([
      ...['step', 'epoch', 'loss', 'gradNorm', 'lr', 'ms', 'samplesPerSecond'],
    ]);
    expect(keysOf(lines[2])).toEqual(['step', 'eval.loss', 'eval.mse', 'eval.r2']);
    // The linear schedule is the default, an epoch has ten batches.
    expect(lines.map(({ lr }) => lr).filter(Boolean)).toEqual([5e-4, 3.75e-4, 2.5e-4, 1.25e-4]);
    expect(lines[0].epoch).toBe(0.1);
    const { loss, eval: evaluation } = JSON.parse(stdout);
    expect([loss.first, loss.last]).toEqual([lines[0].loss, lines[4].loss]);
    expect(evaluation).toEqual(lines[5].eval);

    const svg = readFileSync(join(folder, 'run.svg'), 'utf8');
    expect(svg).toMatch(/^<svg /);
    expect(unbalanced(svg)).toEqual([]);
    expect(svg.match(/<path class="\w+" d="M[^"]*"/g)?.length).toBeGreaterThan(1);
    expect(svg).not.toContain('NaN');

    const page = readFileSync(join(folder, 'run.html'), 'utf8');
    expect(page).toContain('r2<b>');
    expect(page).toContain('Where the adapters learned');
    const [events] = readdirSync(join(folder, 'curves'));
    const bytes = readFileSync(join(folder, 'curves', events!), 'latin1');
    expect(bytes.match(/train\/loss/g)).toHaveLength(4);
    expect(bytes.match(/eval\/r2/g)).toHaveLength(2);
  });

  it('saves adapters that make the base model the trained one, applied or merged', async () => {
    const folder = await folderOf('bert-cls-torchscript');
    const more = ['--steps', '3', '--lr', '0.01', '--save-adapter', 'a.safetensors'];
    const { stdout } = await run(folder, train('bert-cls-torchscript', ...more));
    expect(stdout).toMatch(/\nwrote a\.safetensors: the adapters alone\n$/);
    await run(folder, ['apply', 'model.onnx', 'a.safetensors', '-o', 'applied.onnx']);
    const merged = await run(folder, ['merge', 'model.trained.onnx']);
    expect(merged.code).toBe(0);
    const outputs = (name: string) =>
      outputsOf(join(folder, name), zooFeeds('bert-cls-torchscript'));
    const [fresh, trained] = [
      await outputs('model.lora.onnx'),
      await outputs('model.trained.onnx'),
    ];
    expectSame(await outputs('applied.onnx'), trained);
    expectClose(await outputs('model.merged.onnx'), trained, 1e-5);
    expect(() => expectClose(trained, fresh, 1e-2)).toThrow();
  });

  it('is silent with --quiet', async () => {
    const more = ['--steps', '1', '--betas', '0.8', '0.9', '--provider', 'auto', '--quiet'];
    const { code, stderr } = await run(
      await folderOf('mlp-regression'),
      train('mlp-regression', ...more),
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });
});

describe('the step graph of --emit-step-graph', () => {
  it.each(['1', '2'])('trains by its manifest alone, %s batches an update', async (accumulate) => {
    const folder = await folderOf('mlp-regression');
    const course = ['--steps', '4', '--lr', '0.01', '--schedule', 'constant', '--no-shuffle'];
    const how = ['--batch-size', '16', '--accumulate', accumulate];
    const emitted = await run(folder, [
      ...['train', 'model.lora.onnx', '--data', 'data.safetensors', '--loss', 'mse'],
      ...[...how, '--emit-step-graph', 'step.onnx'],
    ]);
    expect(emitted.stdout).toBe('wrote step.onnx: the training step, with its manifest\n');
    expect(existsSync(join(folder, 'model.trained.onnx'))).toBe(false);
    await run(folder, train('mlp-regression', ...course, ...how, '--log', 'run.jsonl'));
    const expected = linesOf(join(folder, 'run.jsonl'));

    const batches = Number(accumulate);
    const results = await followManifest(join(folder, 'step.onnx'), 4 * batches, batches);
    for (const [i, { loss, gradNorm }] of expected.entries()) {
      const own = results.slice(i * batches, (i + 1) * batches);
      const mean = own.reduce((sum, result) => sum + result.loss, 0) / batches;
      expect(mean / loss).toBeCloseTo(1, 5);
      expect(own.at(-1)!.gradientNorm / gradNorm).toBeCloseTo(1, 4);
    }
  });
});

/** Runs a step graph as somebody would who has nothing but the file and ONNX Runtime. */
async function followManifest(path: string, runs: number, accumulate: number) {
  const { metadataProps, graph } = onnxProto.onnx.ModelProto.decode(readFileSync(path));
  const manifest = JSON.parse(metadataProps.find(({ key }) => key === 'onnx_lora.step')!.value!);
  const { size, vectors } = manifest.state;
  const vector = (data: Float32Array) => new Tensor('float32', data, [size]);
  const initialOf = ({ initial }: { initial: 0 | { initializer: string } }) => {
    if (initial === 0) return vector(new Float32Array(size));
    const { rawData } = graph!.initializer!.find(({ name }) => name === initial.initializer)!;
    return vector(new Float32Array(Uint8Array.from(rawData!).buffer));
  };
  const state: Record<string, Tensor> = {};
  for (const one of vectors) state[one.input] = initialOf(one);
  const data = batchesOf(join(dirname(path), 'data.safetensors'), 16);
  expect(manifest.data.map(({ name }: { name: string }) => name)).toEqual(Object.keys(data[0]!));

  const scalar = (value: number) => new Tensor('float32', [value], []);
  const session = await InferenceSession.create(path, { logSeverityLevel: 4 });
  const results: { loss: number; gradientNorm: number }[] = [];
  let before = 0;
  for (let i = 0; i < runs; i++) {
    const t = Math.floor(i / accumulate) + 1;
    const scalars: Record<string, Tensor> = {
      lr: scalar(0.01),
      correction1: scalar(1 - 0.9 ** t),
      correction2: scalar(1 - 0.999 ** t),
      accumulated_weight: scalar(before),
      apply: new Tensor('bool', [(i + 1) % accumulate === 0], []),
    };
    const named = Object.keys(manifest.scalars).map((name) => [name, scalars[name]!] as const);
    const feeds = { ...data[i % data.length]!, ...state, ...Object.fromEntries(named) };
    expect(Object.keys(feeds).sort()).toEqual([...session.inputNames].sort());
    const outputs = await session.run(feeds);
    for (const { input, output } of vectors) state[input] = outputs[output]!;
    const number = (name: string) => Number(outputs[name]!.data[0]);
    const { loss, gradientNorm, weight } = manifest.outputs;
    before = (i + 1) % accumulate === 0 ? 0 : before + number(weight);
    results.push({ loss: number(loss), gradientNorm: number(gradientNorm) });
  }
  await session.release();
  return results;
}

/** The samples of a file of float32, in their order. */
function batchesOf(path: string, size: number): Record<string, Tensor>[] {
  const file = openSafetensors(path);
  try {
    const arrays = [...file.tensors].map(([name, { shape }]) => {
      const values = file.readFloat32(name).slice();
      return { name, values, dims: [size, ...shape.slice(1)], all: shape[0]! };
    });
    return Array.from({ length: arrays[0]!.all / size }, (_, i) =>
      Object.fromEntries(
        arrays.map(({ name, values, dims, all }) => {
          const length = (values.length / all) * size;
          return [name, feed(dims, values.subarray(i * length, (i + 1) * length))];
        }),
      ),
    );
  } finally {
    file.close();
  }
}

/** Waits until the log of a run has some steps. */
async function stepsIn(path: string, count: number): Promise<void> {
  while (!existsSync(path) || linesOf(path).length < count) await sleep(5);
}

// Windows has no signals to send.
describe.skipIf(process.platform === 'win32')('a run that is stopped', () => {
  const course = ['--steps', '60', '--lr', '0.01', '--save-adapter', 'a.safetensors'];

  /** The adapters of a run that is not stopped. */
  const unbroken = once(async (name) => {
    const folder = await folderOf(name);
    await run(folder, train(name, ...course));
    return readFileSync(join(folder, 'a.safetensors'));
  });

  /** Where the machine was busy elsewhere, and the run over before the signal came: once more. */
  async function interrupted(
    signal: NodeJS.Signals,
    ...more: string[]
  ): Promise<Finished & { folder: string }> {
    const folder = await folderOf('bert-cls-torchscript');
    const args = train('bert-cls-torchscript', ...course, '--log', 'run.jsonl', ...more);
    const child = start(folder, args);
    const end = finished(child);
    await stepsIn(join(folder, 'run.jsonl'), 7);
    child.kill(signal);
    const ended = await end;
    return ended.code === 0 ? interrupted(signal, ...more) : { folder, ...ended };
  }

  /** Goes on, and gives the adapters in the end. */
  async function resumed(folder: string, checkpoint: string): Promise<Buffer> {
    const more = ['--log', 'run.jsonl', '--checkpoint', checkpoint, '--resume'];
    const { code, stderr } = await run(folder, train('bert-cls-torchscript', ...course, ...more));
    expect(code).toBe(0);
    expect(stderr).toMatch(/^resuming from step \d+\n/);
    const steps = linesOf(join(folder, 'run.jsonl')).map(({ step }) => step);
    expect(steps).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
    return readFileSync(join(folder, 'a.safetensors'));
  }

  it('by Ctrl-C says where it is kept, and resumes to the same bits', async () => {
    const { folder, code, stdout, stderr } = await interrupted('SIGINT');
    expect({ code, stdout }).toEqual({ code: 130, stdout: '' });
    const [, step, checkpoint] =
      /error: interrupted after step (\d+) of 60\n.*--checkpoint (\S+) --resume/.exec(stderr)!;
    expect(Number(step)).toBeLessThan(60);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(readdirSync(folder)).not.toContain('model.trained.onnx');
    expect(
      (await resumed(folder, checkpoint!)).equals(await unbroken('bert-cls-torchscript')),
    ).toBe(true);
  });

  it('by force resumes to the same bits from its last checkpoint', async () => {
    const more = ['--checkpoint', 'kept', '--checkpoint-every', '3'];
    const { folder, code } = await interrupted('SIGKILL', ...more);
    expect(code).toBe(null);
    expect((await resumed(folder, 'kept')).equals(await unbroken('bert-cls-torchscript'))).toBe(
      true,
    );
  });
});

it('tells on stderr how far it is, where a run takes a while', async () => {
  const folder = await folderOf('mlp-regression');
  const child = start(folder, train('mlp-regression', '--steps', '1000000'));
  const end = finished(child);
  let said = '';
  child.stderr!.on('data', (text) => {
    said += text;
  });
  while (!said.includes('training: ')) await sleep(20);
  child.kill('SIGTERM');
  const { code, stdout } = await end;
  expect({ code, stdout }).toEqual({ code: 143, stdout: '' });
  expect(said).toMatch(/^training: \d+%, loss \S+, [\d,]+ of 1,000,000 steps, \S+\/s, .* left\n/);
});

describe('what cannot be trained', () => {
  it.each<[string, string[], RegExp]>([
    // Nothing is read before: the data are not there.
    [
      'an output that exists',
      ['-o', 'model.onnx', '--data', 'none.npz'],
      /^error: model\.onnx exists already\n/,
    ],
    [
      'a second output that exists',
      ['--plot', 'model.onnx', '--data', 'none.npz'],
      /^error: model\.onnx exists already\n.* name another place with --plot\.\n/,
    ],
    [
      'a log that exists',
      ['--log', 'model.onnx', '--data', 'none.npz'],
      /^error: model\.onnx exists already\n.* name another place with --log\.\n/,
    ],
    [
      'a page in no folder',
      ['--report', 'none/page.html', '--data', 'none.npz'],
      /: its folder does not exist\n.* name another place with --report\.\n/,
    ],
    ['one file for two outputs', ['--plot', 'a', '--log', './a'], /^error: \.\/a is to hold two/],
    ['a file for a folder', ['--checkpoint', 'model.onnx'], /^error: model\.onnx is a file, exp/],
    ['adapters in no format', ['--save-adapter', 'a.bin'], /^error: a\.bin: .* no adapter format/],
    [
      'its own data',
      ['--log', 'data.safetensors', '--force'],
      /^error: data\.safetensors is an inp/,
    ],
    [
      'a picture of a step graph',
      ['--emit-step-graph', 'step.onnx', '--plot', 'a.svg'],
      /^error: --plot has no effect with --emit-step-graph/,
    ],
    [
      'no thread',
      ['--threads', '0'],
      /^error: --threads is 0, expected a whole number from 1 to 1024/,
    ],
    ['the model itself', ['-o', 'model.lora.onnx', '--force'], /^error: .*model\.lora\.onnx/],
    ['an unknown loss', ['--loss', 'mean'], /^error: --loss is "mean", expected cross-entropy, /],
    [
      'epochs and steps',
      ['--epochs', '1', '--steps', '2'],
      /^error: --epochs has no effect with --steps/,
    ],
    ['half of the betas', ['--betas', '0.9'], /^error: --betas needs 2 values\n/],
    ['one beta too many', ['--betas', '0.9', '0.9', '0.9'], /^error: unexpected argument "0.9"/],
    [
      'betas twice',
      ['--betas', '0', '0', '--betas', '0', '0'],
      /^error: --betas\S* is .*, expected /,
    ],
    [
      'an option of another loss',
      ['--blank', '1'],
      /^error: --blank has no effect without --loss ctc/,
    ],
    [
      'a resumed run without its folder',
      ['--resume'],
      /^error: --resume has no effect without --checkpoint/,
    ],
  ])('%s', async (_, more, message) => {
    const folder = await folderOf('mlp-regression');
    const before = readdirSync(folder);
    const { code, stdout, stderr } = await run(folder, train('mlp-regression', ...more));
    expect(stderr).toMatch(message);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(readdirSync(folder)).toEqual(before);
  });

  it('a model without adapters', async () => {
    const args = train('mlp-regression').with(1, 'model.onnx');
    const { code, stderr } = await run(await folderOf('mlp-regression'), args);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: model\.onnx carries no adapters\n {2}.*onnx-lora patch/);
  });
});
