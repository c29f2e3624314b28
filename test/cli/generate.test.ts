/** generate on the command line: answers on stdout, remarks on stderr, a chat by lines. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { template, tokenizerPath } from '../data/text/tokenizers.js';
import { decoder } from '../support/decoders.js';
import { finished, run, start, temporaryFolder } from './run.js';

/** A folder with a decoder and its tokenizer, which has a chat template. */
function folderWithDecoder(chat: string | null = template): string {
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'model.onnx'), decoder());
  const from = (name: string) => readFileSync(join(tokenizerPath('unigram'), name), 'utf8');
  writeFileSync(join(folder, 'tokenizer.json'), from('tokenizer.json'));
  const config = { ...JSON.parse(from('tokenizer_config.json')), chat_template: chat };
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
  return folder;
}

const args = ['generate', 'model.onnx', '--max-new-tokens', '6', '--provider', 'cpu'];

function talk(folder: string, lines: readonly string[], more: readonly string[] = []) {
  const child = start(folder, [...args, '--chat', ...more]);
  child.stdin!.end(lines.map((line) => `${line}\n`).join(''));
  return finished(child);
}

describe('generate --prompt', () => {
  it('writes the answer alone to stdout, and what is known of it to stderr', async () => {
    const folder = folderWithDecoder();
    const { code, stdout, stderr } = await run(folder, [...args, '--prompt', 'the model']);
    const data = await run(folder, [...args, '--prompt', 'the model', '--json']);
    const { text, tokens, finish, provider, cache } = JSON.parse(data.stdout);
    expect(code).toBe(0);
    expect(stdout).toBe(`${text}\n`);
    expect(stderr).toMatch(
      /^6 tokens in [\d.]+ s, [\de+.]+ tokens\/s, ended by --max-new-tokens\n$/,
    );
    expect({ finish, cache, used: provider.used, generated: tokens.generated }).toEqual({
      ...{ finish: 'length', cache: true, used: 'cpu', generated: 6 },
    });
  });

  it('writes the answer of another model below', async () => {
    const folder = folderWithDecoder();
    const more = ['--prompt', 'the model', '--compare', 'model.onnx'];
    const { stdout } = await run(folder, [...args, ...more]);
    const [title, text, , other, same] = stdout.split('\n');
    expect([title, other]).toEqual(['model.onnx', 'model.onnx']);
    expect(same).toBe(text);
  });

  it.each([
    [[], /needs --prompt or --chat/],
    [['--prompt', 'x', '--system', 'y'], /--system .*--chat/],
    [['--prompt', 'x', '--adapter', 'y'], /"y", expected NAME=PATH/],
    [['--prompt', 'x', '--top-p', '2'], /--top-p is .?2.?, expected/],
    [['--prompt', 'x', '--eos', 'nothing'], /not a token/],
  ])('with %j says what is wrong in a line', async (more, reason) => {
    const { code, stdout, stderr } = await run(folderWithDecoder(), [...args, ...more]);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^error: /);
    expect(stderr).toMatch(reason);
  });
});

describe('generate --chat', () => {
  it('answers lines; /reset forgets them', async () => {
    const lines = ['the model', 'its input', '/reset', 'the model', '/quit', 'not read'];
    const { code, stdout } = await talk(folderWithDecoder(), lines, ['--json']);
    const { turns } = JSON.parse(stdout);
    const [first, second, again] = turns.map(({ answer }: { answer: object }) => answer);
    expect(code).toBe(0);
    expect(turns.map(({ user }: { user: string }) => user)).toEqual([
      'the model',
      'its input',
      'the model',
    ]);
    expect(again.text).toBe(first.text);
    expect(second.tokens.prompt).toBeGreaterThan(first.tokens.prompt + 6);
  });

  it('writes an answer a line, and one message with --prompt', async () => {
    const folder = folderWithDecoder();
    const { stdout } = await talk(folder, ['the model', '', '/nothing', '/adapter']);
    const single = await run(folder, [...args, '--chat', '--prompt', 'the model']);
    expect(single.stdout).toBe(stdout);
  });

  it('without a template fails before it is asked anything', async () => {
    const { code, stderr } = await talk(folderWithDecoder(null), []);
    expect(code).toBe(1);
    expect(stderr).toMatch(/no chat template.*\n.*chat_template\.jinja/);
  });
});
