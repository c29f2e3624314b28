/** The final readers of a stored tensor, after the nodes that only pass it on. */
import type { TensorPlace } from '../onnx/external.js';
import type { Node } from '../onnx/model.js';
import { isStep } from './constants.js';
import type { Use, ValueIndex } from './uses.js';

// Deeper chains of steps are not weights of real models; a hostile one must not exhaust the stack.
const MAX_DEPTH = 64;

/** Its uses after Identity, Cast, Transpose and DequantizeLinear. */
export function finalReaders(values: ValueIndex, { tensor, graph, node }: TensorPlace): Use[] {
  const value = values.resolve(graph, node ? node.outputs[0]! : tensor.name);
  return (value?.uses ?? []).flatMap((use) => readersBehind(values, use));
}

/** The final reader that a use leads to. */
export function readersBehind(values: ValueIndex, first: Use): Use[] {
  const uses: Use[] = [];
  const follow = (use: Use, depth: number) => {
    const passesOn = use.node && use.index === 0 && isStep(use.node) && depth > 0;
    if (!passesOn) uses.push(use);
    else for (const next of outputUses(values, use.node!)) follow(next, depth - 1);
  };
  follow(first, MAX_DEPTH);
  return uses;
}

function outputUses(values: ValueIndex, { graph, outputs }: Node): readonly Use[] {
  return values.resolve(graph, outputs[0]!)?.uses ?? [];
}
