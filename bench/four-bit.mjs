/**
 * What a training step costs on a decoder whose weights have 4 bits (MatMulNBits), beside the same
 * decoder in float32: processor time and memory.
 *
 *   node bench/four-bit.mjs [--layers 16] [--hidden 1024] [--steps 4] [--before FOLDER] [--only NAME]
 *
 * FOLDER is another build of this package, which runs the same files in turn. Linux only: memory is
 * read from /proc. Processor time is that of all threads: other work on the machine hardly moves it.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { encodeSafetensors } from '../dist/src/formats/safetensors-output.js';
import { inTemporaryFolder, median, saveResults, table } from './common.mjs';
import { ModelBuilder, Noise, uniform } from './models.mjs';

const { values: args } = parseArgs({
  options: {
    layers: { type: 'string', default: '16' },
    hidden: { type: 'string', default: '1024' },
    vocabulary: { type: 'string', default: '8192' },
    batch: { type: 'string', default: '2' },
    length: { type: 'string', default: '64' },
    steps: { type: 'string', default: '4' },
    before: { type: 'string' },
    only: { type: 'string', multiple: true },
    folder: { type: 'string' },
  },
});
const [layers, hidden, vocabulary, batch, length, steps] = [
  ...[args.layers, args.hidden, args.vocabulary, args.batch, args.length, args.steps],
].map(Number);
const heads = hidden / 64;
// Llama's share, in whole blocks.
const ffn = Math.ceil((hidden * 8) / 3 / 64) * 64;
const BLOCK = 32;
const MB = 2 ** 20;

/** Writes the product of x with a new weight. */
const products = {
  float32: (b, noise, x, y, [k, n], phase) => {
    const data = noise.piece('float32', k * n, 1 / Math.sqrt(k), phase);
    return b.node('MatMul', [x, b.weight(`${y}.weight`, 'float32', [k, n], data)], y);
  },
  MatMulNBits: (b, noise, x, y, [k, n], phase) => {
    const sizes = { K: { int: k }, N: { int: n }, bits: { int: 4 }, block_size: { int: BLOCK } };
    const dims = [n, k / BLOCK, BLOCK / 2];
    const codes = b.weight(`${y}.q4`, 'uint8', dims, noise.codes((k * n) / 2, phase));
    // Codes are 4.6 from 8 in the mean square.
    const scale = { length: (4 * k * n) / BLOCK, chunks: () => scales((k * n) / BLOCK, k) };
    const s = b.weight(`${y}.scales`, 'float32', [(k * n) / BLOCK], scale);
    return b.node('MatMulNBits', [x, codes, s], y, sizes, 'com.microsoft');
  },
  DequantizeLinear: (b, noise, x, y, [k, n], phase) => {
    const codes = b.weight(`${y}.q4`, 'int4', [k, n], noise.codes((k * n) / 2, phase));
    const scale = { length: (4 * k * n) / BLOCK, chunks: () => scales((k * n) / BLOCK, k) };
    const s = b.weight(`${y}.scales`, 'float32', [k / BLOCK, n], scale);
    const blocks = { axis: { int: 0 }, block_size: { int: BLOCK } };
    const w = b.node('DequantizeLinear', [codes, s], `${y}.weight`, blocks);
    return b.node('MatMul', [x, w], y);
  },
};

function* scales(count, k) {
  yield new Uint8Array(new Float32Array(count).fill(1 / (4.6 * Math.sqrt(k))).buffer);
}

