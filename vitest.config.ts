import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/fixtures/**'],
    globalSetup: ['test/support/vulkan-setup.ts'],
    // Tests of the command line run what is built, as Node loads it.
    server: { deps: { external: [/\/dist\//] } },
    // ONNX Runtime is a native addon: separate processes, not threads of one.
    pool: 'forks',
    // One for each core: much of a test is waiting for processes of its own, and its sessions have one thread.
    maxWorkers: '100%',
    // Ends what hangs, and nothing that a busy machine makes slow.
    testTimeout: 600_000,
    hookTimeout: 600_000,
    coverage: { include: ['src/**', 'cli/**'], reporter: ['text-summary', 'html'] },
    reporters: ['default', './scripts/counts-reporter.ts'],
  },
});
