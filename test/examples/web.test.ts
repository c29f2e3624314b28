/** The page of examples/web in Chromium, from the command that serves it to the folded model. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run as onnxLora, temporaryFolder } from '../cli/run.js';
import { randomNumbers } from '../support/adapters.js';
import { describeInChromium, launchChromium } from '../support/chromium.js';
import { expectClose, feed, maxDifference, run } from '../support/run.js';

const root = join(import.meta.dirname, '../..');
const base = join(root, 'examples/web/digits.onnx');
const DIGITS = 4;
const TIMEOUT_MS = 120_000;

/** Serves the page as `npm run example:web` does, on a free port. */
async function serve(): Promise<{ server: ChildProcess; url: string }> {
  const env = { ...process.env, PORT: '0' };
  const server = spawn(process.execPath, ['examples/web/main.mjs'], { cwd: root, env });
  let said = '';
  server.stderr!.on('data', (text) => {
    said += text;
  });
  const ended = once(server, 'exit').then(() => Promise.reject(new Error(said)));
  const [line] = await Promise.race([once(server.stdout!, 'data'), ended]);
  return { server, url: /http:\S+/.exec(String(line))![0] };
}

async function newPage(browser: Browser): Promise<Page> {
  const page = await browser.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  return page;
}

async function openPage(browser: Browser, url: string): Promise<Page> {
  const page = await newPage(browser);
  await page.goto(url);
  await page.locator('#start:enabled').waitFor();
  return page;
}

/** Presses the button, and gives what the page says in the end. */
async function train(page: Page, steps: number): Promise<string> {
  await page.selectOption('#steps', String(steps));
  await page.click('#start');
  const over = page.getByText(new RegExp(`^${steps} steps: the loss went`));
  await over.waitFor();
  return (await over.textContent())!;
}

/** A number that the page shows. */
async function shown(page: Page, id: string): Promise<number> {
  return Number.parseFloat((await page.textContent(`#${id}`))!);
}

interface Predictions {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

/** What the page's own sessions make of some pixels, before training and now. */
function predictionsOf(page: Page, pixels: Float64Array): Promise<Predictions> {
  // As text: vitest has a word of its own for the import of a function.
  return page.evaluate(`import('/remote.js').then(async ({ call }) => {
    const pixels = Float32Array.from([${pixels}]);
    const { before, after } = await call('predict', { pixels });
    return { before: [...before], after: [...after] };
  })`);
}

describeInChromium('the page of examples/web', () => {
  let served: Awaited<ReturnType<typeof serve>>;
  let browser: Browser;

  beforeAll(async () => {
    [served, browser] = [await serve(), await launchChromium()];
  });
  afterAll(async () => {
    await browser?.close();
    served?.server.kill();
  });

  it('trains, and hands out an adapter that makes the model what the page has', async () => {
    const page = await openPage(browser, served.url);
    const before = await shown(page, 'mirrored');
    const [, first, last] = /from ([\d.]+) to ([\d.]+)\.$/.exec(await train(page, 100))!;
    expect(Number(last)).toBeLessThan(Number(first));
    // 500 digits in mirror writing: about 43 % before, about 89 % behind 100 steps.
    expect(await shown(page, 'mirrored')).toBeGreaterThan(before + 20);

    const download = page.waitForEvent('download');
    await page.click('#download');
    const folder = temporaryFolder();
    await (await download).saveAs(join(folder, 'mirror.safetensors'));
    const merge = ['merge', base, '--adapter', 'mirror.safetensors', '-o', 'merged.onnx', '--json'];
    const { code, stdout } = await onnxLora(folder, merge);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).verification.passed).toBe(true);

    const pixels = randomNumbers(1, DIGITS * 28 * 28).map(Math.abs);
    const inPage = await predictionsOf(page, pixels);
    const outputs = (data: readonly number[]) => ({
      logits: { dims: [DIGITS, 10], data: Float64Array.from(data) },
    });
    const feeds = { pixels: feed([DIGITS, 28, 28], pixels) };
    expectClose(outputs(inPage.before), await run(base, feeds), 1e-4);
    expectClose(outputs(inPage.after), await run(join(folder, 'merged.onnx'), feeds), 1e-4);
    expect(maxDifference(inPage.after, inPage.before)).toBeGreaterThan(0.1);
    await page.close();
  });

  it('takes digits that somebody draws into training, until they are clicked away', async () => {
    const page = await openPage(browser, served.url);
    const { x, y, width, height } = (await page.locator('#pad').boundingBox())!;
    await page.mouse.move(x + width / 2, y + height / 5);
    await page.mouse.down();
    await page.mouse.move(x + width / 2, y + (4 * height) / 5, { steps: 5 });
    await page.mouse.up();
    // A vertical line is a one, in a mirror too.
    await page.locator('#bars .best', { hasText: '1' }).waitFor();
    await page.locator('#labels button', { hasText: '1' }).click();
    expect(await page.locator('#own li').count()).toBe(1);
    await page.locator('#own button').click();
    expect(await page.locator('#own li').count()).toBe(0);
    await page.close();
  });

  it('says what went wrong where a file is missing', async () => {
    const page = await newPage(browser);
    await page.route('**/step.onnx', (route) => route.fulfill({ status: 404 }));
    await page.goto(served.url);
    const status = page.locator('#status.error');
    await status.waitFor();
    expect(await status.textContent()).toBe('model/step.onnx cannot be loaded: 404');
    await page.close();
  });
});
