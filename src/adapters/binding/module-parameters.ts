/** Parameters of PyTorch modules that were trained whole, and the constants that hold them in a model. */

import { type Constant, storedTensor, traceConstant } from '../../graph/constants.js';
import { finalReaders, readersBehind } from '../../graph/readers.js';
import type { Use } from '../../graph/uses.js';
import { byteLength, type FloatName, isConvertible } from '../../onnx/dtype.js';
import { ExternalFiles } from '../../onnx/external.js';
import { elementCount, type Node, nodeLabel, type Tensor } from '../../onnx/model.js';
import { dtypeOf, TensorReader } from '../../onnx/tensor.js';
import type { NewBias } from '../edit/added-bias.js';
import { biasOf } from '../edit/bias.js';
import type { ReplacingTensor } from '../edit/replaced.js';
import { transposed } from '../factors/plain.js';
import type { ModuleParameter } from '../files/module-parameter.js';
import type { Layer } from '../model/layers.js';
import type { Share } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import { finiteBytes } from '../structure/finite.js';
import type { LinearLayer, Weight } from '../targets/index.js';
import { modulePath } from '../targets/module-path.js';
import { isFoldedIntoConv } from '../targets/weight-name.js';
import { isCallOf, type ModuleIndex, withoutCall } from './module-match.js';
import type { Unmatched } from './unbound.js';

/** A constant of the model that holds a parameter. */
interface Home {
  /** Its name in the main graph. */
  readonly name: string;
  readonly tensor: Tensor;
  readonly dtype: FloatName;
  /** The linear layer that multiplies with it; undefined for tensors of other operators. */
  readonly weight: Weight | undefined;
  /** Why it may not get other numbers. */
  readonly foreign: string | undefined;
  /** The part of it that is the module's, where others read it too. */
  readonly share: Share | undefined;
}

/** Knowledge of a model when parameters are bound. */
export interface ModelIndex {
  readonly patched: PatchedModel;
  readonly layers: ModuleIndex<Layer>;
  /** Nodes by the module that they themselves say they come from. */
  readonly nodes: ModuleIndex<Node>;
}

/** Nodes of the main graph by module, from their own names and metadata. */
export function addNodes({ patched, nodes }: ModelIndex): void {
  for (const node of patched.model.graph.nodes) {
    const path = ownPath(node);
    if (path !== '' && !patched.ownNodes.has(node.name)) nodes.add(withoutCall(path), node);
  }
}

function ownPath(node: Node): string {
  return modulePath(node, '', '');
}

/**
 * The new numbers of the constant of one parameter.
 * @param path the module's path in the graph
 * @param changes of the same parameter: at most one that replaces it, any number that add to it
 * @returns undefined where the model has these numbers already
 */
export function bindParameter(
  index: ModelIndex,
  path: string | undefined,
  changes: readonly ModuleParameter[],
): ReplacingTensor | NewBias | Unmatched | undefined {
  const { parameter } = changes[0]!;
  const home = findHome(index, path, changes[0]!.module, parameter);
  if (!('tensor' in home)) {
    const layer = parameter === 'bias' && home.isMissing ? bareLayer(index, path) : undefined;
    return layer ? newBias(path!, layer, changes) : home;
  }
  for (const change of changes) {
    const problem = shapeProblem(change, home);
    if (problem !== undefined) return { problem, isMissing: false };
  }
  const { name, dtype, tensor } = home;
  const { model } = index.patched;
  const replaced = changes.find(({ change }) => change === 'replace');
  const chunks = function* () {
    const base = replaced ? [] : [withReader(model, (reader) => reader.float64(tensor))];
    const numbers = sum([...base, ...changes.map((change) => asStored(change, home))]);
    yield finiteBytes(dtype, numbers, `${changes[0]!.module}: its ${parameter}`);
  };
  // PEFT saves layers beside embeddings whether they were trained or not.
  if (changes.length === 1 && replaced) {
    const [bytes] = chunks();
    const stored = withReader(model, (reader) => reader.bytes(tensor));
    if (Buffer.from(stored).equals(bytes!)) return undefined;
  }
  if (home.foreign !== undefined) return { problem: home.foreign, isMissing: false };
  const length = byteLength(dtype, elementCount(tensor.dims));
  const replacing = { dtype, dims: tensor.dims, data: { length, chunks } };
  const { share } = home;
  if (!share) return { name, ...replacing };
  return {
    name: `${share.module}.${parameter}`,
    ...replacing,
    share: { original: name, ...share },
  };
}

/** The one layer of a path, where a bias can be added along the last axis of its output. */
function bareLayer({ patched, layers }: ModelIndex, path?: string): LinearLayer | undefined {
  const [layer, ...others] = path === undefined ? [] : layers.at(path).flatMap((one) => one.linear);
  if (!layer || others.length > 0) return undefined;
  const { node, geometry } = layer;
  const isAlongLast = geometry.kind === 'matrix' && !geometry.outputColumns;
  return isAlongLast && node.graph === patched.model.graph ? layer : undefined;
}

