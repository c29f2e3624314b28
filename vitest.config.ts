import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/fixtures/**'],
    globalSetup: ['test/support/vulkan-setup.ts'],
    // ONNX Runtime is a native addon: separate processes, not threads of one.
    pool: 'forks',
    testTimeout: 180_000,
    hookTimeout: 180_000,
    reporters: ['default', './scripts/counts-reporter.ts'],
  },
});
