/** Other graphs made of valid ones: operators put between nodes, other operators, attributes and wires. */
import onnxProto from 'onnx-proto';
import {
  type Attribute,
  type NodeProto,
  node,
  type TensorProto,
  tensor,
} from '../../test/support/models.js';
import { oddInteger } from '../mutate/odd.js';
import type { Random } from '../random.js';

const { ModelProto } = onnxProto.onnx;
type ModelProto = onnxProto.onnx.IModelProto;
type Attributes = Readonly<Record<string, Attribute>>;

/** One to four changes. What is made has the form of a graph, and often enough a meaning. */
export function damageStructure(bytes: Uint8Array, random: Random): Uint8Array {
  const decoded = ModelProto.decode(bytes);
  const graph = new Structure(decoded, random);
  for (let i = random.below(3); i >= 0; i--) random.pick(changes)(graph);
  return ModelProto.encode(decoded).finish();
}

/** Axes and counts are small more often than not. */
function smallInteger(random: Random): number {
  return random.chance(0.9) ? random.below(6) - 2 : oddInteger(random);
}

const isOurs = (name?: string | null) => name?.startsWith('lora/') === true;

class Structure {
  readonly nodes: NodeProto[];
  readonly initializers: TensorProto[];
  readonly inputs: readonly string[];
  private made = 0;

  constructor(
    { graph }: ModelProto,
    readonly random: Random,
  ) {
    this.nodes = graph!.node as NodeProto[];
    this.initializers = graph!.initializer as TensorProto[];
    this.inputs = (graph!.input ?? []).map(({ name }) => name!);
  }

  /** A node that neither is part of an adapter nor has one: those have to be as their manifest says. */
  plainNode(): NodeProto {
    const isPlain = ({ name, output }: NodeProto) => ![name, ...output!].some((one) => isOurs(one));
    return this.random.pick(this.nodes.filter(isPlain));
  }

  fresh(): string {
    return `made ${this.made++}`;
  }

  values(): string[] {
    return [...this.inputs, ...this.nodes.flatMap(({ output }) => output ?? [])];
  }

  /** A constant of whole numbers, as axes, shapes, indices and sizes are. */
  integers(): string {
    const { random } = this;
    const count = random.pick([0, 1, 1, 1, 2, 2, 3]);
    const numbers = Array.from({ length: count }, () => smallInteger(random));
    return this.constant(tensor(this.fresh(), [count], numbers, 'int64'));
  }

  floats(): string {
    const { random } = this;
    const dims = random.chance(0.4)
      ? random.pick([[8], [2, 8], [8, 8], [4], [2, 2, 4]])
      : Array.from({ length: random.below(4) }, () => random.pick([1, 2, 3, 8]));
    return this.constant(tensor(this.fresh(), dims));
  }

  private constant(made: TensorProto): string {
    this.initializers.push(made);
    return made.name!;
  }

  /** What an operator reads beside its first input. */
  operand(kind: string): string {
    if (kind === 'i') return this.integers();
    if (kind === 'f') return this.floats();
    return kind === '-' ? '' : this.random.pick(this.values());
  }
}

type Change = (graph: Structure) => void;

const changes: readonly Change[] = [
  insert,
  insert,
  insert,
  insert,
  insert,
  retype,
  rewire,
  setAttribute,
  setDims,
];

/** A node between a value and those that read it. */
function insert(graph: Structure): void {
  const { random, nodes } = graph;
  const reader = graph.plainNode();
  const { input } = reader;
  if (!input?.length) return;
  const place = random.below(input.length);
  const made = graph.fresh();
  const type = random.pick(Object.keys(operators));
  const { operands = [''] } = operators[type]!;
  const rest = [...random.pick(operands)].map((kind) => graph.operand(kind));
  nodes.splice(
    nodes.indexOf(reader),
    0,
    node(type, [input[place]!, ...rest], made, attributesFor(graph, type), made),
  );
  input[place] = made;
}

