/**
 * Biases that train with the adapters (PEFT's `bias="lora_only"`). They are the model's own tensors, so
 * the manifest keeps the records they had: taking the adapters out puts these bytes back.
 */
import { OnnxLoraError } from '../errors.js';
import type { MessageEdit } from '../onnx/edit.js';
import { initializerRecord, type NewTensor } from '../onnx/encode.js';
import { type Model, type Node, nodeLabel, type Tensor } from '../onnx/model.js';
import { parseInitializer } from '../onnx/parse.js';
import { MemorySource } from '../onnx/source.js';
import { dtypeOf } from '../onnx/tensor.js';
import type { AdapterFile } from './adapter-file.js';
import { findLayers } from './layers.js';
import { invalidManifest, type ModelManifest, type TrainedBias } from './manifest.js';
import type { AttachedSite, PatchedModel } from './patched.js';
import type { LinearLayer } from './targets/index.js';

/**
 * The biases of a set's layers: vectors that are added to a layer's output and to nothing else; and the
 * names of the nodes that have none.
 * @throws OnnxLoraError `unsupported` where no layer has one, or other nodes read one too
 */
export function biasesOf(
  patched: PatchedModel,
  set: ModelManifest,
): { biases: Tensor[]; without: string[] } {
  const without: string[] = [];
  const found = new Map<Tensor, Set<Node>>();
  const layers = new Map(
    findLayers(patched).flatMap((l) => l.linear.map((one) => [one.node, one])),
  );
  for (const site of patched.sites.filter((one) => one.set === set)) {
    const layer = layers.get(site.target);
    const bias = layer && biasOf(patched, layer, site);
    if (!bias) {
      without.push(site.site.node);
      continue;
    }
    const readers = found.get(bias.tensor) ?? new Set();
    found.set(bias.tensor, readers.add(bias.reader));
  }
  if (found.size === 0) {
    throw new OnnxLoraError(
      'unsupported',
      `${patched.model.source.label}: no adapted layer has a bias, expected constant vectors behind them`,
      { hint: 'Train without --train-bias.' },
    );
  }
  for (const [tensor, readers] of found) checkReaders(patched, tensor, readers);
  return { biases: [...found.keys()], without };
}

/** The third operand of Gemm and Conv, or the constant that the next node adds. */
function biasOf(
  patched: PatchedModel,
  { node: target, geometry }: LinearLayer,
  { adapter }: AttachedSite,
) {
  const { values, model } = patched;
  const vector = (node: Node, name: string | undefined) => {
    const value = name === undefined ? undefined : values.resolve(node.graph, name);
    const { initializer: tensor, graph } = value ?? {};
    const isVector = tensor?.dims.length === 1 && tensor.dims[0] === adapter.out;
    return isVector && graph === model.graph ? { tensor, reader: node } : undefined;
  };
  if (geometry.kind === 'channels') return vector(target, target.inputs[2]);
  // A vector is added along the last axis.
  if (geometry.outputColumns) return undefined;
  if (target.opType === 'Gemm') {
    const own = vector(target, target.inputs[2]);
    if (own) return own;
  }
  const last = patched.outermost(target);
  const uses = patched.values.resolve(last.graph, last.outputs[0]!)?.uses ?? [];
  const [use, ...others] = uses;
  if (use?.node?.opType !== 'Add' || others.length > 0) return undefined;
  return vector(use.node, use.node.inputs[1 - use.index]);
}

function checkReaders(patched: PatchedModel, tensor: Tensor, readers: ReadonlySet<Node>): void {
  const uses = patched.values.resolve(patched.model.graph, tensor.name)?.uses ?? [];
  const other = uses.find(({ node }) => !node || !readers.has(node));
  if (!other) return;
  const by = other.node ? nodeLabel(other.node) : 'the graph as an output';
  throw new OnnxLoraError(
    'unsupported',
    `${patched.model.source.label}: the bias ${tensor.name} is read by ${by} too, which is not adapted`,
    { node: other.node?.name, hint: 'Adapt that layer as well, or train without --train-bias.' },
  );
}

/**
 * Checks that the biases of an adapter file are tensors of the model.
 * @throws OnnxLoraError `adapter-mismatch`
 */
export function checkBiases({ model }: PatchedModel, { path, extras }: AdapterFile): void {
  for (const { name, dtype, dims } of extras.biases ?? []) {
    const tensor = model.graph.initializers.get(name);
    const fits = tensor?.dims.join() === dims.join() && dtypeOf(tensor, model) === dtype;
    if (fits) continue;
    throw new OnnxLoraError(
      'adapter-mismatch',
      `${path} does not fit ${model.source.label}: expected a bias ${name} of ${dtype} [${dims.join(', ')}], found ${tensor ? `[${tensor.dims.join(', ')}]` : 'none'}`,
      { hint: 'Adapters fit the model they were trained on.' },
    );
  }
}

/**
 * Gives biases other numbers; the manifest that is returned remembers the records they had.
 * @throws OnnxLoraError `unsupported` where another set trained one: only one record can come back
 */
export function replaceBiases(
  patched: PatchedModel,
  set: ModelManifest,
  edit: MessageEdit,
  biases: readonly NewTensor[],
): ModelManifest {
  const { source, graph } = patched.model;
  checkUntrained(patched, set, biases);
  const known = new Map((set.biases ?? []).map((bias) => [bias.tensor, bias]));
  for (const bias of biases) {
    const { field } = graph.initializers.get(bias.name)!;
    edit.child(graph.field).replace(field, ...initializerRecord(bias));
    if (known.has(bias.name)) continue;
    const record = Buffer.from(source.read(field.start, field.end)).toString('base64');
    known.set(bias.name, { tensor: bias.name, record });
  }
  return { ...set, biases: [...known.values()] };
}

function checkUntrained(
  { model, sets }: PatchedModel,
  { set }: ModelManifest,
  biases: readonly NewTensor[],
): void {
  const names = new Set(biases.map(({ name }) => name));
  for (const other of sets) {
    const trained = other.biases?.find(({ tensor }) => names.has(tensor));
    if (!trained || other.set === set) continue;
    throw new OnnxLoraError(
      'unsupported',
      `${model.source.label}: the bias ${trained.tensor} was trained with the adapter set ${JSON.stringify(other.set)} already`,
      { hint: `Fold that set first (onnx-lora merge --name ${other.set}), or leave biases alone.` },
    );
  }
}

/**
 * The record that a bias had before it was trained, and the tensor in it.
 * @throws OnnxLoraError `invalid-manifest`, `invalid-model` for a record of something else
 */
export function originalOf(
  { source, graph }: Model,
  { tensor: name, record }: TrainedBias,
): { record: Uint8Array; tensor: Tensor } {
  const bytes = Buffer.from(record, 'base64');
  const memory = new MemorySource(bytes, `${source.label}: the record of ${name} in its manifest`);
  const tensor = parseInitializer(memory);
  const now = graph.initializers.get(name);
  if (now && tensor?.name === name && tensor.dims.join() === now.dims.join()) {
    return { record: bytes, tensor };
  }
  const problem = `the record it keeps of the bias ${name} is not that of ${now ? 'a tensor of its shape' : 'a tensor of the model'}`;
  throw invalidManifest(source.label, problem);
}

/** Puts the records back that biases had before they were trained. */
export function restoreBiases(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  const { model } = patched;
  for (const bias of sets.flatMap(({ biases = [] }) => biases)) {
    const { field } = patched.initializer(bias.tensor);
    edit.child(model.graph.field).replace(field, originalOf(model, bias).record);
  }
}