/** A bias of zeros that the exporter left out, with its new numbers; undefined where they are zeros still. */
function newBias(
  path: string,
  { node, weight }: LinearLayer,
  changes: readonly ModuleParameter[],
): NewBias | Unmatched | undefined {
  const misfit = changes.find(({ shape }) => shape.join() !== String(weight.out));
  if (misfit) {
    const problem = `it has the shape [${misfit.shape.join(', ')}], the layer gives ${weight.out} features`;
    return { problem, isMissing: false };
  }
  const values = () => sum(changes.map((change) => change.values()));
  if (values().every((value) => value === 0)) return undefined;
  const owner = /^(.+)\.weight$/.exec(weight.name)?.[1] ?? path;
  return { node, name: `${owner}.bias`, dtype: weight.dtype, size: weight.out, values };
}

/** The data files are opened for one read: the numbers are asked for when the model is written. */
function withReader<T>(model: PatchedModel['model'], read: (reader: TensorReader) => T): T {
  const files = new ExternalFiles(model);
  try {
    return read(new TensorReader(model, files));
  } finally {
    files.close();
  }
}

function sum([first, ...others]: readonly Float64Array[]): Float64Array {
  if (others.length === 0) return first!;
  return first!.map((value, i) => others.reduce((total, other) => total + other[i]!, value));
}

/** The numbers in the layout of the stored tensor. */
function asStored(change: ModuleParameter, { weight }: Home): Float64Array {
  const values = change.values();
  if (!weight) return values;
  const isTransposed = change.shape[0] !== weight.out;
  const [rows, columns] = isTransposed ? [weight.in, weight.out] : [weight.out, weight.in];
  const stored = isTransposed === weight.transposed ? transposed(values, rows, columns) : values;
  return weight.factor === 1 ? stored : stored.map((value) => value / weight.factor);
}

function shapeProblem(change: ModuleParameter, { weight, tensor, name }: Home): string | undefined {
  const given = withoutOnes(change.shape);
  const fits = (...sizes: number[]) => given.join() === withoutOnes(sizes).join();
  const found = `it has the shape [${change.shape.join(', ')}]`;
  if (!weight) {
    if (fits(...tensor.dims)) return undefined;
    return `${found}, ${name} has [${tensor.dims.join(', ')}]; a model whose vocabulary was resized has to be exported after that`;
  }
  const straight = fits(weight.out, weight.in);
  const crosswise = change.mayBeTurned && fits(weight.in, weight.out);
  if (straight && crosswise) {
    return `${found}, which with fan_in_fan_out may be [in, out] or [out, in]`;
  }
  if (straight || crosswise) return undefined;
  return `${found}, the layer has [${weight.out}, ${weight.in}]`;
}

function withoutOnes(shape: readonly number[]): number[] {
  return shape.filter((size) => size !== 1);
}

function findHome(
  index: ModelIndex,
  path: string | undefined,
  module: string,
  parameter: string,
): Home | Unmatched {
  const named = namedHome(index, path, module, parameter);
  if (named && (!('tensor' in named) || named.foreign === undefined)) return named;
  const constant = path === undefined ? undefined : constantOf(index, path, parameter);
  if (typeof constant === 'object') {
    const name = constant.tensor.name || constant.node!.outputs[0]!;
    return checkedHome(index, path!, parameter, { name, constant });
  }
  if (named) return named;
  if (constant !== undefined) return { problem: constant, isMissing: false };
  return { problem: `the model has no constant for its ${parameter}`, isMissing: true };
}

/**
 * The home that has the parameter's name. Of tied weights exporters keep one name, and may fold a Transpose
 * into a second tensor: the name alone is not enough.
 */
function namedHome(
  index: ModelIndex,
  path: string | undefined,
  module: string,
  parameter: string,
): Home | Unmatched | undefined {
  const { values, model } = index.patched;
  for (const owner of new Set([path ?? module, module])) {
    const name = `${owner}.${parameter}`;
    if (!storedTensor(values, model.graph, name)) continue;
    const constant = traceConstant(values, model.graph, name)!;
    return checkedHome(index, path ?? module, parameter, { name, constant });
  }
  return undefined;
}

/** Which input of an operator is a module's weight or bias. */
const inputOf: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  weight: { Gather: 0, LayerNormalization: 1, InstanceNormalization: 1, GroupNormalization: 1 },
  bias: {
    LayerNormalization: 2,
    InstanceNormalization: 2,
    GroupNormalization: 2,
    Conv: 2,
    Gemm: 2,
  },
};

