/**
 * What a large file of texts costs to open and to make batches of, beside reading it once.
 *
 *   node bench/text.mjs [--gigabytes 5] [--repeat 3] [--batches 200] [--folder DIR]
 */
import { spawnSync } from 'node:child_process';
import { closeSync, createReadStream, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  inTemporaryFolder,
  pairedRatio,
  saveResults,
  spread,
  table,
  withSpread,
} from './common.mjs';

const { values: args } = parseArgs({
  options: {
    gigabytes: { type: 'string', default: '5' },
    repeat: { type: 'string', default: '3' },
    batches: { type: 'string', default: '200' },
    folder: { type: 'string' },
    /** A process of its own: reads the file once, or opens it. */
    run: { type: 'string' },
    file: { type: 'string' },
  },
});

const GB = 1e9;
const MB = 1e6;
const BATCH = 32;
const INT64 = 7;
const tokenizer = fileURLToPath(new URL('../test/fixtures/tokenizers/wordpiece', import.meta.url));
const script = fileURLToPath(import.meta.url);

const WORDS =
  'the work of this licence means any form that is made available under its terms or not'.split(
    ' ',
  );

async function read() {
  const start = performance.now();
  let bytes = 0;
  for await (const chunk of createReadStream(args.file, { highWaterMark: 2 ** 20 })) {
    bytes += chunk.length;
  }
  report({ ms: performance.now() - start, bytes });
}

/** As `train` does: every row is looked at, then batches are made in a shuffled order. */
async function open() {
  const { openDataset } = await import('../dist/src/data/dataset.js');
  const { BatchOrder } = await import('../dist/src/data/order.js');
  const input = (name) => ({ name, shape: ['batch', 'tokens'], dataType: INT64 });
  const inputs = ['input_ids', 'attention_mask', 'token_type_ids'].map(input);
  const start = performance.now();
  const dataset = await openDataset(args.file, { inputs, labelKind: 'classes', tokenizer });
  const opened = performance.now();
  const { size } = dataset;
  const lengthOf = (sample) => dataset.lengthOf(sample);
  const order = new BatchOrder({ size, batchSize: BATCH, seed: 1, shuffle: true, lengthOf });
  order.indices(0);
  const ordered = performance.now();
  const count = Number(args.batches);
  let [tokens, padding] = [0, 0];
  for (let i = 0; i < count; i++) {
    const batch = await dataset.batch(order.indices(i));
    const { data } = batch.get('attention_mask');
    for (const one of data) one === 1n ? tokens++ : padding++;
  }
  const ms = opened - start;
  const batchMs = (performance.now() - ordered) / count;
  report({
    ms,
    rows: size,
    orderMs: ordered - opened,
    batchMs,
    padding: padding / (tokens + padding),
  });
  dataset.close();
}

function report(result) {
  process.stdout.write(
    JSON.stringify({ ...result, maxRss: process.resourceUsage().maxRSS * 1024 }),
  );
}

function timed(run, file) {
  const argv = [script, '--run', run, '--file', file, '--batches', args.batches];
  const { stdout, status, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

const BLOCK_ROWS = 20_000;

/** Rows with 20 to 150 words; a block of them again and again. */
function write(file, bytes, row) {
  const target = openSync(file, 'w');
  let state = 12345;
  const next = (limit) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % limit;
  };
  const words = () => Array.from({ length: 20 + next(131) }, () => WORDS[next(WORDS.length)]);
  const rows = Array.from({ length: BLOCK_ROWS }, () => {
    return row(words().join(' '), ['good', 'bad', 'so'][next(3)]);
  });
  const block = Buffer.from(rows.join(''));
  let written = row === csvRow ? writeSync(target, 'text,label\n') : 0;
  while (written < bytes) written += writeSync(target, block);
  closeSync(target);
}

function jsonRow(text, label) {
  return `${JSON.stringify({ text, label })}\n`;
}

function csvRow(text, label) {
  return `"${text}, ""so"" it says",${label}\n`;
}

async function compare() {
  const whole = Number(args.gigabytes) * GB;
  const files = [
    ['a hundredth', 'jsonl', whole / 100, jsonRow],
    ['the file', 'jsonl', whole, jsonRow],
    ['the file', 'csv', whole, csvRow],
  ];
  await inTemporaryFolder({ folder: args.folder, bytes: 1.1 * whole }, async (folder) => {
    const results = files.map(([name, format, bytes, row]) => {
      const file = join(folder, `data.${format}`);
      write(file, bytes, row);
      const result = measure(`${name}, ${format}`, file);
      rmSync(file);
      return result;
    });
    table(
      [
        '',
        'GB',
        'million rows',
        'read, s',
        'opened, s',
        'ratio',
        'ms a batch',
        'padding',
        'peak, MB',
        'bytes a row',
      ],
      results.map((r) => [
        r.name,
        (r.bytes / GB).toFixed(2),
        (r.rows / 1e6).toFixed(2),
        (r.read.median / 1000).toFixed(1),
        (r.opened.median / 1000).toFixed(1),
        withSpread(r.ratio),
        r.batchMs.toFixed(1),
        `${(100 * r.padding).toFixed(1)} %`,
        (r.maxRss / MB).toFixed(0),
        ((r.maxRss - results[0].maxRss) / r.rows).toFixed(0),
      ]),
    );
    saveResults('text', { results });
  });
}

function measure(name, file) {
  const rounds = Array.from({ length: Number(args.repeat) }, (_, i) => {
    // Each round from another start.
    if (i % 2 === 1) {
      const opened = timed('open', file);
      return { opened, read: timed('read', file) };
    }
    return { read: timed('read', file), opened: timed('open', file) };
  });
  const [times, reads] = [rounds.map(({ opened }) => opened.ms), rounds.map(({ read }) => read.ms)];
  const { rows, batchMs, padding, orderMs } = rounds[0].opened;
  return {
    ...{ name, bytes: rounds[0].read.bytes, rows, batchMs, orderMs, padding },
    ...{ read: spread(reads), opened: spread(times), ratio: pairedRatio(times, reads) },
    maxRss: Math.max(...rounds.map(({ opened }) => opened.maxRss)),
  };
}

if (args.run === 'read') await read();
else if (args.run === 'open') await open();
else await compare();
