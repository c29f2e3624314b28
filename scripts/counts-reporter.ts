import type { Reporter, SerializedError, TestModule } from 'vitest/node';

/**
 * Ends a run with `N passed, N failed` (and `, N skipped`) alone on the last line of stdout, for
 * CI systems that read the counts. A file that cannot be loaded, a hook that throws outside a test
 * and an unhandled error count as one failure each.
 */
export default class CountsReporter implements Reporter {
  onTestRunEnd(
    modules: ReadonlyArray<TestModule>,
    unhandledErrors: ReadonlyArray<SerializedError>,
  ): void {
    let passed = 0;
    let failed = unhandledErrors.length;
    let skipped = 0;
    for (const module of modules) {
      failed += module.errors().length;
      for (const suite of module.children.allSuites()) failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') passed += 1;
        else if (state === 'failed') failed += 1;
        else skipped += 1;
      }
    }
    const line = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`;
    // Reporters are told side by side and the default one prints its summary now: wait for the
    // process to end, when writes to stdout are synchronous.
    process.once('exit', () => process.stdout.write(line));
  }
}
