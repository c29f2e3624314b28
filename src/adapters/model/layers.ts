/** The layers of a model as a user selects them: nodes that share a weight are one. */
import { isComputing } from '../../graph/constants.js';
import type { Value } from '../../graph/uses.js';
import type { Node } from '../../onnx/model.js';
import type { LayerPart } from '../structure/structure.js';
import { attentionPath } from '../targets/attention-path.js';
import { type Finding, findLinearLayers, isOpen, type LinearLayer } from '../targets/index.js';
import { modulePath } from '../targets/module-path.js';
import type { Selectable } from '../targets/select.js';
import { WeightNames } from '../targets/weight-name.js';
import { exportedBeside } from './exported-adapters.js';
import type { PatchedModel } from './patched.js';

/** A module's place in a layer that several are packed into. */
export interface LayerColumns extends LayerPart {
  /** The number of its columns. */
  readonly width: number;
}

/** One weight and every node that uses it, or a node that can take no adapter. */
export interface Layer extends Selectable {
  /** Module path of the first node. */
  readonly module: string;
  /** The nodes that read the weight, in the order of the model. */
  readonly nodes: readonly Node[];
  /** Empty where `refusal` says why. */
  readonly linear: readonly LinearLayer[];
  /** Its columns, where it is one of several modules that the nodes compute side by side. */
  readonly part?: LayerColumns | undefined;
  /** Why the layer cannot take an adapter; undefined where it can. */
  readonly refusal: string | undefined;
}

/**
 * The layers in the order of the graph, without the nodes of adapters that are in it already.
 * @param perNode a layer for each node even where nodes share a weight
 */
export function findLayers(patched: PatchedModel, perNode = false): Layer[] {
  const { model, values, ownNodes } = patched;
  const groups = new Map<unknown, Finding[]>();
  for (const finding of findLinearLayers(model, values, ownNodes)) {
    if (ownNodes.has(finding.node.name)) continue;
    const key = perNode || 'refusal' in finding ? finding : weightKey(finding);
    const group = groups.get(key);
    if (group) group.push(finding);
    else groups.set(key, [finding]);
  }
  const names = new WeightNames(model, values);
  const all = [...groups.values()];
  const paths = new Paths(patched, all.flat(), names);
  return all.map((group) => layerOf(patched, group, paths));
}

/** Uses of one stored tensor share an adapter only where they use it the same way. */
function weightKey({ node, weight }: LinearLayer): string {
  const at = weight.constant
    ? weight.constant.tensor.field.start
    : `${node.graph.field.start}/${weight.name}`;
  // Of one tensor with two scales there are two weights; a DequantizeLinear for each reader is one.
  const computed = (weight.constant?.steps ?? [])
    .filter((step) => isComputing(step) && step.opType !== 'DequantizeLinear')
    .map((step) => step.field.start);
  return [at, ...computed, weight.transposed, weight.factor, weight.in, weight.out].join();
}

/** The paths of the modules that findings come from. */
class Paths {
  /** Of the layers by what they read. */
  private readonly behind = new Map<Value, string>();

  constructor(
    private readonly patched: PatchedModel,
    findings: readonly Finding[],
    private readonly names: WeightNames,
  ) {
    for (const finding of findings) {
      if ('refusal' in finding || !isOpen(finding)) continue;
      const read = patched.values.resolve(finding.node.graph, finding.input);
      if (read) this.behind.set(read, this.of(finding));
    }
  }

  of(finding: Finding): string {
    const { patched, names, behind } = this;
    const node = multiplying(finding);
    const path = modulePath(node, names.of(finding), patched.label(finding.node, node));
    if ('refusal' in finding || isOpen(finding)) return path;
    const made = patched.values.resolve(finding.node.graph, finding.output);
    return attentionPath(finding, path, made && behind.get(made));
  }
}

function layerOf(patched: PatchedModel, findings: Finding[], paths: Paths): Layer {
  const nodes = findings.map(({ node }) => node);
  const linear = findings.flatMap((finding) => ('refusal' in finding ? [] : [finding]));
  const first = findings[0]!;
  const labels = findings.map((finding) => patched.label(finding.node, multiplying(finding)));
  const modules = findings.map((finding) => paths.of(finding));
  const own = 'refusal' in first ? first.refusal : undefined;
  const beside = exportedBeside(modules[0]!);
  return {
    module: modules[0]!,
    modules,
    nodes,
    nodeNames: labels,
    isConvolution: first.node.opType.includes('Conv'),
    linear: beside === undefined ? linear : [],
    refusal:
      beside === undefined ? own : `it is a factor of the adapter that was exported with ${beside}`,
  };
}

/** The node that is the layer to those who look for it: of an integer product the one that multiplies. */
export function multiplying(finding: Finding): Node {
  return ('product' in finding && finding.product?.node) || finding.node;
}
