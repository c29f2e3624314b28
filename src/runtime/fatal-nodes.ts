/** Nodes that end the process: ONNX Runtime 1.30 reads what is not there. */
import { OnnxLoraError } from '../errors.js';
import { elementCount, type Graph, type Node, nodeLabel } from '../onnx/model.js';
import { storedIn } from './model-nodes.js';

/**
 * Refuses a node that the runtime would not survive.
 * @throws OnnxLoraError `runtime`
 */
export function refuseFatal(label: string, node: Node, graph: Graph): void {
  if (node.opType !== 'OneHot' || node.domain !== '') return;
  const [, depth = ''] = node.inputs;
  const tensor = storedIn(graph, depth) ?? constantNamed(graph, depth);
  if (!tensor || elementCount(tensor.dims) > 0) return;
  throw new OnnxLoraError(
    'runtime',
    `${label}: the depth ${depth} of ${nodeLabel(node)} (OneHot) has the shape [${tensor.dims.join(', ')}], expected one number`,
    { node: nodeLabel(node), hint: 'The file is damaged: fetch or export it again.' },
  );
}

function constantNamed({ nodes }: Graph, name: string) {
  const node = nodes.find(({ outputs, opType }) => opType === 'Constant' && outputs[0] === name);
  return node?.attributes.get('value')?.tensor;
}
