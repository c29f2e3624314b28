/** `npm run faults [-- --seconds 60 --seed 1]`: prints what was done and what came of it. */
import { parseArgs } from 'node:util';
import { faults } from './faults.js';

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string', default: '1' } },
});
const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
const { bad, ...counts } = await faults({ seconds, seed });
console.log(JSON.stringify({ seed, ...counts, bad: bad.length }, null, 2));
for (const text of bad) console.error(text);
if (counts.fullDisks === 0)
  console.error('no disk could be mounted: full and read-only ones are left out');
const isWhole =
  counts.torn === 0 && counts.leftovers === 0 && counts.resumed === counts.resumedEqual;
process.exitCode = isWhole && bad.length === 0 ? 0 : 1;