function retype(graph: Structure): void {
  const type = graph.random.pick(Object.keys(operators));
  const [domain, opType] = type.includes(':') ? type.split(':') : ['', type];
  Object.assign(graph.plainNode(), { domain, opType });
}

function rewire(graph: Structure): void {
  const { input } = graph.plainNode();
  if (!input?.length) return;
  const kind = graph.random.pick(['i', 'f', 'v', 'v', 'v', '-']);
  input[graph.random.below(input.length)] = graph.operand(kind);
}

function setAttribute(graph: Structure): void {
  const made = graph.plainNode();
  const { attribute = [] } = node('', [], [], attributesFor(graph, made.opType ?? ''));
  const names = new Set(attribute!.map(({ name }) => name));
  const others = (made.attribute ?? []).filter(({ name }) => !names.has(name));
  made.attribute = [...others, ...attribute!];
}

/** The same numbers in another shape. */
function setDims(graph: Structure): void {
  const own = graph.initializers.filter(({ name }) => !isOurs(name));
  if (own.length === 0) return;
  const changed = graph.random.pick(own);
  const dims = (changed.dims ?? []).map(Number);
  const count = dims.reduce((a, b) => a * b, 1);
  changed.dims = graph.random.pick([[...dims].reverse(), [count], [1, ...dims], [...dims, 1]]);
}

/** Some of the attributes that an operator has, or one that it does not. */
function attributesFor({ random }: Structure, type: string): Attributes {
  const small = () => smallInteger(random);
  const all: Attributes = {
    axis: small(),
    axes: [small()],
    keepdims: random.below(2),
    perm: random.pick([
      [1, 0],
      [0, 2, 1],
      [0, 1],
    ]),
    to: random.pick([1, 6, 7, 9, 10, 11]),
    alpha: { float: random.pick([0, 0.5, -1, 1e38]) },
    mode: random.pick(['constant', 'edge', 'reflect', 'linear', 'nearest', 'cubic']),
    group: small(),
    kernel_shape: random.pick([[2], [1, 2], [2, 2], [random.below(4), random.below(4)]]),
    strides: [random.below(3), 1],
    pads: [0, 1, 0, random.below(3)],
    transA: random.below(2),
    transB: random.below(2),
    exclusive: random.below(2),
    reverse: random.below(2),
    largest: random.below(2),
    blocksize: small(),
    equation: random.pick(['ij,jk->ik', 'ij->ji', 'ii->i', '...j,jk->...k', 'ij,kj->ik', 'ij,ij']),
    reduction: random.pick(['none', 'add', 'mul', 'max']),
    num_outputs: 1,
    batch_dims: random.below(2),
    size: 3,
    p: random.pick([1, 2]),
  };
  const { attributes = '', must = '' } = operators[type] ?? {};
  const names = attributes.split(' ').filter((name) => name !== '' && random.chance(0.6));
  if (must !== '') names.push(must);
  if (random.chance(0.03)) names.push(random.pick(Object.keys(all)));
  return Object.fromEntries(names.map((name) => [name, all[name]!]));
}

interface Operator {
  /** Kinds of the inputs after the first, one way or another: values, integers, floats, or nothing. */
  readonly operands?: readonly string[];
  /** Attributes that it may have, and one that it has to have. */
  readonly attributes?: string;
  readonly must?: string;
}

const plain = [
  ...['Relu', 'Tanh', 'Sigmoid', 'Erf', 'Exp', 'Log', 'Neg', 'Abs', 'Sqrt', 'Reciprocal', 'Sin'],
  ...['Identity', 'Dropout', 'Floor', 'Sign', 'Selu', 'HardSwish', 'Softplus', 'Softsign', 'Atan'],
  ...['GlobalAveragePool', 'Not', 'Shape', 'Size', 'NonZero', 'IsNaN', 'Det', 'Gelu', 'Trilu'],
  ...['com.microsoft:QuickGelu', 'com.microsoft:Gelu'],
];
const ofTwo = ['Add', 'Sub', 'Mul', 'Div', 'Pow', 'Max', 'Min', 'Sum', 'Mean', 'Greater', 'PRelu'];
const reductions = ['Mean', 'Max', 'L2', 'Prod', 'LogSumExp', 'L1', 'Min', 'SumSquare'];
const withAxis = ['Softmax', 'LogSoftmax', 'Flatten', 'Hardmax', 'LpNormalization'];

