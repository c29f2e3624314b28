/** Nodes that end the process: ONNX Runtime 1.30 reads what is not there. */
import { OnnxLoraError } from '../errors.js';
import { elementCount, type Graph, type Node, nodeLabel } from '../onnx/model.js';
import { storedIn } from './model-nodes.js';

/**
 * Refuses a node that the runtime would not survive.
 * @throws OnnxLoraError `runtime`
 */
export function refuseFatal(label: string, node: Node, graph: Graph): void {
  const check = node.domain === '' && Object.hasOwn(checks, node.opType) && checks[node.opType];
  const problem = check ? check(node, graph) : undefined;
  if (problem === undefined) return;
  throw new OnnxLoraError(
    'runtime',
    `${label}: ${nodeLabel(node)} (${node.opType}) has ${problem}`,
    { node: nodeLabel(node), hint: 'The file is damaged: fetch or export it again.' },
  );
}

/** Faults of a node, by operators. */
const checks: Readonly<Record<string, (node: Node, graph: Graph) => string | undefined>> = {
  DepthToSpace: blockSize,
  OneHot: depthOf,
  SpaceToDepth: blockSize,
};

function depthOf({ inputs: [, depth = ''] }: Node, graph: Graph): string | undefined {
  const tensor = storedIn(graph, depth) ?? constantNamed(graph, depth);
  if (!tensor || elementCount(tensor.dims) > 0) return undefined;
  return `a depth ${depth} of the shape [${tensor.dims.join(', ')}], expected one number`;
}

// Its square is what a size is divided by: beyond this it is 0 in 64 bits.
const MAX_BLOCK = 2 ** 31;

function blockSize({ attributes }: Node): string | undefined {
  const size = attributes.get('blocksize')?.i ?? 1;
  return size >= 1 && size <= MAX_BLOCK
    ? undefined
    : `the blocksize ${size}, expected 1 to ${MAX_BLOCK}`;
}

function constantNamed({ nodes }: Graph, name: string) {
  const node = nodes.find(({ outputs, opType }) => opType === 'Constant' && outputs[0] === name);
  return node?.attributes.get('value')?.tensor;
}
