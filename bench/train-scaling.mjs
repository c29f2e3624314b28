/**
 * How the time of a training step grows with the batch, the layers and the adapters.
 *
 *   node bench/train-scaling.mjs [--rounds 5] [--steps 30] [--batch 8] [--length 128] …
 */
import { parseArgs } from 'node:util';
import { inTemporaryFolder, saveResults, spread, table, withSpread } from './common.mjs';
import { generatedEncoder, stepMs, trainOurs } from './train-runs.mjs';

const { values: args } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    steps: { type: 'string', default: '30' },
    batch: { type: 'string', default: '8' },
    length: { type: 'string', default: '128' },
    layers: { type: 'string', default: '6' },
    hidden: { type: 'string', default: '384' },
    rank: { type: 'string', default: '16' },
    blocks: { type: 'string', default: '4' },
    folder: { type: 'string' },
    keep: { type: 'boolean' },
  },
});
const { folder: where, keep, ...settings } = args;
const { rounds, steps, ...sizes } = Object.fromEntries(
  Object.entries(settings).map(([name, value]) => [name, Number(value)]),
);

/**
 * Median step time at each point, the points in turn round by round, and how far they lie from the
 * straight line through them.
 * @param {string} label @param {{ x: number, one: import('./train-runs.mjs').Subject }[]} points
 */
async function scaleOver(label, points) {
  const times = points.map(() => []);
  for (let round = 0; round < rounds; round++)
    for (const [i, { one }] of points.entries()) times[i].push(stepMs(await trainOurs(one, steps)));
  const ms = times.map(spread);
  const x = points.map((point) => point.x);
  const line = fitLine(
    x,
    ms.map((s) => s.median),
  );
  console.log(`\nstep over ${label}`);
  table(
    [label, 'ms', 'line'],
    x.map((value, i) => [
      String(value),
      withSpread(ms[i], 0),
      (line.base + line.slope * value).toFixed(0),
    ]),
  );
  console.log(`off the line by ${(100 * line.worst).toFixed(0)} % at most`);
  return { x, ms, line };
}

/** Least squares; `worst` is the largest relative distance of a point. */
function fitLine(x, y) {
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const [mx, my] = [mean(x), mean(y)];
  const slope = mean(x.map((v, i) => (v - mx) * (y[i] - my))) / mean(x.map((v) => (v - mx) ** 2));
  const base = my - slope * mx;
  const worst = Math.max(...x.map((v, i) => Math.abs(base + slope * v - y[i]) / y[i]));
  return { base, slope, worst };
}

async function scaling(folder) {
  const generated = (options) => generatedEncoder(folder, { ...sizes, ...options });
  const each = async (values, options) => {
    const points = [];
    for (const x of values) points.push({ x, one: await generated(options(x)) });
    return points;
  };
  // "output.dense" ends the names of two layers. The first is always query: so deep goes every backward.
  const TARGET_SETS = [
    ['query'],
    ['query', 'key', 'value'],
    ['query', 'key', 'value', 'intermediate.dense'],
    ['query', 'key', 'value', 'intermediate.dense', 'output.dense'],
  ];
  const adapters = [];
  for (const targets of TARGET_SETS) {
    const one = await generated({ targets });
    adapters.push({ x: one.parameters, one });
  }
  return {
    batch: await scaleOver('batch', await each([2, 4, 8, 16], (x) => ({ batch: x }))),
    layers: await scaleOver('layers', await each([2, 4, 6, 8], (x) => ({ layers: x }))),
    // A multiply-add a row for each parameter: parameters stand for the adapters' FLOPs.
    adapters: await scaleOver('adapter parameters', adapters),
  };
}

await inTemporaryFolder({ keep, bytes: 2e9, ...(where ? { folder: where } : {}) }, async (folder) =>
  saveResults('train-scaling', { settings, results: await scaling(folder) }),
);
