/** One run of four-bit.mjs: patches and trains, and prints processor time and memory as JSON. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { library, model, data, output, steps, batch } = JSON.parse(process.argv[2]);
const part = (path) => import(pathToFileURL(join(library, 'dist/src', path)).href);
const { patch } = await part('commands/patch.js');
const { resolveTrainOptions } = await part('commands/options/train.js');
// `train` would run in yet another process.
const { runTraining } = await part('commands/train/run.js');

const seconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

let anonymous = 0;
const watch = () => {
  const status = readFileSync('/proc/self/status', 'utf8');
  const kilobytes = Number(/RssAnon:\s+(\d+)/.exec(status)?.[1] ?? 0);
  anonymous = Math.max(anonymous, kilobytes * 1024);
};
const timer = setInterval(watch, 20);

const patched = `${output}.patched.onnx`;
await patch(model, { rank: 8, targets: ['all-linear'], output: patched, force: true });
const begin = seconds();
const ends = [];
const log = `${output}.jsonl`;
const options = resolveTrainOptions({
  ...{ data, loss: 'causal-lm', steps, batchSize: batch, lr: 1e-3, guard: false },
  ...{ output, log, force: true, shuffle: false },
  onProgress: ({ phase, done }) => {
    if (phase === 'training' && done > ends.length) ends.push(seconds());
  },
});
await runTraining(patched, options);
clearInterval(timer);
const loss = readFileSync(log, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line).loss);
const cpu = ends.slice(1).map((end, i) => end - ends[i]);
const peak = process.resourceUsage().maxRSS * 1024;
process.stdout.write(JSON.stringify({ start: ends[0] - begin, cpu, peak, anonymous, loss }));
