/** A step graph on WebGPU, in Chromium: on the machine's GPU, or on the CPU that stands in for one. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as ort from 'onnxruntime-node';
import type { Page } from 'playwright-core';
import { expect, it } from 'vitest';
import { StepTrainer } from '../../src/browser/index.js';
import { resolveTrainOptions } from '../../src/commands/options/train.js';
import { runTraining } from '../../src/commands/train/run.js';
import { insertInto } from '../support/adapters.js';
import { describeInChromium, launchChromium } from '../support/chromium.js';
import { temporaryFolder } from '../support/files.js';
import { feed } from '../support/run.js';
import { zooSamples } from '../support/samples.js';
import { zooModel, zooTensors } from '../support/zoo.js';

const files = temporaryFolder();
const STEPS = 4;
const LR = 0.01;
const ROWS = 16;

/** What the page asks for, by the first part of the path. */
const folders: Readonly<Record<string, string>> = {
  'onnx-lora': join(import.meta.dirname, '../../dist/src'),
  ort: dirname(fileURLToPath(import.meta.resolve('onnxruntime-web/webgpu'))),
};

/** An empty page of this machine, which may load the library, ONNX Runtime Web and `step.onnx`. */
async function openPage(page: Page, step: Uint8Array): Promise<void> {
  await page.route('http://localhost/**', (route) => {
    const [, folder = '', ...rest] = new URL(route.request().url()).pathname.split('/');
    if (folder === '') return route.fulfill({ contentType: 'text/html', body: '' });
    if (folder === 'step.onnx') return route.fulfill({ body: Buffer.from(step) });
    return route.fulfill({ path: join(folders[folder]!, ...rest) });
  });
  await page.goto('http://localhost/');
}

interface Batch {
  readonly x: readonly number[];
  readonly target: readonly number[];
}

function batches(): Batch[] {
  return zooTensors(['mlp-regression', 'lora', 'train.safetensors'], (file) => {
    const [x, target] = [file.readFloat32('input.x'), file.readFloat32('target')];
    return Array.from({ length: STEPS }, (_, i) => ({
      x: [...x.subarray(i * ROWS * 32, (i + 1) * ROWS * 32)],
      target: [...target.subarray(i * ROWS * 8, (i + 1) * ROWS * 8)],
    }));
  });
}

/** The losses of the steps, on WebGPU. As text: vitest has a word of its own for an import. */
const inPage = `(async () => {
  const ort = await import('/ort/ort.webgpu.min.mjs');
  const { StepTrainer } = await import('/onnx-lora/browser/index.js');
  const step = new Uint8Array(await (await fetch('/step.onnx')).arrayBuffer());
  const trainer = await StepTrainer.open(ort, step, { executionProviders: ['webgpu'] });
  const rows = (values) =>
    new ort.Tensor('float32', Float32Array.from(values), [${ROWS}, values.length / ${ROWS}]);
  const losses = [];
  for (const { x, target } of ${JSON.stringify(batches())}) {
    losses.push((await trainer.step({ x: rows(x), target: rows(target) }, ${LR})).loss);
  }
  return losses;
})()`;

/** The same in onnxruntime-node. */
async function inNode(step: Uint8Array): Promise<number[]> {
  const trainer = await StepTrainer.open(ort, step, { logSeverityLevel: 4 });
  const rows = (values: readonly number[]) => feed([ROWS, values.length / ROWS], values);
  const losses: number[] = [];
  for (const { x, target } of batches()) {
    losses.push((await trainer.step({ x: rows(x), target: rows(target) }, LR)).loss);
  }
  await trainer.release();
  return losses;
}

describeInChromium('a step graph on WebGPU', () => {
  it('trains as in onnxruntime-node', async ({ skip }) => {
    const data = files.write(zooSamples('mlp-regression', 'lora', STEPS), 'data.safetensors');
    const patched = files.write(await insertInto(zooModel('mlp-regression'), { rank: 8 }));
    const emitStepGraph = files.fresh('step.onnx');
    const given = { data, loss: 'mse', batchSize: ROWS, emitStepGraph } as const;
    await runTraining(patched, resolveTrainOptions(given));
    const step = readFileSync(emitStepGraph);

    const browser = await launchChromium();
    const page = await browser.newPage();
    await openPage(page, step);
    const adapter = await page.evaluate('navigator.gpu?.requestAdapter().then(Boolean)');
    if (!adapter) skip('this Chromium has no adapter for WebGPU');
    const found = (await page.evaluate(inPage)) as number[];
    await browser.close();
    const expected = await inNode(step);
    expect(found.length).toBe(STEPS);
    for (const [i, loss] of expected.entries()) expect(found[i]! / loss).toBeCloseTo(1, 3);
  });
});
