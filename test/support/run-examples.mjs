// Runs examples one after the other, each in a folder of its own; see examples.ts.
// argv: the folder that holds NAME.mjs and `files`, and [{ name, reads }], the files that each one needs.
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [, , folder, examples] = process.argv;
const failures = {};
for (const { name, reads } of JSON.parse(examples)) {
  const own = join(folder, 'runs', name);
  for (const file of reads) {
    const how = { recursive: true, verbatimSymlinks: true };
    cpSync(join(folder, 'files', file), join(own, file), how);
  }
  const program = join(own, 'example.mjs');
  cpSync(join(folder, `${name}.mjs`), program);
  process.chdir(own);
  const start = performance.now();
  try {
    await import(pathToFileURL(program).href);
  } catch (error) {
    failures[name] = String(error?.stack ?? error);
  }
  if (process.env.TIMES) console.error(name, Math.round(performance.now() - start));
}
process.stdout.write(`\n${JSON.stringify(failures)}`);
