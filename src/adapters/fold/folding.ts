/**
 * Folds adapters into the weights of a model, as an edit. A weight that only adapted nodes use is
 * replaced in place: its bytes change and nothing else. A weight that other nodes use too, or that
 * is quantized, is left to them: the adapted nodes get a floating-point weight of their own.
 */

import { OnnxLoraError } from '../../errors.js';
import {
  type Constant,
  givesOtherNumbers,
  isComputing,
  isStep,
  storedTensor,
} from '../../graph/constants.js';
import type { NameAuthority } from '../../graph/names.js';
import { finalReaders } from '../../graph/readers.js';
import type { Use, Value } from '../../graph/uses.js';
import type { NewDataFile } from '../../onnx/data-file.js';
import { byteLength, type FloatName, isConvertible, toFloat64 } from '../../onnx/dtype.js';
import type { Computed, MessageEdit } from '../../onnx/edit.js';
import { type NewTensor, nodeRecord } from '../../onnx/encode.js';
import type { TensorPlace } from '../../onnx/external.js';
import { MAX_MESSAGE_BYTES } from '../../onnx/limits.js';
import { elementCount, type Node, nodeLabel, type Tensor } from '../../onnx/model.js';
import { addInitializer, graphEdit, setTensorData } from '../../onnx/rewrite.js';
import { encodeString } from '../../onnx/wire.js';
import type { OwnNumbers } from '../factors/factors.js';
import type { Factors } from '../factors/norms.js';
import type { AdapterShape } from '../model/manifest.js';
import { structureOf } from '../structure/structure.js';
import type { Addend, LinearLayer } from '../targets/index.js';
import { isComputed } from '../targets/weight.js';
import { type BaseWeight, storedWeight } from './base-weight.js';
import type { WeightContext } from './dequantize.js';
import { addendsOf, becomeProduct } from './float-product.js';
import type { FoldNorms, FoldRule } from './folded-weight.js';
import { layerWeight, numbersOfLayer } from './layer-weight.js';
import { isInIntegers, type QuantizedPolicy, refuseGrowth } from './quantized-policy.js';
import { requantized } from './requantize.js';
import { RowFactors } from './row-factors.js';
import { storedCodes } from './stored-codes.js';

/** ΔW of one adapter, its numbers read when they are needed. */
export interface Delta {
  /** Tells it from all others of the same fold. */
  readonly id: string;
  readonly record: AdapterShape;
  factors(): Factors;
  readonly own?: OwnNumbers | undefined;
  /** The way its kind combines W and ΔW. */
  readonly fold: FoldRule;
}

/** A layer and everything to fold into its weight. */
export interface FoldSite {
  readonly layer: LinearLayer;
  readonly module: string;
  readonly deltas: readonly Delta[];
}

/** The way a weight took the fold. */
export type FoldKind = 'in place' | 'split' | 'dequantized' | 'requantized';

/** One folded weight. The norms are known when the model is written. */
export interface Folded {
  readonly sites: readonly FoldSite[];
  readonly weight: string;
  readonly kind: FoldKind;
  readonly norms: FoldNorms;
}

/** The parts that go with the adapters. */
export interface Leaving {
  /** Their nodes. */
  readonly nodes: Iterable<Node>;
  /** The file for the numbers of tensors that replaced others. */
  readonly places: ReadonlyMap<Tensor, TensorPlace>;
  /** Tensors that stay as they are: what stays in the model gives them back. */
  readonly originals: ReadonlySet<Tensor>;
  /** The layer's own reading of a weight where a node of adapters reads it first. */
  ownUse(use: Use): Use;
}

export class Folding {
  readonly folded: Folded[] = [];
  private readonly rewired = new Map<Node, Set<number>>();
  /** Values that nodes read which did not before. */
  private readonly readNow = new Set<Value>();
  private readonly removed: Set<Node | Tensor>;
  private readonly changed = new Set<Tensor>();
  /** Floats in the place of integers go to a data file: the model would become too large with them. */
  private spills = false;

  constructor(
    private readonly context: WeightContext,
    private readonly root: MessageEdit,
    private readonly dataFile: NewDataFile,
    private readonly names: NameAuthority,
    private readonly leaving: Leaving,
    private readonly policy: QuantizedPolicy,
  ) {
    this.removed = new Set<Node | Tensor>(leaving.nodes);
  }

