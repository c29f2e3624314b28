/** What reads a stored tensor in the end, behind the nodes that only pass it on. */
import type { TensorPlace } from '../onnx/external.js';
import { isStep } from './constants.js';
import type { Use, Value, ValueIndex } from './uses.js';

// Deeper chains of steps are not weights of real models; a hostile one must not exhaust the stack.
const MAX_DEPTH = 64;

/** Its uses behind Identity, Cast, Transpose and DequantizeLinear. */
export function finalReaders(values: ValueIndex, { tensor, graph, node }: TensorPlace): Use[] {
  const uses: Use[] = [];
  const follow = (value: Value | undefined, depth: number) => {
    for (const use of value?.uses ?? []) {
      const passesOn = use.node && use.index === 0 && isStep(use.node) && depth > 0;
      if (passesOn) follow(values.resolve(use.graph, use.node!.outputs[0]!), depth - 1);
      else uses.push(use);
    }
  };
  follow(values.resolve(graph, node ? node.outputs[0]! : tensor.name), MAX_DEPTH);
  return uses;
}
