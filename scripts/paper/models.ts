/** Two classifiers of digits, written as ONNX graphs with random weights. */
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import { GraphBuilder } from '../../src/graph/builder.js';
import { normal } from '../../src/random.js';

export const CLASSES = 10;
const PIXELS = 784;

export interface Classifier {
  readonly name: string;
  /** What it is made of, in a few words. */
  readonly recipe: string;
  /** The rank at which a plain adapter reaches every matrix. */
  readonly fullRank: number;
  readonly build: (random: RandomGenerator) => GraphBuilder;
}

export const classifiers: readonly Classifier[] = [
  { name: 'MLP', recipe: '784-256-256-10 with ReLU', fullRank: 256, build: mlp },
  {
    name: 'transformer',
    recipe: '2 layers of width 32, 4 heads, over 7 strips of 4 rows of the image',
    fullRank: 32,
    build: transformer,
  },
];

function mlp(random: RandomGenerator): GraphBuilder {
  const net = new Net(random);
  const hidden = [256, 256].reduce(
    (x, width, i) => net.graph.op('Relu', [net.linear(`hidden${i}`, x, i ? 256 : 784, width)]),
    'image',
  );
  return net.finish(net.linear('head', hidden, 256, CLASSES));
}

const TOKENS = 7;
const WIDTH = 32;
const HEADS = 4;

/** Blocks that normalize first, the mean over the tokens at the end. */
function transformer(random: RandomGenerator): GraphBuilder {
  const net = new Net(random);
  const { graph } = net;
  const rows = net.reshape('image', [-1, TOKENS, PIXELS / TOKENS]);
  const places = net.weight('places', [TOKENS, WIDTH], 0.1);
  const embedded = graph.op('Add', [net.linear('embed', rows, PIXELS / TOKENS, WIDTH), places]);
  const encoded = [0, 1].reduce((x, i) => block(net, `layer.${i}`, x), embedded);
  const mean = graph.op('ReduceMean', [net.norm('norm', encoded)], {
    axes: { ints: [1] },
    keepdims: { int: 0 },
  });
  return net.finish(net.linear('head', mean, WIDTH, CLASSES));
}

function block(net: Net, name: string, x: string): string {
  const { graph } = net;
  const y = graph.op('Add', [x, attention(net, name, net.norm(`${name}.norm1`, x))]);
  const up = net.linear(`${name}.up`, net.norm(`${name}.norm2`, y), WIDTH, 4 * WIDTH);
  return graph.op('Add', [y, net.linear(`${name}.down`, graph.op('Relu', [up]), 4 * WIDTH, WIDTH)]);
}

function attention(net: Net, name: string, x: string): string {
  const { graph } = net;
  const width = WIDTH / HEADS;
  const heads = (role: string, perm: readonly number[]) => {
    const all = net.linear(`${name}.${role}`, x, WIDTH, WIDTH);
    return graph.op('Transpose', [net.reshape(all, [-1, TOKENS, HEADS, width])], {
      perm: { ints: perm },
    });
  };
  const products = graph.op('MatMul', [heads('query', [0, 2, 1, 3]), heads('key', [0, 2, 3, 1])]);
  const scores = graph.op('Mul', [products, graph.scalar('float32', 1 / Math.sqrt(width))]);
  const weights = graph.op('Softmax', [scores], { axis: { int: -1 } });
  const mixed = graph.op('MatMul', [weights, heads('value', [0, 2, 1, 3])]);
  const merged = graph.op('Transpose', [mixed], { perm: { ints: [0, 2, 1, 3] } });
  return net.linear(`${name}.output`, net.reshape(merged, [-1, TOKENS, WIDTH]), WIDTH, WIDTH);
}

/** A graph under construction, from `image` [batch, 784] to `logits`. */
class Net {
  readonly graph = new GraphBuilder([{ domain: '', version: 17 }]);

  constructor(private readonly random: RandomGenerator) {
    this.graph.reserve('image');
    this.graph.inputs.push({ name: 'image', dtype: 'float32', shape: ['batch', PIXELS] });
  }

  /** `x · W + b`, W as He and others start it. */
  linear(name: string, x: string, inSize: number, outSize: number): string {
    const weight = this.weight(`${name}.weight`, [inSize, outSize], Math.sqrt(2 / inSize));
    const bias = this.weight(`${name}.bias`, [outSize], 0);
    const product = this.graph.op('MatMul', [x, weight], {}, `${name}/MatMul`);
    return this.graph.op('Add', [product, bias], {}, `${name}/Add`);
  }

  norm(name: string, x: string): string {
    const scale = this.graph.constant('float32', [WIDTH], new Array(WIDTH).fill(1));
    return this.graph.op('LayerNormalization', [x, scale], { axis: { int: -1 } }, name);
  }

  reshape(x: string, shape: readonly number[]): string {
    return this.graph.op('Reshape', [x, this.graph.integers(shape)]);
  }

  /** Normal numbers of the given deviation. */
  weight(name: string, dims: readonly number[], deviation: number): string {
    const values = new Float32Array(dims.reduce((a, b) => a * b, 1));
    for (let i = 0; i < values.length; i++) values[i] = deviation * normal(this.random);
    this.graph.addInitializer({
      name,
      dtype: 'float32',
      dims,
      data: new Uint8Array(values.buffer),
    });
    return name;
  }

  finish(logits: string): GraphBuilder {
    const name = this.graph.rename(logits, 'logits');
    this.graph.outputs.push({ name, dtype: 'float32', shape: ['batch', CLASSES] });
    return this.graph;
  }
}