  /** Plans the folds of all layers. Weights are read when the edit is written. */
  plan(sites: readonly FoldSite[]): void {
    if (this.policy === 'keep')
      refuseGrowth(
        this.context,
        sites.map(({ layer }) => layer),
      );
    if (this.policy === 'dequantize') this.spills = this.growsBeyond(MAX_MESSAGE_BYTES, sites);
    for (const group of groupBy(sites, storageOf)) {
      const variants = groupBy(group, variantOf);
      if (variants.length === 1 && this.canReplace(group)) this.replace(group);
      else if (this.policy === 'requantize' && isInIntegers(group[0]!.layer))
        this.requantize(variants);
      else this.splitAll(variants);
    }
  }

  private growsBeyond(limit: number, sites: readonly FoldSite[]): boolean {
    const floats = sites
      .filter(({ layer }) => isInIntegers(layer))
      .map(({ layer: { weight } }) => byteLength(weight.dtype, weight.in * weight.out));
    return floats.reduce((sum, size) => sum + size, this.context.model.source.size) > limit;
  }

  private canReplace(group: readonly FoldSite[]): boolean {
    const { weight } = group[0]!.layer;
    const { constant, storedDtype } = weight;
    if (!constant || !isConvertible(storedDtype) || isComputed(weight)) return false;
    if (this.leaving.originals.has(constant.tensor)) return false;
    const adapted = new Map(group.map(({ layer }) => [layer.node, layer.weight.input]));
    const readers = finalReaders(this.context.values, constant);
    const staying = readers
      .filter(({ node }) => !node || !this.removed.has(node))
      .map((use) => this.leaving.ownUse(use));
    return staying.every(({ node, index }) => node !== undefined && adapted.get(node) === index);
  }

  private replace(group: readonly FoldSite[]): void {
    const { weight } = group[0]!.layer;
    const { tensor, graph, node } = weight.constant!;
    const base = storedWeight(this.context.reader, tensor, weight.storedDtype as FloatName);
    const data = this.fold(group, base, weight.transposed, 'in place');
    this.put({ tensor, graph, node, attribute: node?.attributes.get('value') }, data);
  }

  /** Writes other integers and scales in the place of those that the weight is stored in. */
  private requantize(variants: readonly (readonly FoldSite[])[]): void {
    const group = variants.flat();
    const layers = group.map(({ layer }) => layer);
    const isOne = variants.length === 1;
    const stored = isOne ? storedCodes(this.context, layers) : 'has adapters that differ';
    if (typeof stored === 'string') throw notRequantized(layers[0]!, stored);
    const { reader } = this.context;
    const { base, transposed } = numbersOfLayer(this.context, layers[0]!);
    const data = this.fold(group, base, transposed, 'requantized');
    const { norms } = this.folded.at(-1)!;
    const bytes = (place: TensorPlace) => reader.bytes(place.tensor);
    const scales = bytes(stored.scales);
    const sizes = { codes: bytes(stored.codes).length, scales: scales.length };
    const old = toFloat64(stored.scaleDtype, scales, elementCount(stored.scales.tensor.dims));
    const made = requantized({ base, transposed, data, norms }, stored, sizes, old);
    this.put(stored.codes, made.codes);
    this.put(stored.scales, made.scales);
  }

  /** Gives a stored tensor other numbers. */
  put(stored: TensorPlace, data: Computed): void {
    const place = this.leaving.places.get(stored.tensor) ?? stored;
    if (place.tensor.data.kind === 'external') this.dataFile.replace(place, data);
    else setTensorData(this.root, place, data);
    this.changed.add(stored.tensor);
  }

  /** Whether something was folded into a tensor where it is. */
  isFolded(tensor: Tensor): boolean {
    return this.changed.has(tensor);
  }

  /** Whether a tensor was taken out, since nothing reads it any more. */
  isRemoved(tensor: Tensor): boolean {
    return this.removed.has(tensor);
  }

  private splitAll(variants: readonly FoldSite[][]): void {
    for (const variant of variants) {
      for (const alike of groupBy(variant, (site) => this.layoutOf(site))) this.split(alike);
    }
    for (const { layer } of variants.flat()) {
      if (layer.weight.constant && !layer.product) this.removeUnused(layer.weight.constant);
    }
  }

  /** The layout of the weight before the steps that stay in front of a node. */
  private layoutOf({ layer }: FoldSite): string {
    const { constant } = layer.weight;
    if (!constant || layer.product) return '';
    const { transposed, dims } = layerWeight(this.context, layer, constant);
    return [transposed, ...dims].join();
  }

