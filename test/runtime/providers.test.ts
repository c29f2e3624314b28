import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { tryProvider } from '../../src/runtime/probe.js';
import { additionModel, PRODUCT_SIZE, productModel } from '../../src/runtime/probe-models.js';
import { providerNames } from '../../src/runtime/provider-names.js';
import { listProviders, resolveProvider } from '../../src/runtime/providers.js';
import { openSession } from '../../src/runtime/session.js';
import { failure, scaling } from './models.js';

const absent = process.platform === 'win32' ? 'coreml' : 'directml';
const home = process.platform === 'win32' ? 'macOS' : 'Windows';

describe('listProviders', () => {
  it('finds the CPU, and a reason for whatever does not work', async () => {
    const providers = await listProviders();
    expect(providers.map(({ name }) => name)).toEqual(providerNames);
    expect(providers[0]).toEqual({ name: 'cpu', bundled: true, usable: true });
    for (const { usable, reason } of providers) {
      expect(reason === undefined).toBe(usable);
      expect(reason ?? 'fine').toMatch(/^[^\n]+$/);
    }
    expect(providers).toContainEqual({
      name: absent,
      bundled: false,
      usable: false,
      reason: expect.stringContaining(`only on ${home}`),
    });
  });

  it.skipIf(process.platform !== 'linux' || existsSync('/dev/nvidiactl'))(
    'names the library that CUDA misses',
    async () => {
      const cuda = (await listProviders()).find(({ name }) => name === 'cuda')!;
      expect(cuda.usable).toBe(false);
      if (process.arch === 'x64') expect(cuda.reason).toMatch(/lib\w+.*\.so|CUDA/);
    },
  );
});

describe('resolveProvider', () => {
  it('takes what is asked for', async () => {
    expect(await resolveProvider('cpu')).toEqual({
      requested: 'cpu',
      used: 'cpu',
      reason: 'asked for',
    });
  });

  it('never falls back from a named provider', async () => {
    const error = {
      code: 'provider',
      message: expect.stringContaining(absent),
      hint: expect.any(String),
    };
    expect(await failure(() => resolveProvider(absent))).toMatchObject(error);
    expect(await failure(() => openSession(scaling(1), { provider: absent }))).toMatchObject(error);
  });

  it('knows the names', async () => {
    expect(await failure(() => resolveProvider('dml'))).toMatchObject({
      code: 'invalid-argument',
      hint: expect.stringContaining('directml'),
    });
  });

  it('decides by itself, and says by what', async () => {
    const { requested, used, reason } = await resolveProvider('auto');
    expect(requested).toBe('auto');
    expect((await listProviders()).find(({ name }) => name === used)?.usable).toBe(true);
    expect(reason).not.toBe('');
  });
});

describe('in a worker thread', () => {
  it('errors are ours too', async () => {
    const source = (name: string) => new URL(`../../src/${name}.ts`, import.meta.url).href;
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      require('node:module').register(workerData.hooks);
      const told = ({ constructor, code, hint }) => ({ type: constructor.name, code, hint: typeof hint });
      import(workerData.session).then(async ({ openSession }) => {
        const failures = [];
        for (const provider of workerData.providers) {
          const session = await openSession(workerData.model, { provider }).catch((error) => {
            failures.push(told(error));
          });
          await session?.run(new Map()).catch((error) => failures.push(told(error)));
        }
        parentPort.postMessage(failures);
      });`;
    const worker = new Worker(code, {
      eval: true,
      workerData: {
        hooks: new URL('../support/typescript-hooks.mjs', import.meta.url).href,
        session: source('runtime/session'),
        model: scaling(1),
        providers: [absent, 'cpu'],
      },
    });
    const [failures] = await once(worker, 'message');
    await worker.terminate();
    expect(failures).toEqual([
      { type: 'OnnxLoraError', code: 'provider', hint: 'string' },
      { type: 'OnnxLoraError', code: 'runtime', hint: 'string' },
    ]);
  });
});

describe.skipIf(!process.env.VK_DRIVER_FILES?.includes('lvp'))('software Vulkan', () => {
  it('works as WebGPU when asked for, and is not what auto takes', async () => {
    expect(await resolveProvider('webgpu')).toMatchObject({ used: 'webgpu' });
    const { used, reason } = await resolveProvider('auto');
    expect(used).not.toBe('webgpu');
    expect(reason).toMatch(/ on webgpu$/);
  });
});

describe('tryProvider', () => {
  it('measures', async () => {
    const result = await tryProvider('cpu', {
      model: productModel(),
      dims: [1, PRODUCT_SIZE],
      budgetMs: 50,
    });
    expect(result).toMatchObject({ ok: true, y: [0] });
    expect(result.ok && result.ms).toBeGreaterThan(0);
  });

  it('reports what fails over there', async () => {
    const broken = { model: new Uint8Array(10), dims: [1], budgetMs: 0 };
    expect(await tryProvider('cpu', broken)).toMatchObject({
      ok: false,
      reason: expect.any(String),
    });
    const wrongShape = { model: additionModel(), dims: [3], budgetMs: 0 };
    expect(await tryProvider('cpu', wrongShape)).toMatchObject({
      ok: false,
      reason: expect.stringContaining('rank'),
    });
  });
});
