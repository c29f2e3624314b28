/**
 * Which way to write the adapter's subgraph is the fastest? Each way computes the same
 * `x · W + s · (x · A) · B` for a localized grid in the encoder of models.mjs.
 *
 *   node bench/formulations.mjs [--rounds 15] [--blocks 2,4,8] [--level all] [--only a,b] [--threads 2]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import ort from 'onnxruntime-node';
import {
  against,
  largestDifference,
  saveResults,
  session,
  table,
  timeInTurn,
  withSpread,
} from './common.mjs';
import { encoder, ModelBuilder, plainProducts, randomValues, uniform } from './models.mjs';

const { values: args } = parseArgs({
  options: {
    rounds: { type: 'string', default: '15' },
    blocks: { type: 'string', default: '2,4,8' },
    rank: { type: 'string', default: '16' },
    level: { type: 'string', default: 'all' },
    threads: { type: 'string', default: '2' },
    rows: { type: 'string', default: '8,128' },
    only: { type: 'string' },
    zero: { type: 'boolean' },
    shapes: { type: 'string', default: 'encoder,384x384,384x1536' },
  },
});

/** Random factors in the layout that the product stores; B carries the scale. */
function factors(layer, K, R, random) {
  const r = R / K;
  const a = randomValues(layer.in * R, random, 1 / Math.sqrt(layer.in));
  const b = randomValues(R * layer.out, random, args.zero ? 0 : 0.05);
  return { a, b, r, K };
}

/** [in, K·K·r], zeros around each A[n]; columns in the order (n, j, r), or (j, n, r). */
function wideA({ a, r, K }, from, byOutput = false) {
  const columns = K * K * r;
  const wide = new Float64Array(from * columns);
  const height = from / K;
  for (let n = 0; n < K; n++)
    for (let i = 0; i < height; i++)
      for (let j = 0; j < K; j++)
        for (let q = 0; q < r; q++) {
          const column = (byOutput ? j * K + n : n * K + j) * r + q;
          wide[(n * height + i) * columns + column] = a[((n * height + i) * K + j) * r + q];
        }
  return wide;
}

/** [K·K·r, out], rows in the order (n, j, r), zeros around each B[j]. */
function tallB({ b, r, K }, to) {
  const width = to / K;
  const tall = new Float64Array(K * K * r * to);
  for (let j = 0; j < K; j++)
    for (let n = 0; n < K; n++)
      for (let q = 0; q < r; q++)
        for (let c = 0; c < width; c++)
          tall[((n * K + j) * r + q) * to + j * width + c] = b[((j * K + n) * r + q) * width + c];
  return tall;
}

/** ΔW [in, out] */
function deltaW({ a, b, r, K }, from, to) {
  const delta = new Float64Array(from * to);
  const height = from / K;
  const width = to / K;
  for (let i = 0; i < from; i++) {
    const n = Math.floor(i / height);
    for (let j = 0; j < K; j++)
      for (let q = 0; q < r; q++) {
        const left = a[(i * K + j) * r + q];
        const row = ((j * K + n) * r + q) * width;
        for (let c = 0; c < width; c++) delta[i * to + j * width + c] += left * b[row + c];
      }
  }
  return delta;
}

/**
 * A way for each layer on its own. It gets the layer with the helpers bound to it, and adds the
 * nodes that give `y` from `x` and the layer's own product `base`.
 */
const single = (way) => (K, R) => {
  const random = uniform(11);
  return (b, x, layers) => {
    for (const layer of layers) {
      const f = factors(layer, K, R, random);
      const { module, weight, y } = layer;
      const at = (leaf) => `lora/${module}/${leaf}`;
      const h = {
        ...layer,
        x,
        f,
        K,
        R,
        r: f.r,
        base: () => b.node('MatMul', [x, weight], at('base')),
        node: (leaf, op, inputs, attributes) => b.node(op, inputs, at(leaf), attributes),
        nodes: (leaf, op, inputs, count, attributes) => {
          const names = Array.from({ length: count }, (_, i) => at(`${leaf}${i}`));
          b.node(op, inputs, names, attributes);
          return names;
        },
        reshape: (leaf, value, shape) => b.node('Reshape', [value, b.ints(shape)], at(leaf)),
        transpose: (leaf, value, perm) =>
          b.node('Transpose', [value], at(leaf), { perm: { ints: perm } }),
        floats: (leaf, dims, numbers) => b.floats(at(leaf), dims, numbers),
        ints: (numbers) => b.ints(numbers),
        like: (value, base) =>
          b.node('Reshape', [value, b.node('Shape', [base], at('y_shape'))], at('delta')),
        final: (op, inputs) => b.node(op, inputs, y),
        add: (base, delta) => b.node('Add', [base, delta], y),
      };
      way(h);
    }
  };
};

