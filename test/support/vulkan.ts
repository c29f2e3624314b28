/** Tests on WebGPU, which a machine without GPU has through software Vulkan. */
import { describe } from 'vitest';
import { providerInfo } from '../../src/runtime/providers.js';

const { usable, reason } = await providerInfo('webgpu');

if (!usable) {
  console.warn(
    `Tests on WebGPU are skipped: ${reason}. Software Vulkan is set up by: node scripts/software-vulkan.mjs`,
  );
}

/** Like `describe`; skipped, with the reason in its name, where WebGPU does not work. */
export function describeOnWebGpu(name: string, tests: () => void): void {
  describe.skipIf(!usable)(usable ? name : `${name} (skipped: ${reason})`, tests);
}
