/**
 * Trains and says each step as it is done: `resume-child.mjs MODEL OPTIONS [LAST]`, resolved options as JSON.
 * Behind the step LAST it waits to be killed. It runs what is built, as commands in tests do: to compile the
 * sources in each process takes longer than the training.
 */
import { writeSync } from 'node:fs';
import { runTraining } from '../../dist/src/commands/train/run.js';

const [model, options, last] = [process.argv[2], JSON.parse(process.argv[3]), process.argv[4]];
const waitForever = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
await runTraining(model, {
  ...options,
  onNote: () => {},
  // Not process.stdout, which may hold back what it was given.
  onProgress: ({ phase, done }) => {
    if (phase !== 'training') return;
    writeSync(1, `${done}\n`);
    if (done === Number(last)) waitForever();
  },
});