  private split(group: readonly FoldSite[]): void {
    const { layer } = group[0]!;
    const { constant } = layer.weight;
    if (!constant || layer.product) {
      this.replaceOperator(group);
      return;
    }
    const { base, transposed, dims } = layerWeight(this.context, layer, constant);
    const isSplit = !isInIntegers(layer) && !constant.steps.some(givesOtherNumbers);
    const data = this.fold(group, base, transposed, isSplit ? 'split' : 'dequantized');
    const name = this.addWeight(constant, base.dtype, dims, data);
    for (const { layer: site } of group) {
      // One node may read it through a Transpose, and another by a flag of its own.
      const { steps } = layerWeight(this.context, site, site.weight.constant!);
      const { node, index } = this.readerOf(site);
      const value = this.copySteps(node, steps, name);
      const edit = graphEdit(this.root, node.graph).child(node.field);
      edit.setPayload(node.inputFields[index]!, encodeString(value));
      this.markRewired(node, index);
    }
  }

  /** The input that reads a layer's weight when adapters have left: its node's, or that of one that stays. */
  private readerOf({ node, weight }: LinearLayer): { node: Node; index: number } {
    let reader = { node, index: weight.input };
    let name = node.inputs[weight.input]!;
    while (name !== weight.name) {
      const add = this.context.values.resolve(node.graph, name)!.producer!;
      if (!this.removed.has(add)) reader = { node: add, index: 0 };
      name = add.inputs[0]!;
    }
    return reader;
  }

  private addWeight(
    constant: Constant,
    dtype: FloatName,
    dims: readonly number[],
    data: Computed,
  ): string {
    const from = constant.tensor.name || constant.node?.outputs[0] || 'weight';
    const name = this.names.fresh(`${from}_merged`);
    const tensor = { name, dtype, dims, data };
    const stored = this.leaving.places.get(constant.tensor)?.tensor ?? constant.tensor;
    if (this.spills || stored.data.kind === 'external') this.dataFile.add(tensor);
    else addInitializer(this.root, this.context.model, tensor);
    return name;
  }

  /** Repeats the nodes between a stored weight and its use in front of one user. */
  private copySteps(node: Node, steps: readonly Node[], weight: string): string {
    let value = weight;
    const graph = graphEdit(this.root, node.graph);
    for (const step of steps) {
      if (step.opType === 'Identity') continue;
      const output = this.names.fresh(`${value}_${step.opType.toLowerCase()}`);
      const to = step.attributes.get('to')?.i;
      const attributes = to === undefined ? { perm: { ints: [1, 0] } } : { to: { int: to } };
      const copy = {
        name: output,
        opType: step.opType,
        inputs: [value],
        outputs: [output],
        attributes,
      };
      graph.insertBefore(node.field, ...nodeRecord(copy));
      value = output;
    }
    return value;
  }

  /** A layer that is quantized inside its operator, or multiplies integers, becomes a product of floats. */
  private replaceOperator(group: readonly FoldSite[]): void {
    for (const site of group) {
      const { node, weight, input, product } = site.layer;
      const { base } = numbersOfLayer(this.context, site.layer);
      const data = this.fold([site], base, false, 'dequantized');
      const name = this.names.fresh(`${weight.name}_merged`);
      const dims = [weight.in, weight.out];
      this.addBeside(site.layer, { name, dtype: weight.dtype, dims, data });
      const { root, names, context } = this;
      becomeProduct({ root, names, model: context.model }, site.layer, name);
      this.readFrom(node, [input, ...addendsOf(site.layer).flatMap(valuesOf)]);
      const given = product ? node.inputs : node.inputs.slice(1);
      node.inputs.forEach((value, index) => {
        if (index > 0 || value !== input) this.markRewired(node, index);
      });
      for (const value of given) this.removeUnusedValue(node, value);
    }
  }

  /** A new weight, in a data file where one that the layer reads is in one. */
  private addBeside({ node, weight }: LinearLayer, tensor: NewTensor): void {
    const isOutside = [weight.name, ...node.inputs].some((name) => {
      const stored = storedTensor(this.context.values, node.graph, name)?.tensor;
      return stored?.data.kind === 'external';
    });
    if (this.spills || isOutside) this.dataFile.add(tensor);
    else addInitializer(this.root, this.context.model, tensor);
  }

  private readFrom({ graph }: Node, names: readonly string[]): void {
    for (const name of names) {
      const value = this.context.values.resolve(graph, name);
      if (value) this.readNow.add(value);
    }
  }

  private fold(
    group: readonly FoldSite[],
    base: BaseWeight,
    transposed: boolean,
    kind: FoldKind,
  ): Computed {
    const { weight } = group[0]!.layer;
    const norms: FoldNorms = { delta: 0, weight: 0 };
    const { deltas } = group[0]!;
    const label = nodeLabel(group[0]!.layer.node);
    const rowFactors = ({ record, factors }: Delta, divisor: number) =>
      new RowFactors(structureOf(record), factors(), record.scale / divisor, transposed);
    this.folded.push({ sites: group, weight: tensorName(weight), kind, norms });
    const { fold } = deltas[0]!;
    const own = deltas.map(({ record, own: numbers = {} }) => ({
      first: record.part?.first ?? 0,
      numbers,
    }));
    return fold({
      ...{ weight: base, own, factor: weight.factor, transposed, norms, label },
      deltas: (divisor) => deltas.map((delta) => rowFactors(delta, divisor)),
    });
  }

