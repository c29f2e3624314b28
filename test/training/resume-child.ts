/**
 * Trains and says each step as it is done: `resume-child.ts MODEL OPTIONS [LAST]`, resolved options as JSON.
 * Behind the step LAST it waits to be killed.
 */
import { writeSync } from 'node:fs';
import type { ResolvedTrainOptions } from '../../src/commands/options/train.js';
import { runTraining } from '../../src/commands/train/run.js';
import { waitForever } from '../support/wait.js';

const [model, options, last] = [process.argv[2]!, JSON.parse(process.argv[3]!), process.argv[4]];
await runTraining(model, {
  ...(options as ResolvedTrainOptions),
  onNote: () => {},
  // Not process.stdout, which may hold back what it was given.
  onProgress: ({ phase, done }) => {
    if (phase !== 'training') return;
    writeSync(1, `${done}\n`);
    if (done === Number(last)) waitForever();
  },
});
