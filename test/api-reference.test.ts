/** The reference of the library, which `npm run docs:api` makes of the declarations in the package. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const typedoc = fileURLToPath(new URL('../node_modules/typedoc/bin/typedoc', import.meta.url));

it('documents every export, with all members, and every link leads somewhere', () => {
  const args = [typedoc, '--emit', 'none', '--logLevel', 'Warn'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root });
  expect(stripVTControlCharacters(`${stdout}${stderr}`)).toBe('');
  expect(status).toBe(0);
});
