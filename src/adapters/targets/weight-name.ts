/** The name of a layer's weight before an exporter or a quantizer renamed it. */
import type { ValueIndex } from '../../graph/uses.js';
import { allGraphs, enclosingGraphs, type Graph, type Model, type Node } from '../../onnx/model.js';
import type { Finding, LinearLayer } from './index.js';

/** The value info of a constant that the current PyTorch exporter folded, a Python list of names. */
const FOLDED_FROM = 'pkg.onnxscript.optimizer.folded_from';

/** Suffixes that ONNX Runtime's quantizers append to the name of a weight. */
const QUANTIZED = /(_DQ)?_Q\d+(G\d+)?$|_quantized$/;

/** Names that an exporter made up: `onnx::MatMul_814`, `val_92`, `1274`. */
export const GENERATED = /^(onnx::|val_\d|_?v_\d|t?\d+$)/;

/**
 * Whether a convolution's tensor is not PyTorch's: it keeps its name there, unless the exporter has
 * multiplied the batch normalization after it into it.
 */
export function isFoldedIntoConv(node: Node | undefined, tensorName: string): boolean {
  return node?.opType === 'Conv' && GENERATED.test(tensorName);
}

/** Tells the names of a model's weights. */
export class WeightNames {
  /** By the graph whose value info says so: branches of an If may use the same names. */
  private readonly origins = new Map<Graph, Map<string, string>>();

  constructor(
    model: Model,
    private readonly values: ValueIndex,
  ) {
    for (const graph of allGraphs(model.graph)) {
      const origins = new Map<string, string>();
      this.origins.set(graph, origins);
      for (const { name, metadata } of graph.valueInfo) {
        const from = metadata.find(({ key }) => key === FOLDED_FROM)?.value();
        // Of several tensors folded into one, none is the weight.
        const only = /^\['([^']+)'\]$/.exec(from ?? '')?.[1];
        if (only !== undefined) origins.set(name, only);
      }
    }
  }

  /** `encoder.query.weight`: the stored tensor's name, or the one that it had before. */
  of(finding: Finding): string {
    if ('refusal' in finding) return '';
    const { constant, name } = finding.weight;
    const stored = constant?.tensor.name || constant?.node?.outputs[0] || name;
    const graph = constant?.graph ?? finding.node.graph;
    const origin = this.origin(graph, stored) ?? this.origin(graph, stored.replace(QUANTIZED, ''));
    if (origin !== undefined || !GENERATED.test(stored)) return origin ?? stored;
    return this.besideBias(finding) ?? stored;
  }

  private origin(graph: Graph, name: string): string | undefined {
    for (const scope of enclosingGraphs(graph)) {
      const origin = this.origins.get(scope)?.get(name);
      if (origin !== undefined) return origin;
    }
    return undefined;
  }

  /** Folding renames a weight and leaves the bias its name. */
  private besideBias({ node, output }: LinearLayer): string | undefined {
    const [use, ...others] = this.values.resolve(node.graph, output)?.uses ?? [];
    const add = use?.node?.opType === 'Add' && others.length === 0 ? use.node : node;
    const bias = add.inputs.find((name) => name.endsWith('.bias'));
    return bias?.replace(/bias$/, 'weight');
  }
}
