import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { RunLog } from '../../src/training/log.js';
import type { StepRecord } from '../../src/training/records.js';
import { failure, temporaryFolder } from '../support/files.js';

const files = temporaryFolder();

const step = (number: number): StepRecord => ({
  ...{ step: number, epoch: number / 4, loss: 1 / number, gradNorm: 1, lr: 0.1 },
  ...{ ms: 2, samplesPerSecond: 100 },
});

function written(): string {
  const path = files.fresh('log.jsonl');
  const log = RunLog.open(path, false, 0);
  log.add(step(1));
  log.add(step(2));
  log.add({ step: 2, eval: { loss: 0.5 } });
  log.add(step(3));
  return path;
}

describe('a log', () => {
  it('is a line a record', () => {
    const lines = readFileSync(written(), 'utf8').split('\n');
    expect(lines).toHaveLength(5);
    expect(JSON.parse(lines[1]!)).toEqual(step(2));
    expect(JSON.parse(lines[2]!)).toEqual({ step: 2, eval: { loss: 0.5 } });
    expect(lines[4]).toBe('');
  });

  it('of a resumed run loses what comes behind the checkpoint, and goes on', () => {
    const path = written();
    const before = readFileSync(path, 'utf8').split('\n').slice(0, 3).join('\n');
    const log = RunLog.open(path, false, 2);
    expect(log.records).toHaveLength(3);
    expect(readFileSync(path, 'utf8')).toBe(`${before}\n`);
    log.add(step(3));
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(5);
  });

  it('whose last line a kill has cut goes on in front of it', () => {
    const path = written();
    const before = readFileSync(path, 'utf8');
    appendFileSync(path, '{"step":4,"lo');
    RunLog.open(path, false, 4);
    expect(readFileSync(path, 'utf8')).toBe(before);
  });

  it.each([
    ['without a newline', 'my notes'],
    ['in one line of JSON without a newline', '{"rows": [1, 2]}'],
    ['of another trainer', '{"step":1,"loss":2}\n{"step":2,"loss":1}\n'],
    [
      'of another program behind its records',
      `${JSON.stringify(step(1))}\n${JSON.stringify(step(9))}\nnotes\n`,
    ],
    ['of bytes', '\x00\x01\x02'],
  ])('is not seen in a file %s', async (_, text) => {
    const path = files.write(Buffer.from(text), 'log.jsonl');
    await failure(() => RunLog.open(path, false, 4), 'output-exists');
    expect(readFileSync(path, 'utf8')).toBe(text);
  });

  it('of a run that came to no checkpoint begins anew when that is resumed', () => {
    const path = written();
    RunLog.open(path, false, 0, true).add(step(1));
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(2);
  });

  it('that was lost starts anew', () => {
    const path = files.fresh('log.jsonl');
    RunLog.open(path, false, 7).add(step(8));
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(step(8));
  });

  it('never takes the place of a file that exists', async () => {
    const path = written();
    const before = readFileSync(path, 'utf8');
    await failure(() => RunLog.open(path, false, 0), 'output-exists');
    expect(readFileSync(path, 'utf8')).toBe(before);
    RunLog.open(path, true, 0);
    expect(readFileSync(path, 'utf8')).toBe('');
  });

  it.each([
    ['text', 'my notes\n'],
    ['other JSON', '{"name":"x"}\n'],
    ['no records', 'null\n'],
  ])('is not resumed in a file of %s', async (_, content) => {
    const path = files.fresh('notes');
    writeFileSync(path, content);
    const { message } = await failure(() => RunLog.open(path, true, 3), 'output-exists');
    expect(message).toContain(path);
    expect(readFileSync(path, 'utf8')).toBe(content);
  });
});
