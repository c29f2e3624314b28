/** Folders that cannot be written to, also for root. */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync } from 'node:fs';
import type { TestContext } from 'vitest';

/**
 * Calls `use` while a small file system is mounted at `folder`; skips the test where this process
 * may not mount.
 */
export async function withTmpfs(
  context: TestContext,
  folder: string,
  options: string,
  use: () => Promise<void>,
): Promise<void> {
  mkdirSync(folder, { recursive: true });
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', folder], { stdio: 'pipe' });
  } catch (error) {
    context.skip(`a tmpfs cannot be mounted here: ${(error as Error).message.split('\n').at(-2)}`);
  }
  try {
    await use();
  } finally {
    execFileSync('umount', [folder]);
  }
}

/** Calls `use` while nobody may write to `folder`: by its rights, or for root by a read-only mount. */
export async function withReadOnly(
  context: TestContext,
  folder: string,
  use: () => Promise<void>,
): Promise<void> {
  if (process.getuid?.() === 0) return withTmpfs(context, folder, 'ro,size=64k', use);
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o555);
  try {
    await use();
  } finally {
    chmodSync(folder, 0o755);
  }
}