/** A Llama without rotary embedding: norms, causal attention, gated layers. */
async function decoder(path, product) {
  const b = new ModelBuilder({ opset: 21, irVersion: 10, external: true });
  const noise = new Noise();
  let count = 0;
  const linear = (x, name, from, to) =>
    product(b, noise, x, `/${name}/MatMul_output_0`, [from, to], count++);
  const gain = b.floats('norm.weight', [hidden], new Array(hidden).fill(1));
  const two = b.floats('two', [], [2]);
  const epsilon = b.floats('epsilon', [], [1e-5]);
  const norm = (x, name) => {
    const square = b.node('Pow', [x, two], `/${name}/Pow_output_0`);
    const axes = b.ints([-1]);
    const mean = b.node('ReduceMean', [square, axes], `/${name}/ReduceMean_output_0`);
    const shifted = b.node('Add', [mean, epsilon], `/${name}/Add_output_0`);
    const root = b.node('Sqrt', [shifted], `/${name}/Sqrt_output_0`);
    const unit = b.node('Div', [x, root], `/${name}/Div_output_0`);
    return b.node('Mul', [unit, gain], `/${name}/Mul_output_0`);
  };
  const ids = b.input('input_ids', 'int64', ['batch', length]);
  const table = noise.piece('float32', vocabulary * hidden, 1, 5);
  const embedding = b.weight('embed_tokens.weight', 'float32', [vocabulary, hidden], table);
  const mask = Array.from({ length: length ** 2 }, (_, i) =>
    i % length > Math.floor(i / length) ? -1e9 : 0,
  );
  const causal = b.floats('mask', [length, length], mask);
  const root = b.floats('root', [], [Math.sqrt(hidden / heads)]);
  let x = b.node('Gather', [embedding, ids], '/embed_tokens/Gather_output_0');
  for (let i = 0; i < layers; i++) {
    const at = `model/layers.${i}`;
    const attention = `${at}/self_attn`;
    const normed = norm(x, `${at}/input_layernorm`);
    const split = (part, perm) => {
      const rows = linear(normed, `${attention}/${part}`, hidden, hidden);
      const shape = b.ints([0, 0, heads, hidden / heads]);
      const four = b.node('Reshape', [rows, shape], `/${attention}/${part}/Reshape_output_0`);
      const attributes = { perm: { ints: perm } };
      return b.node('Transpose', [four], `/${attention}/${part}/Transpose_output_0`, attributes);
    };
    const [q, k, v] = [
      split('q_proj', [0, 2, 1, 3]),
      split('k_proj', [0, 2, 3, 1]),
      split('v_proj', [0, 2, 1, 3]),
    ];
    const scores = b.node('MatMul', [q, k], `/${attention}/MatMul_output_0`);
    const scaled = b.node('Div', [scores, root], `/${attention}/Div_output_0`);
    const masked = b.node('Add', [scaled, causal], `/${attention}/Add_output_0`);
    const weights = b.node('Softmax', [masked], `/${attention}/Softmax_output_0`);
    const mixed = b.node('MatMul', [weights, v], `/${attention}/MatMul_1_output_0`);
    const perm = { perm: { ints: [0, 2, 1, 3] } };
    const rows = b.node('Transpose', [mixed], `/${attention}/Transpose_output_0`, perm);
    const shape = b.ints([0, 0, hidden]);
    const context = b.node('Reshape', [rows, shape], `/${attention}/Reshape_output_0`);
    const o = linear(context, `${attention}/o_proj`, hidden, hidden);
    x = b.node('Add', [x, o], `/${at}/Add_output_0`);
    const inner = norm(x, `${at}/post_attention_layernorm`);
    const gate = linear(inner, `${at}/mlp/gate_proj`, hidden, ffn);
    const up = linear(inner, `${at}/mlp/up_proj`, hidden, ffn);
    const sigmoid = b.node('Sigmoid', [gate], `/${at}/mlp/Sigmoid_output_0`);
    const silu = b.node('Mul', [gate, sigmoid], `/${at}/mlp/Mul_output_0`);
    const product = b.node('Mul', [silu, up], `/${at}/mlp/Mul_1_output_0`);
    const down = linear(product, `${at}/mlp/down_proj`, ffn, hidden);
    x = b.node('Add', [x, down], `/${at}/Add_1_output_0`);
  }
  const logits = linear(norm(x, 'model/norm'), 'lm_head', hidden, vocabulary);
  b.output(logits, 'float32', ['batch', length, vocabulary]);
  return {
    bytes: await b.save(path),
    linear: layers * (4 * hidden + 3 * ffn) * hidden + hidden * vocabulary,
  };
}

function samples(path) {
  const random = uniform(3);
  const ids = BigInt64Array.from({ length: 4 * batch * length }, () =>
    BigInt(Math.floor(((random() + 1) / 2) * vocabulary)),
  );
  const data = new Uint8Array(ids.buffer);
  const tensor = { name: 'input_ids', dtype: 'int64', shape: [4 * batch, length], data };
  writeFileSync(path, encodeSafetensors([tensor]));
}

/** Trains in a process of its own. */
function trained(library, model, data, output) {
  const job = JSON.stringify({ library, model, data, output, steps, batch });
  const child = spawnSync(process.execPath, [CHILD, job], { encoding: 'utf8' });
  if (child.status !== 0) throw new Error(child.stderr);
  return JSON.parse(child.stdout);
}

const CHILD = fileURLToPath(new URL('./four-bit-child.mjs', import.meta.url));
const HERE = fileURLToPath(new URL('..', import.meta.url));

await inTemporaryFolder({ folder: args.folder, bytes: 3e9 }, async (folder) => {
  const data = join(folder, 'data.safetensors');
  samples(data);
  const builds = { ...(args.before ? { before: args.before } : {}), now: HERE };
  const rows = [];
  for (const [form, product] of Object.entries(products)) {
    const base = join(folder, `${form}.onnx`);
    const { bytes, linear } = await decoder(base, product);
    for (const [build, library] of Object.entries(builds)) {
      const name = `${form} ${build}`;
      if (args.only && !args.only.some((one) => name.includes(one))) continue;
      const run = trained(library, base, data, join(folder, 'trained.onnx'));
      rows.push({ name, bytes, linear, ...run });
    }
  }
  console.log(
    `${layers} layers, ${(rows[0].linear / 1e6).toFixed(0)} M parameters in linear layers, ${batch} x ${length} tokens a step`,
  );
  table(
    [
      '',
      'files MB',
      'CPU s to the first step',
      'CPU s a step',
      'peak MB',
      'of them anonymous',
      'loss',
    ],
    rows.map(({ name, bytes, start, cpu, peak, anonymous, loss }) => [
      name,
      (bytes / MB).toFixed(0),
      start.toFixed(1),
      median(cpu).toFixed(2),
      (peak / MB).toFixed(0),
      (anonymous / MB).toFixed(0),
      loss.map((one) => one.toFixed(5)).join(' '),
    ]),
  );
  saveResults('four-bit', { layers, hidden, vocabulary, batch, length, rows });
});
