/** A run whose files cannot be written is kept, and ends as an unbroken one when it is resumed. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { TrainOptions } from '../../src/commands/options/train.js';
import type { ErrorCode } from '../../src/errors.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import { withTmpfs } from '../support/mounts.js';
import { type TinyRun, tinyRun, trainTiny } from './tiny.js';

const files = temporaryFolder();
const steps = 9;

/** Does something after the last step, which the run does not expect. */
function atTheEnd(work: () => void): Partial<TrainOptions> {
  const onProgress = ({ phase, done }: { phase: string; done: number }) => {
    if (phase === 'training' && done === steps) work();
  };
  return { steps, onProgress };
}

/** Fails, and goes on from where it says that the state is. */
async function failsAndGoesOn(
  run: TinyRun,
  options: Partial<TrainOptions>,
  code: ErrorCode,
  again: Partial<TrainOptions>,
) {
  const { hint } = await failure(() => trainTiny(files, run, options), code);
  const [, folder] = /go on with `checkpoint: "(.+)", resume: true`$/.exec(hint!)!;
  const whole = await trainTiny(files, run, { steps });
  const resumed = await trainTiny(files, run, {
    steps,
    checkpoint: folder,
    resume: true,
    ...again,
  });
  expect(sameFiles(resumed.output, whole.output)).toBe(true);
  return folder!;
}

describe('training is not lost where', () => {
  it('the output came to be meanwhile', async () => {
    const output = files.fresh('out.onnx');
    const work = () => writeFileSync(output, 'theirs');
    const folder = await failsAndGoesOn(
      await tinyRun(files),
      { ...atTheEnd(work), output },
      'output-exists',
      { output, force: true },
    );
    expect(folder).toBe(`${output}.checkpoint`);
    expect(readdirSync(dirname(output)).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  it('the folder of the output is removed', async () => {
    const output = join(files.fresh('folder'), 'out.onnx');
    mkdirSync(dirname(output));
    const work = () => rmSync(dirname(output), { recursive: true });
    await failsAndGoesOn(await tinyRun(files), { ...atTheEnd(work), output }, 'file-not-found', {});
  });

  it('the adapters of their own find a file in their place', async () => {
    const saveAdapter = files.fresh('a.safetensors');
    const work = () => writeFileSync(saveAdapter, 'theirs');
    const run = await tinyRun(files);
    await failsAndGoesOn(run, { ...atTheEnd(work), saveAdapter }, 'output-exists', {});
  });

  it('the adapters of their own find a folder in their place: the old model stays, too', async () => {
    const [output, saveAdapter] = [files.fresh('out.onnx'), files.fresh('a.safetensors')];
    writeFileSync(output, 'old');
    const work = () => mkdirSync(saveAdapter);
    const run = await tinyRun(files);
    const options = { ...atTheEnd(work), output, saveAdapter, force: true };
    await failure(() => trainTiny(files, run, options), 'not-a-file');
    expect(readFileSync(output, 'utf8')).toBe('old');
  });

  it('the log does not fit on its disk', async (context) => {
    const place = files.fresh('small');
    await withTmpfs(context, place, 'size=4k', async () => {
      writeFileSync(join(place, 'filler'), new Uint8Array(4096));
      const run = await tinyRun(files);
      await failsAndGoesOn(run, { steps, log: join(place, 'log.jsonl') }, 'io', {});
    });
  });

  it('nothing fits beside the output: the state is in the temporary folder', async (context) => {
    const place = files.fresh('small');
    await withTmpfs(context, place, 'size=16k', async () => {
      const output = join(place, 'out.onnx');
      const fill = () => {
        try {
          writeFileSync(join(place, 'filler'), new Uint8Array(65536));
        } catch {}
      };
      const run = await tinyRun(files);
      const folder = await failsAndGoesOn(run, { ...atTheEnd(fill), output }, 'io', {});
      expect(folder.startsWith(place)).toBe(false);
      rmSync(folder, { recursive: true });
    });
  });
});

describe('two runs at a time', () => {
  it.each(['output', 'checkpoint'] as const)(
    'with one %s: the second does not begin',
    async (key) => {
      const run = await tinyRun(files);
      const path = files.fresh('shared');
      let second: Promise<unknown> | undefined;
      const onProgress = () => {
        second ??= failure(
          () => trainTiny(files, run, { steps: 2, force: true, [key]: path }),
          'output-exists',
        );
      };
      await trainTiny(files, run, { steps: 4, onProgress, [key]: path });
      expect(((await second) as Error).message).toContain(`${path} is being made by process`);
      expect(existsSync(path)).toBe(true);
    },
  );
});

it.each(['checkpoint', 'tensorboard'] as const)(
  'a folder for %s below a file is refused before any work',
  async (key) => {
    const file = files.write(new Uint8Array(1), 'file');
    const started = trainTiny(files, await tinyRun(files), {
      steps: 2,
      [key]: join(file, 'folder'),
    });
    expect((await failure(() => started, 'invalid-argument')).message).toContain('is a file');
  },
);
