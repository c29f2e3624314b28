/**
 * Models for the benches, written as streams: only one block of random numbers is ever in memory,
 * so a model of several GB costs no more than a small one.
 *
 *   node bench/models.mjs stack FILE [--layers 64] [--in 2048] [--out 2048] [--dtype float32] [--external]
 *   node bench/models.mjs encoder FILE
 */
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import onnxProto from 'onnx-proto';
import { byteLength, dataTypeNumber, fromFloat64 } from '../dist/src/onnx/dtype.js';
import { totalLength } from '../dist/src/onnx/edit.js';
import { initializerRecord, nodeRecord, record } from '../dist/src/onnx/encode.js';
import { GraphField, ModelField } from '../dist/src/onnx/fields.js';
import { writeFiles } from '../dist/src/onnx/write.js';

const { onnx } = onnxProto;

/** @typedef {import('../dist/src/onnx/edit.js').Piece} Piece */
/** @typedef {import('../dist/src/onnx/encode.js').AttributeValue} AttributeValue */

// What mmap can map on every platform: exporters align external tensors to it.
const ALIGNMENT = 64 * 1024;

/** Collects the records of a model; numbers stay generators until `save`. */
export class ModelBuilder {
  /** @type {Piece[]} */
  #nodes = [];
  /** @type {Piece[]} */
  #initializers = [];
  /** @type {Piece[]} */
  #values = [];
  /** @type {Piece[]} */
  #data = [];
  #offset = 0;
  /** @type {Map<string, string>} */
  #interned = new Map();

  /** @param {{ opset?: number, irVersion?: number, external?: boolean }} [options] */
  constructor({ opset = 17, irVersion = 8, external = false } = {}) {
    this.header = { opset, irVersion };
    this.external = external;
  }

  /**
   * Adds a node and gives the name of its (first) output.
   * @param {string} opType
   * @param {string[]} inputs
   * @param {string | string[]} outputs
   * @param {Record<string, AttributeValue>} [attributes]
   * @param {string} [domain]
   */
  node(opType, inputs, outputs, attributes = {}, domain = '') {
    const all = Array.isArray(outputs) ? outputs : [outputs];
    // As the PyTorch exporter does it: the node's name is its first output's without "_output_0".
    const name = all[0].replace(/_output_0$/, '');
    this.#nodes.push(...nodeRecord({ name, opType, domain, inputs, outputs: all, attributes }));
    return all[0];
  }

