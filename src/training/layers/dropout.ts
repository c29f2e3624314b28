/**
 * Dropout on what adapters read, as PEFT has it: the layer itself sees its whole input. Random numbers
 * come in with the step, so that a resumed run draws the same ones: one vector for all layers, each of
 * which reads a stretch of its own.
 */

import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { kindOf } from '../../adapters/kinds/index.js';
import { tensorsOf } from '../../adapters/kinds/tensors.js';
import type { PatchedAdapter, Site } from '../../adapters/model/manifest.js';
import type { AttachedSite } from '../../adapters/model/patched.js';
import { OnnxLoraError } from '../../errors.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { ValueTypes } from '../../graph/value-type.js';
import { dataTypeNumber } from '../../onnx/dtype.js';
import type { NewNode } from '../../onnx/encode.js';
import type { Dim } from '../../onnx/model.js';
import { generatorFor } from '../../random.js';

/** The graph input with the random numbers: float32, uniform in [0, 1). */
export interface Noise {
  /** Name of the graph input that takes them. */
  readonly input: string;
  /** Number of elements. */
  readonly size: number;
}

// Layers start this far apart in the noise: far enough that no pattern of one meets another's.
const STRIDE = 4099;

export interface DropoutOptions {
  /** The share that is dropped. */
  readonly probability: number;
  /** Elements of a shape at its largest; undefined where it is not known. */
  elements(shape: readonly Dim[]): number | undefined;
}

/**
 * Lets adapters read `x · m / (1 - p)` in the place of x, with m = 0 for a share p of the numbers.
 * @returns how many random numbers a step needs, and which value replaces which one
 * @throws OnnxLoraError `unsupported` where the size of a layer's input is not known
 */
export function addDropout(
  graph: GraphBuilder,
  types: ValueTypes,
  sites: readonly AttachedSite[],
  options: DropoutOptions,
): { noise: Noise; dropped: ReadonlyMap<string, string> } {
  const producers = new Map(graph.nodes.flatMap((node) => node.outputs.map((o) => [o, node])));
  const dropped = new Map<string, string>();
  const name = graph.fresh('noise');
  let size = 0;
  for (const { adapter, site, target } of sites) {
    if (site.input !== undefined) throw withoutInput(site, target);
    const layer = producers.get(target.outputs[0]!);
    // It may be in the branch of an If that is never taken.
    if (!layer) continue;
    const input = inputOf(graph, site, layer, adapter);
    if (!dropped.has(input)) {
      const offset = dropped.size * STRIDE;
      const count = elementsOf(input, types, options);
      size = Math.max(size, offset + count);
      const noise = { input: name, offset };
      dropped.set(input, dropout(graph, types, input, noise, options.probability));
    }
    const left = dropped.get(input)!;
    readInstead(graph, site, input, left);
    const reader = kindOf(adapter).train.productReader?.(nodesOf(graph, site));
    if (reader) readProductOf(graph, reader, layer, { input, left });
  }
  graph.inputs.push({ name, dtype: 'float32', shape: [size] });
  const read = new Map([...dropped].map(([input, left]) => [left, input]));
  return { noise: { input: name, size }, dropped: read };
}

/** Dropout leaves the layer itself its whole input; inside one operator both read the same. */
function withoutInput({ node }: Site, { opType }: AttachedSite['target']): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `dropout: the adapter of ${node} is added to the weight inside ${opType}, where nothing can be dropped from what it reads alone`,
    { node, hint: 'Train without `dropout`, or start from the model before this fusion.' },
  );
}

/** The random numbers of a batch. */
export function noiseOf(seed: number, batch: number, length: number): Float32Array {
  const random = generatorFor(seed, 'dropout', String(batch));
  return Float32Array.from({ length }, () => uniformFloat64(random));
}

function nodesOf({ nodes }: GraphBuilder, site: Site): NewNode[] {
  return nodes.filter(({ name }) => site.nodes.includes(name));
}

/**
 * Values that both the layer and its adapter read, but for the weight. A product of integers reads it through a
 * quantizer: then what the adapter reads beside its own tensors and the layer's.
 */
function inputOf(graph: GraphBuilder, site: Site, layer: NewNode, adapter: PatchedAdapter): string {
  const nodes = nodesOf(graph, site);
  const tensors = tensorsOf(adapter).map(({ key }) => adapter[key]);
  const known = [...tensors, adapter.scaleTensor, adapter.weight, site.base, site.product];
  const own = new Set([...known, ...nodes.flatMap(({ outputs }) => outputs)]);
  const isInput = (name: string) => !own.has(name) && !graph.initializers.has(name);
  const read = nodes.flatMap(({ inputs }) => inputs).filter(isInput);
  return layer.inputs.find((name) => read.includes(name)) ?? read[0]!;
}

function elementsOf(input: string, types: ValueTypes, { elements }: DropoutOptions): number {
  const shape = types.get(input)?.shape;
  const count = shape ? elements(shape) : undefined;
  if (count !== undefined) return count;
  throw new OnnxLoraError('unsupported', `dropout: the size of ${input} is not known`, {
    hint: 'Export the model with fixed or named sizes, or train without `dropout`.',
  });
}

function dropout(
  graph: GraphBuilder,
  types: ValueTypes,
  input: string,
  { input: noiseInput, offset }: { input: string; offset: number },
  probability: number,
): string {
  const { dtype } = types.get(input)!;
  const start = graph.nodes.length;
  const op = (type: string, inputs: string[], attributes = {}) =>
    graph.op(type, inputs, attributes, `dropout/${type}`);
  const shape = op('Shape', [input]);
  // Not Size: where shapes are fixed, ONNX Runtime folds what follows from Shape alone.
  const size = op('ReduceProd', [shape], { keepdims: { int: 1 } });
  const end = op('Add', [size, graph.integers([offset])]);
  const range = [graph.integers([offset]), end, graph.integers([0])];
  const noise = op('Reshape', [op('Slice', [noiseInput, ...range]), shape], {
    allowzero: { int: 1 },
  });
  // Numbers below p are dropped: p of them are.
  const kept = op('Not', [op('Less', [noise, graph.scalar('float32', probability)])]);
  const mask = op('Cast', [kept], { to: { int: dataTypeNumber(dtype) } });
  const scaled = op('Mul', [mask, graph.scalar(dtype, 1 / (1 - probability))]);
  const result = op('Mul', [input, scaled]);
  const added = graph.nodes.splice(start);
  const producer = graph.nodes.findIndex(({ outputs }) => outputs.includes(input));
  graph.nodes.splice(producer + 1, 0, ...added);
  return result;
}

function readInstead(graph: GraphBuilder, { nodes }: Site, input: string, instead: string): void {
  for (const [i, node] of graph.nodes.entries()) {
    if (!nodes.includes(node.name)) continue;
    const inputs = node.inputs.map((name) => (name === input ? instead : name));
    graph.nodes[i] = { ...node, inputs };
  }
}

/** Lets a node read the product of what dropout left, without a bias, in the place of the layer's own. */
function readProductOf(
  graph: GraphBuilder,
  reader: NewNode,
  layer: NewNode,
  { input, left }: { input: string; left: string },
): void {
  const name = graph.fresh(`${layer.name || layer.outputs[0]}/dropout`);
  const inputs = layer.inputs.slice(0, 2).map((one) => (one === input ? left : one));
  const product = { ...layer, name, inputs, outputs: [name] };
  const reading = { ...reader, inputs: [name, ...reader.inputs.slice(1)] };
  graph.nodes.splice(graph.nodes.indexOf(reader), 1, product, reading);
}
