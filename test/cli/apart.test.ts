/** Work on models whose data files ONNX Runtime maps: a process that the system ends must not be ours. */
import { cpSync, existsSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import { patchFile, trained } from '../support/adapters.js';
import { model as modelBytes, node, tensor, value } from '../support/models.js';
import { run, runProcess, temporaryFolder, zooFile } from './run.js';

/** The built library: its sources have no file that another process could start. */
const built = new URL('../../dist/src/index.js', import.meta.url).href;
const library = (): Promise<typeof import('../../src/index.js')> => import(built);

async function folderWithPatched(): Promise<string> {
  const folder = temporaryFolder();
  cpSync(dirname(zooFile('bert-external-data/model.onnx')), folder, { recursive: true });
  const factors = { factors: trained, rank: 4, blocks: 2 };
  await patchFile(join(folder, 'model.onnx'), join(folder, 'p.onnx'), factors);
  return folder;
}

it('is done in a process of its own', async () => {
  const folder = await folderWithPatched();
  const { code, stdout } = await run(folder, ['merge', 'p.onnx', '-o', 'm.onnx', '--json']);
  expect(code).toBe(0);
  expect(JSON.parse(stdout).verification).toMatchObject({ passed: true, proven: true });
});

it.skipIf(process.platform === 'win32')('says that a file was cut off meanwhile', async () => {
  const folder = await folderWithPatched();
  const hook = join(folder, 'hook.cjs');
  writeFileSync(
    hook,
    'if (process.argv[1]?.includes("apart-child")) process.kill(process.pid, "SIGBUS");',
  );
  const env = { NODE_OPTIONS: `--require ${JSON.stringify(hook)}` };
  const merged = await runProcess(folder, ['merge', 'p.onnx', '-o', 'm.onnx'], env);
  expect(merged.code).toBe(1);
  expect(merged.stderr).toContain('changed meanwhile, which ended the check of m.onnx (SIGBUS)');
  const patched = await runProcess(
    folder,
    ['patch', 'model.onnx', '-o', 'n.onnx', '--verify'],
    env,
  );
  expect(patched.code).toBe(1);
  expect(patched.stderr).toContain('changed meanwhile, which ended the run of model.onnx (SIGBUS)');
});

const ROWS = 100_000;
const WIDTH = 64;

/** A model that looks up rows of a table of 26 MB beside it, and as many samples as fill seconds. */
function folderWithTable(): { model: string; data: string; table: string } {
  const folder = temporaryFolder();
  const [model, data, table] = ['model.onnx', 'data.safetensors', 'table.bin'].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  const bytes = modelBytes({
    nodes: [
      node('Gather', ['table', 'ids'], 'rows'),
      node('ReduceMean', ['rows'], 'mean', { axes: [1], keepdims: 0 }),
      node('MatMul', ['mean', 'w'], 'y', {}, 'head'),
    ],
    initializers: [
      {
        name: 'table',
        dims: [ROWS, WIDTH],
        dataType: 1,
        dataLocation: 1,
        externalData: [{ key: 'location', value: 'table.bin' }],
      },
      tensor('w', [WIDTH, 4]),
    ],
    inputs: [value('ids', ['n', 8], 'int64')],
    outputs: [value('y', ['n', 4])],
    opset: 13,
  });
  writeFileSync(model, bytes);
  writeFileSync(table, '');
  truncateSync(table, ROWS * WIDTH * 4);
  const samples = 6000;
  const ids = BigInt64Array.from({ length: samples * 8 }, (_, i) => BigInt((i * 7919) % ROWS));
  const target = new Float32Array(samples * 4).fill(1);
  writeFileSync(
    data,
    encodeSafetensors([
      {
        ...{ name: 'ids', dtype: 'int64', shape: [samples, 8] },
        data: new Uint8Array(ids.buffer),
      },
      {
        ...{ name: 'target', dtype: 'float32', shape: [samples, 4] },
        data: new Uint8Array(target.buffer),
      },
    ]),
  );
  return { model, data, table };
}

/** The data file is cut off once the work is well under way. */
const cutting = (table: string, phase: string) => (progress: { phase: string; done: number }) => {
  if (progress.phase === phase && progress.done > 10) truncateSync(table, 0);
};

const settings = { loss: 'mse', batchSize: 2, provider: 'cpu', threads: 1 } as const;
const isLinux = process.platform === 'linux';

it.runIf(isLinux)('an evaluation survives a data file that is cut off', async () => {
  const { evaluate } = await library();
  const { model, data, table } = folderWithTable();
  const onProgress = cutting(table, 'evaluating');
  await expect(evaluate(model, { ...settings, data, onProgress })).rejects.toMatchObject({
    code: 'io',
    message: `${table} changed meanwhile, which ended the evaluation of ${model} (SIGBUS)`,
  });
});

it.runIf(isLinux)('a training run does, too, and names what it kept', async () => {
  const { patch, train } = await library();
  const { model, data, table } = folderWithTable();
  const [patched, checkpoint, output] = ['p.onnx', 'kept', 't.onnx'].map((name) =>
    join(dirname(model), name),
  ) as [string, string, string];
  await patch(model, { rank: 2, blocks: 2, output: patched });
  const options = { ...settings, data, checkpoint, checkpointEvery: 5, output, steps: 9000 };
  const onProgress = cutting(table, 'training');
  await expect(train(patched, { ...options, onProgress })).rejects.toMatchObject({
    code: 'io',
    message: `${table} changed meanwhile, which ended the training of ${patched} (SIGBUS)`,
    hint: expect.stringContaining(`\`checkpoint: "${checkpoint}", resume: true\``),
  });
  truncateSync(table, ROWS * WIDTH * 4);
  const signal = AbortSignal.timeout(2000);
  const resumed = train(patched, { ...options, resume: true, signal });
  await expect(resumed).rejects.toMatchObject({ code: 'aborted' });
  expect(existsSync(output)).toBe(false);
});
