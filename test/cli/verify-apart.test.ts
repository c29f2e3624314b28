/** The check of a merge where ONNX Runtime maps data files: a process that ends must not end ours. */
import { cpSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { patchFile, trained } from '../support/adapters.js';
import { run, temporaryFolder, zooFile } from './run.js';

async function folderWithPatched(): Promise<string> {
  const folder = temporaryFolder();
  cpSync(dirname(zooFile('bert-external-data/model.onnx')), folder, { recursive: true });
  const factors = { factors: trained, rank: 4, blocks: 2 };
  await patchFile(join(folder, 'model.onnx'), join(folder, 'p.onnx'), factors);
  return folder;
}

it('is done in a process of its own', async () => {
  const folder = await folderWithPatched();
  const { code, stdout } = await run(folder, ['merge', 'p.onnx', '-o', 'm.onnx', '--json']);
  expect(code).toBe(0);
  expect(JSON.parse(stdout).verification).toMatchObject({ passed: true, proven: true });
});

it.skipIf(process.platform === 'win32')('says that a file was cut off meanwhile', async () => {
  const folder = await folderWithPatched();
  const hook = join(folder, 'hook.cjs');
  writeFileSync(
    hook,
    'if (process.argv[1]?.includes("verify-child")) process.kill(process.pid, "SIGBUS");',
  );
  const { code, stderr } = await run(folder, ['merge', 'p.onnx', '-o', 'm.onnx'], {
    NODE_OPTIONS: `--require ${JSON.stringify(hook)}`,
  });
  expect(code).toBe(1);
  expect(stderr).toContain('a data file changed while m.onnx was checked');
});