const storedA = (h) => h.floats('A', [h.K, h.in / h.K, h.R], h.f.a);
const storedB = (h) => h.floats('B', [h.K, h.R, h.out / h.K], h.f.b);
const denseA = (h, byOutput) => h.floats('A', [h.in, h.K * h.R], wideA(h.f, h.in, byOutput));
const denseB = (h) => h.floats('B', [h.K * h.R, h.out], tallB(h.f, h.out));

/** [K, N, in/K] · A */
function batchedH(h) {
  const split = h.reshape('x_split', h.x, [-1, h.K, h.in / h.K]);
  return h.node('h', 'MatMul', [h.transpose('x_blocks', split, [1, 0, 2]), storedA(h)]);
}

function batchedD(h, groups) {
  const d = h.node('d', 'MatMul', [groups, storedB(h)]);
  return h.transpose('d_rows', d, [1, 0, 2]);
}

/** From a group for each input block to a group for each output block. */
function regroup(h, value) {
  const split = h.reshape('h_split', value, [h.K, -1, h.K, h.r]);
  const turned = h.transpose('h_turned', split, [2, 1, 0, 3]);
  return h.reshape('h_out', turned, [h.K, -1, h.R]);
}

const columnsOfB = (h) =>
  Array.from({ length: h.K }, (_, j) => {
    const size = h.R * (h.out / h.K);
    return h.floats(`B${j}`, [h.R, h.out / h.K], h.f.b.subarray(j * size, (j + 1) * size));
  });

const ways = {
  // What subgraph.ts emits for float32.
  batched: single((h) => {
    const base = h.base();
    h.add(base, h.like(batchedD(h, regroup(h, batchedH(h))), base));
  }),
  // What subgraph.ts emits for half precision.
  stacked: single((h) => {
    const d = h.node('d', 'MatMul', [h.node('h', 'MatMul', [h.x, denseA(h)]), denseB(h)]);
    h.add(h.base(), d);
  }),
  // The Add inside the second product.
  'stacked, Gemm': single((h) => {
    const base = h.base();
    const hidden = h.node('h', 'MatMul', [h.x, denseA(h)]);
    const rows = h.reshape('h_rows', hidden, [-1, h.K * h.R]);
    const baseRows = h.reshape('base_rows', base, [-1, h.out]);
    const sum = h.node('sum', 'Gemm', [rows, denseB(h), baseRows]);
    h.final('Reshape', [sum, h.node('y_shape', 'Shape', [base])]);
  }),
  // Blocks of X, one product with all of B.
  'batched A, stacked B': single((h) => {
    const base = h.base();
    const turned = h.transpose('h_turned', batchedH(h), [1, 0, 2]);
    const rows = h.reshape('h_rows', turned, [-1, h.K * h.R]);
    h.add(base, h.like(h.node('d', 'MatMul', [rows, denseB(h)]), base));
  }),
  'stacked A, batched B': single((h) => {
    const base = h.base();
    const hidden = h.node('h', 'MatMul', [h.x, denseA(h, true)]);
    const split = h.reshape('h_split', hidden, [-1, h.K, h.R]);
    h.add(base, h.like(batchedD(h, h.transpose('h_out', split, [1, 0, 2])), base));
  }),
  // No reshape and no transpose: the blocks by Split and Concat.
  'stacked A, Split, B each': single((h) => {
    const hidden = h.node('h', 'MatMul', [h.x, denseA(h, true)]);
    const parts = h.nodes('h_', 'Split', [hidden], h.K, { axis: { int: -1 } });
    const columns = columnsOfB(h).map((b, j) => h.node(`d_${j}`, 'MatMul', [parts[j], b]));
    h.add(h.base(), h.node('d', 'Concat', columns, { axis: { int: -1 } }));
  }),
  'Split, A each, stacked B': single((h) => {
    const parts = h.nodes('x_', 'Split', [h.x], h.K, { axis: { int: -1 } });
    const size = (h.in / h.K) * h.R;
    const columns = parts.map((part, n) => {
      const a = h.floats(`A${n}`, [h.in / h.K, h.R], h.f.a.subarray(n * size, (n + 1) * size));
      return h.node(`h_${n}`, 'MatMul', [part, a]);
    });
    const hidden = h.node('h', 'Concat', columns, { axis: { int: -1 } });
    h.add(h.base(), h.node('d', 'MatMul', [hidden, denseB(h)]));
  }),
  // W + ΔW, which a runtime computes when it loads.
  'W + ΔW': single((h) => {
    const delta = h.floats('delta', [h.in, h.out], deltaW(h.f, h.in, h.out));
    h.final('MatMul', [h.x, h.node('w', 'Add', [h.weight, delta])]);
  }),
};

