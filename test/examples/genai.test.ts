/** The commands of examples/genai, as its README has them, but for Python's. */
import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { run, temporaryFolder } from '../cli/run.js';

const example = join(import.meta.dirname, '../../examples/genai');
const readme = readFileSync(join(example, 'README.md'), 'utf8');

/** The words of a command line, with what stands in quotes as one. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
}

it('the folder learns to answer, and its README says what', { timeout: 120_000 }, async () => {
  const folder = temporaryFolder();
  cpSync(example, join(folder, 'examples/genai'), { recursive: true });
  mkdirSync(join(folder, 'out/genai'), { recursive: true });
  const commands = [...readme.matchAll(/^\$ onnx-lora (.+)$/gm)].map(([, line]) => wordsOf(line!));
  expect(commands.map(([name]) => name)).toEqual([
    ...['patch', 'train', 'merge', 'generate', 'patch', 'extract'],
  ]);
  for (const words of commands) {
    const { code, stdout, stderr } = await run(folder, words);
    expect(code, stderr).toBe(0);
    if (words[0] === 'generate') expect(readme).toContain(`\n${stdout}`);
  }
});
