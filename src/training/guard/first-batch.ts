/** The guard as commands run it: on their first batch, before the graph is trusted. */
import type { Model } from '../../onnx/model.js';
import type { Batches } from '../batches.js';
import type { ForwardGraph } from '../forward.js';
import { feedsIn } from '../input-names.js';
import type { LossGraph } from '../loss-graph.js';
import type { GuardSetting } from '../loss-settings.js';
import { type GuardOptions, type GuardReport, guard, guardNote } from './guard.js';
import type { Guarded } from './guarded.js';

/** A graph that was built from a file, and the batches that it is going to run on. */
export interface Built {
  readonly model: Model;
  /** As it is going to run. */
  readonly graph: LossGraph['graph'];
  /** The pass that it was made of. */
  readonly forward: LossGraph & Partial<Pick<ForwardGraph, 'theta' | 'moved' | 'dropped'>>;
  readonly batches: Batches;
  /** The file's own numbers of what trains, where the graph reads these from an input. */
  readonly theta?: Float32Array | undefined;
}

export interface FirstBatchOptions extends GuardOptions, GuardSetting {
  readonly onNote?: ((text: string) => void) | undefined;
}

/**
 * Compares the graph with its file on the first batch; undefined where that is left out.
 * @throws OnnxLoraError as `guard`
 */
export async function guardFirstBatch(
  { model, graph, forward, batches, theta }: Built,
  { provider, threads, onNote, ...options }: FirstBatchOptions,
): Promise<GuardReport | undefined> {
  if (options.guard === false) return undefined;
  const { whole, output, rows, moved, dropped: read, renamed } = forward;
  const guarded: Guarded = {
    ...{ model, graphs: [graph, whole], output: output.name, moved, read },
    rows: rows?.index,
    feeds: new Map([
      ...feedsIn(renamed, await batches.at(0)),
      ...(theta ? [[forward.theta!, flat(theta)] as const] : []),
    ]),
    theta: theta && forward.theta,
  };
  const report = await guard(guarded, { provider, threads });
  const note = guardNote(report);
  if (note !== undefined) onNote?.(note);
  return report;
}

function flat(data: Float32Array) {
  return { dtype: 'float32', dims: [data.length], data } as const;
}