/** One product of x with the stacked A of all layers that read it, side by side. */
const sharedStacked = (K, R) => {
  const random = uniform(11);
  return (b, x, layers) => {
    const all = layers.map((layer) => factors(layer, K, R, random));
    const from = layers[0].in;
    const columns = K * R;
    const width = layers.length * columns;
    const side = new Float64Array(from * width);
    all.forEach((f, i) => {
      const wide = wideA(f, from);
      for (let row = 0; row < from; row++)
        side.set(wide.subarray(row * columns, (row + 1) * columns), row * width + i * columns);
    });
    const { module } = layers[0];
    const a = b.floats(`lora/${module}/A_shared`, [from, width], side);
    const hidden = b.node('MatMul', [x, a], `lora/${module}/h_shared`);
    const names = layers.map((layer) => `lora/${layer.module}/h`);
    if (layers.length > 1) b.node('Split', [hidden], names, { axis: { int: -1 } });
    layers.forEach(({ module: at, weight, y, out }, i) => {
      const base = b.node('MatMul', [x, weight], `lora/${at}/base`);
      const factor = b.floats(`lora/${at}/B`, [columns, out], tallB(all[i], out));
      const h = layers.length > 1 ? names[i] : hidden;
      b.node('Add', [base, b.node('MatMul', [h, factor], `lora/${at}/d`)], y);
    });
  };
};

/** As `batched A, stacked B`, with the A of all layers that read x side by side in each block. */
const sharedBatched = (K, R) => {
  const random = uniform(11);
  return (b, x, layers) => {
    const all = layers.map((layer) => factors(layer, K, R, random));
    const from = layers[0].in;
    const width = layers.length * R;
    const side = new Float64Array(from * width);
    all.forEach(({ a }, i) => {
      for (let row = 0; row < from; row++)
        side.set(a.subarray(row * R, (row + 1) * R), row * width + i * R);
    });
    const { module } = layers[0];
    const at = (leaf) => `lora/${module}/${leaf}`;
    const a = b.floats(at('A_shared'), [K, from / K, width], side);
    const split = b.node('Reshape', [x, b.ints([-1, K, from / K])], at('x_split'));
    const blocks = b.node('Transpose', [split], at('x_blocks'), { perm: { ints: [1, 0, 2] } });
    const hidden = b.node('MatMul', [blocks, a], at('h_shared'));
    const apart = b.node('Reshape', [hidden, b.ints([K, -1, layers.length, R])], at('h_apart'));
    // [layers, N, K, R]
    const turned = b.node('Transpose', [apart], at('h_turned'), { perm: { ints: [2, 1, 0, 3] } });
    const names = layers.map((layer) => `lora/${layer.module}/h`);
    if (layers.length > 1) b.node('Split', [turned], names, { axis: { int: 0 } });
    layers.forEach(({ module: own, weight, y, out }, i) => {
      const base = b.node('MatMul', [x, weight], `lora/${own}/base`);
      const factor = b.floats(`lora/${own}/B`, [K * R, out], tallB(all[i], out));
      const h = layers.length > 1 ? names[i] : turned;
      const rows = b.node('Reshape', [h, b.ints([-1, K * R])], `lora/${own}/h_rows`);
      const d = b.node('MatMul', [rows, factor], `lora/${own}/d`);
      const shape = b.node('Shape', [base], `lora/${own}/y_shape`);
      b.node('Add', [base, b.node('Reshape', [d, shape], `lora/${own}/delta`)], y);
    });
  };
};

