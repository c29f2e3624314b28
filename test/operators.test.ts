/** The table of operators in the documents is what the code does: `npm run docs:operators` writes it anew. */
import { expect, test } from 'vitest';
import { temporaryFolder } from './support/files.js';
import { operatorsPage } from './support/operator-table.js';

const folder = temporaryFolder();

test('docs/operators.md says what is so', async () => {
  await expect(await operatorsPage(folder)).toMatchFileSnapshot('../docs/operators.md');
});
