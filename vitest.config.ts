import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/fixtures/**'],
    globalSetup: ['test/support/vulkan-setup.ts'],
    // ONNX Runtime is a native addon: separate processes, not threads of one.
    pool: 'forks',
    // Ends what hangs, and nothing that a busy machine makes slow.
    testTimeout: 600_000,
    hookTimeout: 600_000,
    coverage: { include: ['src/**', 'cli/**'], reporter: ['text-summary', 'html'] },
    reporters: ['default', './scripts/counts-reporter.ts'],
  },
});