const operators: Readonly<Record<string, Operator>> = {
  ...Object.fromEntries(plain.map((type) => [type, {}])),
  ...Object.fromEntries(ofTwo.map((type) => [type, { operands: ['v', 'f'] }])),
  ...Object.fromEntries(withAxis.map((type) => [type, { attributes: 'axis' }])),
  ...Object.fromEntries(
    reductions.map((type) => [`Reduce${type}`, { attributes: 'axes keepdims' }]),
  ),
  ReduceSum: { operands: ['', 'i'], attributes: 'keepdims' },
  Elu: { attributes: 'alpha' },
  Celu: { attributes: 'alpha' },
  LeakyRelu: { attributes: 'alpha' },
  ThresholdedRelu: { attributes: 'alpha' },
  HardSigmoid: { attributes: 'alpha' },
  Transpose: { attributes: 'perm' },
  Cast: { must: 'to' },
  ArgMax: { attributes: 'axis keepdims' },
  DepthToSpace: { must: 'blocksize' },
  SpaceToDepth: { must: 'blocksize' },
  LRN: { must: 'size' },
  LpPool: { attributes: 'strides pads p', must: 'kernel_shape' },
  MaxPool: { attributes: 'strides pads', must: 'kernel_shape' },
  AveragePool: { attributes: 'strides pads', must: 'kernel_shape' },
  Conv: { operands: ['f', 'ff'], attributes: 'strides pads group' },
  ConvTranspose: { operands: ['f'], attributes: 'strides pads group' },
  MatMul: { operands: ['v', 'f'] },
  Gemm: { operands: ['f', 'ff', 'v'], attributes: 'transA transB alpha' },
  'com.microsoft:FusedMatMul': { operands: ['v', 'f'], attributes: 'transA transB alpha' },
  Einsum: { operands: ['', 'v', 'f'], must: 'equation' },
  Concat: { operands: ['v', 'f'], must: 'axis' },
  Squeeze: { operands: ['', 'i'] },
  Unsqueeze: { operands: ['i', 'v'] },
  Reshape: { operands: ['i', 'v'] },
  Expand: { operands: ['i'] },
  Tile: { operands: ['i'] },
  Slice: { operands: ['ii', 'iii', 'iiii'] },
  Split: { operands: ['', 'i'], attributes: 'axis num_outputs' },
  Pad: { operands: ['i', 'if'], attributes: 'mode' },
  Gather: { operands: ['i', 'v'], attributes: 'axis' },
  GatherElements: { operands: ['i'], attributes: 'axis' },
  GatherND: { operands: ['i'], attributes: 'batch_dims' },
  ScatterElements: { operands: ['if'], attributes: 'axis reduction' },
  ScatterND: { operands: ['if'], attributes: 'reduction' },
  OneHot: { operands: ['if'], attributes: 'axis' },
  TopK: { operands: ['i'], attributes: 'axis largest' },
  CumSum: { operands: ['i'], attributes: 'exclusive reverse' },
  Resize: { operands: ['--i', '-f'], attributes: 'mode' },
  Where: { operands: ['vv', 'fv'] },
  Clip: { operands: ['ff', '-f'] },
  Mod: { operands: ['v'] },
  LayerNormalization: { operands: ['f', 'ff'], attributes: 'axis' },
  InstanceNormalization: { operands: ['ff'] },
  BatchNormalization: { operands: ['ffff'] },
  'com.microsoft:BiasGelu': { operands: ['f'] },
  'com.microsoft:SkipLayerNormalization': { operands: ['vf', 'vff'] },
};
