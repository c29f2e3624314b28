/** Values that the body of an If, Loop or Scan reads from the graphs around it. */
import type { Graph } from '../onnx/model.js';

/** The names that a graph defines itself. */
export function* definedIn({
  inputs,
  initializers,
  sparseInitializers,
  nodes,
}: Graph): Generator<string> {
  for (const { name } of inputs) yield name;
  yield* initializers.keys();
  yield* sparseInitializers;
  for (const { outputs } of nodes) for (const name of outputs) if (name !== '') yield name;
}

/** The names that a body reads from around it. */
export function capturesOf(body: Graph): string[] {
  const own = new Set(definedIn(body));
  const inner = body.nodes.flatMap((node) =>
    [...node.attributes.values()].flatMap(({ graphs }) => graphs.flatMap(capturesOf)),
  );
  const read = [...body.nodes.flatMap(({ inputs }) => inputs), ...body.outputs.map((o) => o.name)];
  return [...read, ...inner].filter((name) => name !== '' && !own.has(name));
}