const all = {
  ...ways,
  'stacked, A shared': sharedStacked,
  'batched A shared, stacked B': sharedBatched,
};

/** A chain of linear layers of one shape and back, so that nothing but them is measured. */
async function chain(path, from, to, products) {
  const b = new ModelBuilder();
  const random = uniform(3);
  let x = b.input('x', 'float32', ['B', 'S', from]);
  let width = from;
  for (let i = 0; i < 8; i++) {
    const next = width === from ? to : from;
    const values = randomValues(width * next, random, 1 / Math.sqrt(width));
    const weight = b.floats(`w${i}`, [width, next], values);
    const layer = { module: `layers.${i}`, weight, y: `y${i}`, in: width, out: next };
    products(b, x, [layer]);
    // A bias, as every real layer has one: without it, runtimes would fuse what they cannot there.
    x = b.node(
      'Add',
      [b.floats(`b${i}`, [next], randomValues(next, random, 0.05)), `y${i}`],
      `z${i}`,
    );
    width = next;
  }
  b.output(x, 'float32', ['B', 'S', width]);
  await b.save(path);
  return { hidden: from };
}

async function compare(folder, shape, K) {
  const [from, to] = shape === 'encoder' ? [] : shape.split('x').map(Number);
  const build = (path, products) =>
    from ? chain(path, from, to, products) : encoder(path, { products });
  const chosen = args.only?.split(',').map((name) => name.trim());
  const names = Object.keys(all).filter((name) => !chosen || chosen.includes(name));
  const sessions = {};
  let hidden = 0;
  const open = async (name, products) => {
    const path = join(folder, 'model.onnx');
    ({ hidden } = await build(path, products));
    sessions[name] = await session(path, args.level, Number(args.threads));
  };
  await open('base', plainProducts);
  for (const name of names) await open(name, all[name](K, Number(args.rank)));
  // The same graph again: how far from 1 a ratio may be by chance.
  await open('base again', plainProducts);
  const rows = args.rows.split(',').map(Number);
  const random = uniform(5);
  const data = Float32Array.from({ length: rows[0] * rows[1] * hidden }, random);
  const feeds = { x: new ort.Tensor('float32', data, [...rows, hidden]) };
  const outputs = {};
  for (const [name, one] of Object.entries(sessions))
    outputs[name] = Object.values(await one.run(feeds))[0].data;
  const reference = outputs[names.includes('stacked') ? 'stacked' : names[0]];
  for (const name of names) {
    const difference = largestDifference(outputs[name], reference);
    if (!(difference < 1e-3)) throw new Error(`${name}: differs by ${difference}`);
  }
  const times = await timeInTurn(sessions, feeds, Number(args.rounds));
  for (const one of Object.values(sessions)) await one.release();
  return Object.fromEntries(
    Object.entries(times).map(([name, one]) => [name, against(one, times.base)]),
  );
}

const folder = mkdtempSync(join(tmpdir(), 'onnx-lora-bench-'));
const results = [];
try {
  for (const shape of args.shapes.split(',')) {
    const blocks = args.blocks.split(',').map(Number);
    const columns = [];
    for (const K of blocks) {
      const measured = await compare(folder, shape, K);
      columns.push(measured);
      results.push({ shape, blocks: K, measured });
    }
    console.log(
      `\n${shape}, R=${args.rank}, ${args.rows} rows, '${args.level}'; ratio to the base: median (p25–p75) cpu`,
    );
    table(
      ['formulation', 'base ms', ...blocks.map((K) => `K=${K}`)],
      Object.keys(columns[0]).map((name) => [
        name,
        columns[0][name].ms.median.toFixed(1),
        ...columns.map(
          (column) =>
            `${withSpread(column[name].ratio)} ${column[name].cpuRatio.median.toFixed(2)}`,
        ),
      ]),
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const { only, shapes, ...settings } = args;
if (!only) saveResults('formulations', { settings, results });
