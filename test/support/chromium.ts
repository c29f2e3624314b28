/** Tests in a browser: the Chromium of the machine, which a package manager has put there. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type Browser, chromium } from 'playwright-core';
import { describe } from 'vitest';

const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];

/** CHROMIUM, or what stands in the PATH under one of its usual names. */
const path = process.env.CHROMIUM ?? find();

if (path === undefined) {
  console.warn(
    'Tests in Chromium are skipped: there is none in the PATH. On Debian: apt-get install chromium; elsewhere set CHROMIUM to its path.',
  );
}

/** Like `describe`; skipped, with the reason in its name, where there is no Chromium. */
export function describeInChromium(name: string, tests: () => void): void {
  const isMissing = path === undefined;
  describe.skipIf(isMissing)(isMissing ? `${name} (skipped: no Chromium)` : name, tests);
}

/** Starts it without a window. WebGPU is there too, on the CPU where there is no GPU. */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: path!,
    args: [
      // Containers run as root, where the sandbox does not start; only our own page is opened.
      '--no-sandbox',
      '--enable-unsafe-webgpu',
      '--use-webgpu-adapter=swiftshader',
      '--enable-features=Vulkan',
    ],
  });
}

function find(): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter);
  const candidates = names.flatMap((name) => folders.map((folder) => join(folder, name)));
  return candidates.find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