  private valueOf({ graph, tensor, node }: Constant): Value | undefined {
    return this.context.values.resolve(graph, node ? node.outputs[0]! : tensor.name);
  }

  private markRewired(node: Node, index: number): void {
    const inputs = this.rewired.get(node) ?? new Set();
    this.rewired.set(node, inputs.add(index));
  }

  /** Removes the nodes and the tensor behind a weight that nobody reads any more. */
  private removeUnused(constant: Constant): void {
    for (const step of [...constant.steps].reverse()) {
      if (!this.isUnused(this.context.values.resolve(step.graph, step.outputs[0]!))) return;
      if (this.removed.has(step)) continue;
      this.removed.add(step);
      graphEdit(this.root, step.graph).remove(step.field);
      for (const name of step.inputs) this.removeUnusedValue(step, name);
    }
    this.removeStored(this.valueOf(constant));
  }

  private removeUnusedValue(node: Node, name: string): void {
    const value = this.context.values.resolve(node.graph, name);
    const made = value?.producer;
    if (!made || !(isStep(made) || isComputing(made) || isQuantizing(made))) {
      this.removeStored(value);
    } else if (this.areUnused(made) && !this.removed.has(made)) {
      this.removed.add(made);
      graphEdit(this.root, made.graph).remove(made.field);
      for (const input of made.inputs) this.removeUnusedValue(made, input);
    }
  }

  private removeStored(value: Value | undefined): void {
    if (!value || !this.isUnused(value) || value.isInput) return;
    const { producer, initializer, graph } = value;
    const stored = initializer ?? (producer?.inputs.length === 0 ? producer : undefined);
    if (!stored || this.removed.has(stored) || this.isOriginal(stored)) return;
    this.removed.add(stored);
    graphEdit(this.root, graph).remove(stored.field);
  }

  private isOriginal(stored: Node | Tensor): boolean {
    const tensor = 'opType' in stored ? stored.attributes.get('value')?.tensor : stored;
    return tensor !== undefined && this.leaving.originals.has(tensor);
  }

  private areUnused({ graph, outputs }: Node): boolean {
    return outputs.every((name) => this.isUnused(this.context.values.resolve(graph, name)));
  }

  private isUnused(value: Value | undefined): boolean {
    if (value && this.readNow.has(value)) return false;
    return (value?.uses ?? []).every(({ node, index }) => {
      return (
        node !== undefined &&
        (this.removed.has(node) || (this.rewired.get(node)?.has(index) ?? false))
      );
    });
  }
}

/** Name of the tensor that holds a weight, or of what the node reads. */
export function tensorName({ constant, name }: LinearLayer['weight']): string {
  return constant?.tensor.name || name;
}

/** Whether a node is one of those that stand around a product of integers, or that product. */
function isQuantizing({ opType }: Node): boolean {
  return INTEGER_OPERATORS.has(opType);
}

const INTEGER_OPERATORS = new Set([
  'DequantizeLinear',
  'DynamicQuantizeLinear',
  'Gemm',
  'MatMul',
  'MatMulInteger',
  'QGemm',
  'QLinearAdd',
  'QLinearMatMul',
  'QuantizeLinear',
]);

function notRequantized({ node, product }: LinearLayer, problem: string): OnnxLoraError {
  const label = nodeLabel(product?.node ?? node);
  return new OnnxLoraError(
    'unsupported',
    `${label}: its weight ${problem}, and cannot be quantized again`,
    {
      node: label,
      hint: 'With `quantized: dequantize` such weights become floats.',
    },
  );
}

function valuesOf({ value, scales, zeroPoint }: Addend): string[] {
  return [value, ...scales, zeroPoint];
}

function storageOf({ layer }: FoldSite): unknown {
  return layer.weight.constant?.tensor ?? layer.node;
}

/** Sites that one folded weight can serve. */
function variantOf({ layer, deltas }: FoldSite): unknown {
  const { transposed, factor, dtype } = layer.weight;
  return [transposed, factor, dtype, ...deltas.map(({ id }) => id)].join('\0');
}

function groupBy<T>(items: readonly T[], key: (item: T) => unknown): T[][] {
  const groups = new Map<unknown, T[]>();
  for (const item of items) {
    const group = groups.get(key(item));
    if (group) group.push(item);
    else groups.set(key(item), [item]);
  }
  return [...groups.values()];
}
