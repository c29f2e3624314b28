/**
 * The command line of a clone: `npm run --silent cli -- patch model.onnx`. Builds it where that was not done yet, and
 * runs in the folder that npm was called from.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const main = new URL('../dist/cli/main.js', import.meta.url);

if (!existsSync(main)) {
  const how = { cwd: root, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' };
  const { status } = spawnSync('npm', ['run', '--silent', 'build'], how);
  if (status !== 0) process.exit(status ?? 1);
}
if (process.env.INIT_CWD) process.chdir(process.env.INIT_CWD);
await import(main.href);