/** The one constant that the module's layer or operator reads as its weight or bias. */
function constantOf(
  { patched, layers, nodes }: ModelIndex,
  path: string,
  parameter: string,
): Constant | string | undefined {
  const { values } = patched;
  const linear = layers.at(path).flatMap((layer) => layer.linear);
  const weights = linear.map(({ weight }) => weight.constant);
  if (parameter === 'weight' && weights.length > 0) {
    const [first, ...others] = new Map(weights.map((one) => [one?.tensor, one])).values();
    if (others.length > 0) return `several layers of the model are ${path}`;
    return first ?? 'its weight is quantized inside its operator, and cannot be replaced';
  }
  const biases = linear.flatMap((layer) => {
    const found = parameter === 'bias' ? biasOf(patched, layer) : undefined;
    return found ? [traceConstant(values, found.reader.graph, found.name)!] : [];
  });
  if (biases.length > 0) return biases[0];
  const found = nodes.at(path).flatMap((node) => {
    const input = inputOf[parameter]?.[node.opType];
    const name = input === undefined ? undefined : node.inputs[input];
    return name ? (traceConstant(values, node.graph, name) ?? []) : [];
  });
  const tensors = new Set(found.map(({ tensor }) => tensor));
  return tensors.size > 1 ? `several operators of the model are ${path}` : found[0];
}

/**
 * Only the module itself should read the tensor: PyTorch keeps one for each module. Of a tensor that others
 * read too it has a share.
 */
function checkedHome(
  index: ModelIndex,
  path: string,
  parameter: string,
  { name, constant }: { readonly name: string; readonly constant: Constant },
): Home | Unmatched {
  const { patched, layers } = index;
  const { model } = patched;
  const { tensor, graph, steps } = constant;
  const problem = (text: string) => ({ problem: text, isMissing: false });
  if (graph !== model.graph) return problem(`${name} is in the body of an If, Loop or Scan`);
  if (constant.overridable) return problem(`${name} is an input of the model with a default`);
  const dtype = dtypeOf(tensor, model);
  if (!isConvertible(dtype) || steps.some(({ opType }) => opType === 'DequantizeLinear')) {
    return problem(`${name} is quantized (${dtype}); start from the model before quantization`);
  }
  const uses = finalReaders(patched.values, constant);
  const own = uses.filter((use) => belongsTo(use, path, uses.length));
  const readers = new Set((own.length > 0 ? own : uses).map(({ node }) => node));
  const layer = layers
    .paths()
    .flatMap((one) => layers.at(one))
    .flatMap(({ linear }) => linear)
    .find(({ node, weight }) => readers.has(node) && weight.constant?.tensor === tensor);
  const share = shareOf(index.patched, path, parameter, constant);
  const foreign = foreignProblem(path, name, share ? own : uses);
  return { name, tensor, dtype, weight: layer?.weight, foreign, share };
}

/**
 * The readers that belong to a module, of a tensor that others read too, as a head does that is tied to the
 * embeddings; undefined where that is not known of every node, or where one step serves both.
 */
function shareOf(
  patched: PatchedModel,
  module: string,
  parameter: string,
  { tensor, graph, node }: Constant,
): Share | undefined {
  const { values } = patched;
  const uses = values.resolve(graph, node ? node.outputs[0]! : tensor.name)?.uses ?? [];
  const sides = uses.map((use) => {
    const ends = readersBehind(values, use);
    const isKnown = (end: Use) =>
      end.node && ownPath(end.node) && !patched.ownNodes.has(end.node.name);
    if (!ends.every(isKnown)) return undefined;
    const own = ends.filter((end) => belongsTo(end, module, 2));
    if (own.length === 0) return { use, isOwn: false };
    return own.length === ends.length ? { use, isOwn: true } : undefined;
  });
  const readers = sides.flatMap((side) =>
    side?.isOwn ? [{ node: patched.label(side.use.node!), input: side.use.index }] : [],
  );
  const isShared = readers.length > 0 && readers.length < sides.length;
  return isShared && sides.every((side) => side) ? { module, parameter, readers } : undefined;
}

/** Why a constant is not, or not only, the module's own. */
function foreignProblem(path: string, name: string, uses: readonly Use[]): string | undefined {
  const other = uses.find((use) => !belongsTo(use, path, uses.length));
  if (other) {
    const by = other.node ? nodeLabel(other.node) : 'the graph as an output';
    return `${name} is read by ${by} too, which is another module's`;
  }
  if (uses.some(({ node }) => isFoldedIntoConv(node, name))) {
    return `the exporter has folded a batch normalization into ${name}`;
  }
  // The path of a folded normalization is on the convolution, which keeps the names of its own.
  const owner = /^(.+)\.(weight|bias)$/.exec(name)?.[1] ?? path;
  const isOwn = `.${path}`.endsWith(`.${owner}`) || `.${owner}`.endsWith(`.${path}`);
  const inConv = uses.some(({ node }) => node?.opType === 'Conv');
  return inConv && !isOwn ? `the constant in its place is ${name}` : undefined;
}

/** A node that does not say where it comes from is trusted where it is the only reader. */
function belongsTo({ node }: Use, path: string, readers: number): boolean {
  if (!node) return false;
  const own = ownPath(node);
  return own === '' ? readers === 1 : isCallOf(path, own);
}
