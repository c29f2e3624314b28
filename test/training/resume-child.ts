/** Trains and says each step as it is done: `resume-child.ts MODEL OPTIONS`, options as JSON. */
import { writeSync } from 'node:fs';
import { resolveOptions } from '../../src/training/options.js';
import { runTraining } from '../../src/training/run.js';

const [model, options] = [process.argv[2]!, JSON.parse(process.argv[3]!)];
await runTraining(model, {
  ...resolveOptions(options),
  // Not process.stdout, which may hold back what it was given.
  onProgress: ({ phase, done }) => {
    if (phase === 'training') writeSync(1, `${done}\n`);
  },
});
