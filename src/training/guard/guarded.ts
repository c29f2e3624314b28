import type { GraphBuilder } from '../../graph/builder.js';
import type { Model } from '../../onnx/model.js';
import type { Feeds } from '../../runtime/tensor-value.js';

/** The graph and the file to compare. */
export interface Guarded {
  /** The file; one that was edited in memory counts as it is there. */
  readonly model: Model;
  /** The graph that was built from it, and that graph before any node was taken out. */
  readonly graphs: readonly [GraphBuilder, ...GraphBuilder[]];
  /** The output that the loss looks at, of the file and of the graph. */
  readonly output: string;
  /** Values that have another meaning in the graph than in the file. */
  readonly moved?: ReadonlySet<string> | undefined;
  /** The value with the rows of the output that the graph has, where it lacks some. */
  readonly rows?: string | undefined;
  /** Values for nodes to read instead, without what a training step draws at random. */
  readonly read?: ReadonlyMap<string, string> | undefined;
  /** The first batch, with what else the graph reads. */
  readonly feeds: Feeds;
  /** The input with what trains, where there is one. */
  readonly theta?: string | undefined;
}