  /**
   * A large tensor: inline, or in the data file of an external model.
   * @param {string} name @param {string} dtype @param {number[]} dims @param {Piece} data
   */
  weight(name, dtype, dims, data) {
    if (!this.external) return this.constant(name, dtype, dims, data);
    const padding = (ALIGNMENT - (this.#offset % ALIGNMENT)) % ALIGNMENT;
    this.#data.push(new Uint8Array(padding), data);
    const offset = this.#offset + padding;
    const length = totalLength([data]);
    this.#offset = offset + length;
    // The name of the data file is known only when the model is saved.
    this.#initializers.push({ deferred: { name, dtype, dims, offset, length } });
    return name;
  }

  /** @param {string} name @param {string} dtype @param {number[]} dims @param {Piece} data */
  constant(name, dtype, dims, data) {
    this.#initializers.push(...initializerRecord({ name, dtype, dims, data }));
    return name;
  }

  /** @param {string} name @param {number[]} dims @param {ArrayLike<number>} values */
  floats(name, dims, values) {
    return this.constant(name, 'float32', dims, fromFloat64('float32', Float64Array.from(values)));
  }

  /** A shape or the like; equal ones share an initializer, as exporters do it. @param {number[]} values */
  ints(values) {
    const key = values.join();
    const known = this.#interned.get(key);
    if (known) return known;
    const name = `const_${key.replaceAll(',', '_').replaceAll('-', 'm')}`;
    this.#interned.set(key, name);
    const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    return this.constant(name, 'int64', [values.length], data);
  }

  /** @param {string} name @param {string} dtype @param {(number | string)[]} dims */
  input(name, dtype, dims) {
    this.#values.push(...record(GraphField.input, valueInfo(name, dtype, dims)));
    return name;
  }

  /** @param {string} name @param {string} dtype @param {(number | string)[]} dims */
  output(name, dtype, dims) {
    this.#values.push(...record(GraphField.output, valueInfo(name, dtype, dims)));
  }

  /**
   * Writes the model, and its data file beside it.
   * @param {string} path
   * @returns {Promise<number>} bytes of all files
   */
  async save(path) {
    const location = `${basename(path)}.data`;
    const initializers = this.#initializers.flatMap((piece) =>
      'deferred' in piece ? externalRecord(piece.deferred, location) : [piece],
    );
    const { irVersion, opset } = this.header;
    const header = onnx.ModelProto.encode({
      irVersion,
      producerName: 'onnx-lora bench',
      opsetImport: [
        { domain: '', version: opset },
        { domain: 'com.microsoft', version: 1 },
      ],
    }).finish();
    const name = onnx.GraphProto.encode({ name: 'main_graph' }).finish();
    const graph = record(ModelField.graph, ...this.#nodes, name, ...initializers, ...this.#values);
    const files = [{ path, pieces: [header, ...graph] }];
    if (this.external) files.unshift({ path: join(path, '..', location), pieces: this.#data });
    await writeFiles(files, [], { force: true });
    return files.reduce((sum, { pieces }) => sum + totalLength(pieces), 0);
  }
}

function valueInfo(name, dtype, dims) {
  const dim = dims.map((d) => (typeof d === 'string' ? { dimParam: d } : { dimValue: d }));
  const tensorType = { elemType: dataTypeNumber(dtype), shape: { dim } };
  return onnx.ValueInfoProto.encode({ name, type: { tensorType } }).finish();
}

function externalRecord({ name, dtype, dims, offset, length }, location) {
  const entries = { location, offset: String(offset), length: String(length) };
  const tensor = onnx.TensorProto.encode({
    name,
    dims,
    dataType: dataTypeNumber(dtype),
    dataLocation: onnx.TensorProto.DataLocation.EXTERNAL,
    externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
  });
  return record(GraphField.initializer, tensor.finish());
}

/** Uniform numbers from -1 to 1 (mulberry32). @param {number} seed */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** @param {number} count @param {() => number} random @param {number} [deviation] */
export function randomValues(count, random, deviation = 1) {
  const scale = deviation * Math.sqrt(3);
  return Float64Array.from({ length: count }, () => random() * scale);
}

/**
 * Cheap noise: one random block over and over, from another place in it for each tensor. Its
 * length is odd, so that no two rows of a weight with round sizes are the same.
 */
export class Noise {
  static ELEMENTS = 1024 * 1024 - 3;
  #blocks = new Map();

  /** Bytes of any value. @param {number} length @param {number} phase */
  codes(length, phase) {
    return this.#repeated(this.#bytes(), length, (phase * 7919) % Noise.ELEMENTS);
  }

  /** @param {string} dtype @param {number} count @param {number} deviation @param {number} phase */
  piece(dtype, count, deviation, phase) {
    const start = byteLength(dtype, (phase * 7919) % Noise.ELEMENTS);
    return this.#repeated(this.#block(dtype, deviation), byteLength(dtype, count), start);
  }

  #repeated(block, length, start) {
    return {
      length,
      *chunks() {
        for (let done = 0, at = start; done < length; at = 0) {
          const chunk = block.subarray(at, Math.min(block.length, at + length - done));
          done += chunk.length;
          yield chunk;
        }
      },
    };
  }

  #bytes() {
    if (!this.#blocks.has('bytes')) {
      const random = uniform(2);
      const bytes = Uint8Array.from({ length: Noise.ELEMENTS }, () => (random() + 1) * 128);
      this.#blocks.set('bytes', bytes);
    }
    return this.#blocks.get('bytes');
  }

  #block(dtype, deviation) {
    const key = `${dtype}/${deviation}`;
    if (!this.#blocks.has(key)) {
      const values = randomValues(Noise.ELEMENTS, uniform(1), deviation);
      this.#blocks.set(key, fromFloat64(dtype, values));
    }
    return this.#blocks.get(key);
  }
}

/**
 * A chain of MatMul, Add and Relu; where `in` and `out` differ, every second layer goes back.
 * @param {string} path
 * @param {{ layers?: number, in?: number, out?: number, dtype?: string, external?: boolean }} [options]
 * @returns {Promise<{ bytes: number, largestWeight: number }>}
 */
export async function linearStack(path, options = {}) {
  const { layers = 64, in: first = 2048, out = first, dtype = 'float32', external } = options;
  const b = new ModelBuilder({ external });
  const noise = new Noise();
  let x = b.input('x', dtype, ['N', first]);
  let width = first;
  for (let i = 0; i < layers; i++) {
    const next = i % 2 === 0 ? out : first;
    // He's deviation keeps the activations of a chain of Relus at one size.
    const data = noise.piece(dtype, width * next, Math.sqrt(2 / width), i);
    const weight = b.weight(`layers.${i}.weight`, dtype, [width, next], data);
    const bias = b.constant(
      `layers.${i}.bias`,
      dtype,
      [next],
      noise.piece(dtype, next, 0.02, layers + i),
    );
    const y = b.node('MatMul', [x, weight], `/layers.${i}/MatMul_output_0`);
    const z = b.node('Add', [bias, y], `/layers.${i}/Add_output_0`);
    x = i === layers - 1 ? z : b.node('Relu', [z], `/relu.${i}/Relu_output_0`);
    width = next;
  }
  b.output(x, dtype, ['N', width]);
  const bytes = await b.save(path);
  return { bytes, largestWeight: byteLength(dtype, first * out) };
}

/**
 * A linear layer of the encoder.
 * @typedef {{ module: string, weight: string, y: string, in: number, out: number }} Linear
 */

/**
 * How the encoder computes the products `x · W` of layers that read the same x. The default is one
 * MatMul each; formulations.mjs puts adapters there.
 * @typedef {(b: ModelBuilder, x: string, layers: Linear[]) => void} Products
 */

/** @type {Products} */
export const plainProducts = (b, x, layers) => {
  for (const { weight, y } of layers) b.node('MatMul', [x, weight], y);
};

/**
 * A BERT encoder as PyTorch's exporter writes it (opset 17): MatMul with an [in, out] weight, then
 * Add(bias, y); GELU in five nodes. The input is float [B, S, hidden]: no embeddings, which no
 * adapter touches.
 * @param {string} path
 * @param {{ hidden?: number, layers?: number, heads?: number, ffn?: number, products?: Products }} [options]
 */
export async function encoder(path, options = {}) {
  const {
    hidden = 384,
    layers = 6,
    heads = 12,
    ffn = 4 * hidden,
    products = plainProducts,
  } = options;
  const b = new ModelBuilder();
  const random = uniform(7);
  const scalar = (name, value) => b.floats(name, [], [value]);
  const [root, half, one, root2] = [
    scalar('sqrt_head', Math.sqrt(hidden / heads)),
    scalar('half', 0.5),
    scalar('one', 1),
    scalar('sqrt_2', Math.SQRT2),
  ];
  let matmuls = 0;
  /** Products of x with new weights, and their biases. @param {[string, number, number][]} sizes */
  const linears = (x, sizes) => {
    const all = sizes.map(([module, from, to]) => {
      const values = randomValues(from * to, random, 1 / Math.sqrt(from));
      // The exporter loses the names of weights that it transposes.
      const weight = b.floats(`onnx::MatMul_${800 + matmuls++}`, [from, to], values);
      return { module, weight, y: `/${module}/MatMul_output_0`, in: from, out: to };
    });
    products(b, x, all);
    return all.map(({ module, y, out }) => {
      const bias = b.floats(
        `${module.replaceAll('/', '.')}.bias`,
        [out],
        randomValues(out, random, 0.05),
      );
      return b.node('Add', [bias, y], `/${module}/Add_output_0`);
    });
  };
  const norm = (x, module) => {
    const name = module.replaceAll('/', '.');
    const gain = b.floats(
      `${name}.weight`,
      [hidden],
      randomValues(hidden, random, 0.05).map((v) => v + 1),
    );
    const shift = b.floats(`${name}.bias`, [hidden], randomValues(hidden, random, 0.05));
    return b.node(
      'LayerNormalization',
      [x, gain, shift],
      `/${module}/LayerNormalization_output_0`,
      {
        axis: { int: -1 },
        epsilon: { float: 1e-12 },
      },
    );
  };
  let x = b.input('x', 'float32', ['B', 'S', hidden]);
  for (let i = 0; i < layers; i++) {
    const at = `encoder/layer.${i}`;
    const self = `${at}/attention/self`;
    const qkv = ['query', 'key', 'value'].map((name) => [`${self}/${name}`, hidden, hidden]);
    const split = (value, leaf, perm) => {
      const shape = b.ints([0, 0, heads, hidden / heads]);
      const four = b.node('Reshape', [value, shape], `/${self}/Reshape${leaf}_output_0`);
      return b.node('Transpose', [four], `/${self}/Transpose${leaf}_output_0`, {
        perm: { ints: perm },
      });
    };
    const [q, k, v] = linears(x, qkv);
    const scores = b.node(
      'MatMul',
      [split(q, '', [0, 2, 1, 3]), split(k, '_1', [0, 2, 3, 1])],
      `/${self}/MatMul_output_0`,
    );
    const scaled = b.node('Div', [scores, root], `/${self}/Div_output_0`);
    const weights = b.node('Softmax', [scaled], `/${self}/Softmax_output_0`, { axis: { int: -1 } });
    const mixed = b.node(
      'MatMul',
      [weights, split(v, '_2', [0, 2, 1, 3])],
      `/${self}/MatMul_1_output_0`,
    );
    const rows = b.node('Transpose', [mixed], `/${self}/Transpose_3_output_0`, {
      perm: { ints: [0, 2, 1, 3] },
    });
    const context = b.node(
      'Reshape',
      [rows, b.ints([0, 0, hidden])],
      `/${self}/Reshape_3_output_0`,
    );
    const out = `${at}/attention/output`;
    const [o] = linears(context, [[`${out}/dense`, hidden, hidden]]);
    x = norm(b.node('Add', [o, x], `/${out}/Add_output_0`), `${out}/LayerNorm`);
    const [f] = linears(x, [[`${at}/intermediate/dense`, hidden, ffn]]);
    const act = `/${at}/intermediate/intermediate_act_fn`;
    const erf = b.node(
      'Erf',
      [b.node('Div', [f, root2], `${act}/Div_output_0`)],
      `${act}/Erf_output_0`,
    );
    const gate = b.node('Add', [erf, one], `${act}/Add_output_0`);
    const twice = b.node('Mul', [f, gate], `${act}/Mul_output_0`);
    const gelu = b.node('Mul', [twice, half], `${act}/Mul_1_output_0`);
    const [d] = linears(gelu, [[`${at}/output/dense`, ffn, hidden]]);
    x = norm(b.node('Add', [d, x], `/${at}/output/Add_output_0`), `${at}/output/LayerNorm`);
  }
  b.output(x, 'float32', ['B', 'S', hidden]);
  const bytes = await b.save(path);
  return { bytes, output: x, hidden };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      layers: { type: 'string' },
      in: { type: 'string' },
      out: { type: 'string' },
      dtype: { type: 'string' },
      external: { type: 'boolean' },
    },
  });
  const [kind, path] = positionals;
  if (!path || !['stack', 'encoder'].includes(kind)) {
    console.error('usage: node bench/models.mjs stack|encoder FILE [options]');
    process.exit(2);
  }
  const numbers = ['layers', 'in', 'out'].filter((key) => values[key] !== undefined);
  const sizes = Object.fromEntries(numbers.map((key) => [key, Number(values[key])]));
  const { bytes } = await (kind === 'encoder'
    ? encoder(path)
    : linearStack(path, { ...sizes, dtype: values.dtype, external: values.external }));
  console.log(`${path}: ${bytes} bytes`);
}
