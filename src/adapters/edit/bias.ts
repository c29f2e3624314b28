/** Biases that train with the adapters (PEFT's `bias="lora_only"`). They are the model's own tensors. */
import { OnnxLoraError } from '../../errors.js';
import { storedTensor } from '../../graph/constants.js';
import { type Node, nodeLabel, type Tensor } from '../../onnx/model.js';
import { findLayers } from '../model/layers.js';
import type { ModelManifest } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import type { LinearLayer } from '../targets/index.js';
import { soleSum } from './bias-sum.js';
import { checkFree } from './replaced.js';

/** A constant of the main graph: an initializer, or the value of a Constant node. */
export interface Bias {
  readonly name: string;
  readonly tensor: Tensor;
}

/**
 * The biases of a set's layers: vectors that are added to a layer's output and to nothing else; and the
 * names of the nodes that have none.
 * @throws OnnxLoraError `unsupported` where no layer has one, other nodes read one too, or another set
 * replaced one
 */
export function biasesOf(
  patched: PatchedModel,
  set: ModelManifest,
): { biases: Bias[]; without: string[] } {
  const without: string[] = [];
  const found = new Map<string, { bias: Bias; readers: Set<Node> }>();
  const layers = new Map(
    findLayers(patched).flatMap((l) => l.linear.map((one) => [one.node, one])),
  );
  for (const site of patched.sites.filter((one) => one.set === set)) {
    const layer = layers.get(site.target);
    const bias = layer && biasOf(patched, layer);
    if (!bias) {
      without.push(site.site.node);
      continue;
    }
    const { readers } = found.get(bias.name) ?? { readers: new Set() };
    found.set(bias.name, { bias, readers: readers.add(bias.reader) });
  }
  if (found.size === 0) {
    throw new OnnxLoraError(
      'unsupported',
      `${patched.model.source.label}: no adapted layer has a bias, expected constant vectors after them`,
      { hint: 'Train without `trainBias`.' },
    );
  }
  for (const [name, { readers }] of found) {
    checkReaders(patched, name, readers);
    checkFree(patched, set, name);
  }
  return { biases: [...found.values()].map(({ bias }) => bias), without };
}

/** The third operand of Gemm, Conv and Attention, or the constant that the next node adds. */
export function biasOf(
  patched: PatchedModel,
  { node: target, geometry, weight }: LinearLayer,
): (Bias & { readonly reader: Node }) | undefined {
  const { values, model } = patched;
  const vector = (reader: Node, name = '') => {
    const { tensor, graph } = storedTensor(values, reader.graph, name) ?? {};
    const isVector = tensor?.dims.length === 1 && tensor.dims[0] === weight.out;
    return tensor && isVector && graph === model.graph ? { name, tensor, reader } : undefined;
  };
  if (geometry.kind !== 'matrix') return vector(target, target.inputs[2]);
  // A vector is added along the last axis.
  if (geometry.outputColumns) return undefined;
  if (target.opType === 'Gemm') {
    const own = vector(target, target.inputs[2]);
    if (own) return own;
  }
  const behind = (node: Node) => {
    const sum = soleSum(values, node);
    return sum && vector(sum.node, sum.addend);
  };
  // Adapters join after the bias, or before it.
  return behind(target) ?? behind(patched.outermost(target));
}

function checkReaders(patched: PatchedModel, name: string, readers: ReadonlySet<Node>): void {
  const uses = patched.values.resolve(patched.model.graph, name)?.uses ?? [];
  const other = uses.find(({ node }) => !node || !readers.has(node));
  if (!other) return;
  const by = other.node ? nodeLabel(other.node) : 'the graph as an output';
  throw new OnnxLoraError(
    'unsupported',
    `${patched.model.source.label}: the bias ${name} is read by ${by} too, which is not adapted`,
    { node: other.node?.name, hint: 'Adapt that layer as well, or train without `trainBias`.' },
  );
}
