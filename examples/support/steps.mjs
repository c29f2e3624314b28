// What every example does: say what comes, run the command line, shuffle by a seed.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const cli = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export function say(text) {
  console.log(`\n# ${text}`);
}

/** Runs the command line for people to see; ends the example where it fails. */
export function onnxLora(...args) {
  console.log(`\n$ onnx-lora ${args.join(' ')}\n`);
  const { status } = spawnSync(process.execPath, [cli, ...args], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

/** Runs the command line for its result. */
export function resultOf(...args) {
  const options = { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] };
  const { status, stdout } = spawnSync(process.execPath, [cli, ...args, '--json'], options);
  if (status !== 0) process.exit(status ?? 1);
  return JSON.parse(stdout);
}

/** A copy in an order that the seed decides (mulberry32, Fisher and Yates). */
export function shuffled(items, seed) {
  const order = [...items];
  let state = seed + 1;
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** One JSON document a line. */
export function jsonLines(items) {
  return `${items.map((item) => JSON.stringify(item)).join('\n')}\n`;
}

export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}
