/** Which provider really ran which nodes. */
import type { ProfileEvent } from './profile-events.js';
import type { ProviderName } from './provider-names.js';

/** A node of the graph that ONNX Runtime made of the model. */
export interface PlacedNode {
  /** Its name; ONNX Runtime names nodes that have none by operator and number. */
  readonly node: string;
  /** Type of the operator. */
  readonly op: string;
}

/** The providers that the nodes of a session ran on. */
export interface Placement {
  /** Number of nodes that each provider ran, after ONNX Runtime's optimizations. */
  readonly nodes: Readonly<Partial<Record<ProviderName, number>>>;
  /** Those that the CPU ran in a session on another provider. */
  readonly fallbacks: readonly PlacedNode[];
  /** Nodes that ONNX Runtime put in to copy a value between the memories of two providers. */
  readonly copies: {
    /** Copies of values on the device to the CPU. */
    readonly toHost: number;
    /** Copies of values on the CPU to the device. */
    readonly toDevice: number;
  };
}

/** The name that each provider of ours has in the record. */
const PROVIDERS: Readonly<Record<string, ProviderName>> = {
  CPUExecutionProvider: 'cpu',
  CUDAExecutionProvider: 'cuda',
  WebGpuExecutionProvider: 'webgpu',
  DmlExecutionProvider: 'directml',
  CoreMLExecutionProvider: 'coreml',
  TensorrtExecutionProvider: 'tensorrt',
};

/** Which provider ran each node of the recorded runs; a node that ran many times counts once. */
export function placementOf(events: readonly ProfileEvent[], provider: ProviderName): Placement {
  const nodes: Partial<Record<ProviderName, number>> = {};
  const fallbacks: PlacedNode[] = [];
  const copies = { toHost: 0, toDevice: 0 };
  for (const { node, op, ranOn } of ranNodes(events)) {
    if (op === 'MemcpyToHost') copies.toHost++;
    else if (op === 'MemcpyFromHost') copies.toDevice++;
    else {
      nodes[ranOn] = (nodes[ranOn] ?? 0) + 1;
      if (ranOn === 'cpu' && provider !== 'cpu') fallbacks.push({ node, op });
    }
  }
  return { nodes, fallbacks, copies };
}

const KERNEL = /_kernel_time$/;

function ranNodes(events: readonly ProfileEvent[]): (PlacedNode & { ranOn: ProviderName })[] {
  const nodes = new Map<string, PlacedNode & { ranOn: ProviderName }>();
  for (const { cat, name, args } of events) {
    if (cat !== 'Node' || !KERNEL.test(name)) continue;
    const node = name.replace(KERNEL, '');
    const ranOn = providerOf(args.provider);
    const op = args.op_name ?? '';
    // Names are unique within one graph, not among those of If and Loop.
    nodes.set(JSON.stringify([node, args.node_index]), { node, op, ranOn });
  }
  return [...nodes.values()];
}

function providerOf(name = ''): ProviderName {
  const provider = PROVIDERS[name];
  if (provider) return provider;
  throw new Error(`ONNX Runtime's profile names a provider ${JSON.stringify(name)}`);
}
