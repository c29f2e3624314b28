/** Finds the first value of a graph that differs from the file that the graph was built from. */
import { partOf } from '../../graph/part.js';
import type { Node } from '../../onnx/model.js';
import { type Deviation, deviationOf } from '../../runtime/deviation.js';
import type { OpenSessionOptions } from '../../runtime/session.js';
import type { TensorValue } from '../../runtime/tensor-value.js';
import type { FileRuns } from './file-runs.js';
import { runGraph } from './graph-run.js';
import type { Guarded } from './guarded.js';

/** A value of both that differs by more than rounding. */
export interface Difference {
  readonly value: string;
  /** The file's node that makes it; undefined for an input that is an output. */
  readonly node: Node | undefined;
  /** Shapes, where these differ. */
  readonly shapes: { readonly expected: readonly number[]; readonly found: readonly number[] };
  /** undefined where the shapes differ. */
  readonly deviation: Deviation | undefined;
}

// Values of both are in memory that many at a time.
const AT_A_TIME = 32;

/**
 * The first value in the order of the graph that differs, among those that file and graph have under
 * one name: what adapted layers, functions and branches became in the graph is seen at their outputs.
 * undefined where none does.
 */
export async function firstDifference(
  guarded: Guarded,
  runs: FileRuns,
  tolerance: number,
  options: OpenSessionOptions,
): Promise<Difference | undefined> {
  const makers = makersOf(guarded);
  const names = [...comparable(guarded, makers)];
  for (let at = 0; at < names.length; at += AT_A_TIME) {
    const some = names.slice(at, at + AT_A_TIME);
    const expected = await runs.outputs(guarded.feeds, some);
    const found = await runGraph(guarded, some, options);
    for (const value of some) {
      const [x, y] = [expected.get(value), found.get(value)];
      const difference = x && y && differenceOf(x, y, tolerance);
      if (difference) return { value, node: makers.get(value), ...difference };
    }
  }
  return undefined;
}

function makersOf({ model }: Guarded): Map<string, Node> {
  return new Map(model.graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node])));
}

/** Names of values that the file's main graph and the graph compute alike, in the graph's order. */
function* comparable(
  { graphs, output, read, moved = new Set() }: Guarded,
  makers: ReadonlyMap<string, Node>,
): Generator<string> {
  for (const { outputs } of partOf(graphs, [output], read).nodes) {
    for (const name of outputs) {
      if (name !== '' && makers.has(name) && !moved.has(name)) yield name;
    }
  }
}

/** undefined where the values are equal but for rounding. */
function differenceOf(
  x: TensorValue,
  y: TensorValue,
  tolerance: number,
): Pick<Difference, 'shapes' | 'deviation'> | undefined {
  const shapes = { expected: x.dims, found: y.dims };
  if (x.dims.join() !== y.dims.join()) return { shapes, deviation: undefined };
  const deviation = deviationOf(x, y);
  return deviation.share <= tolerance ? undefined : { shapes, deviation };
}
