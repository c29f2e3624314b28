/**
 * Before the tests: takes the software Vulkan that `scripts/software-vulkan.mjs` set up, if it did.
 * The loader looks for it when a process starts, so that the tests' own processes are too late.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('../../scripts/software-vulkan.mjs', import.meta.url));

export default function setup(): void {
  if (process.env.VK_DRIVER_FILES !== undefined) return;
  const { stdout } = spawnSync(process.execPath, [script, '--cached'], { encoding: 'utf8' });
  for (const [, name, value] of stdout.matchAll(/^(\w+)=(.*)$/gm)) process.env[name!] = value;
}
