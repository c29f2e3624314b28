/** The loss over a whole dataset, without training. */

import { constantsFirst } from '../graph/constants-first.js';
import { prune } from '../graph/prune.js';
import { collect } from '../onnx/edit.js';
import type { Model } from '../onnx/model.js';
import { folderOf } from '../runtime/runnable-form.js';
import { type OpenSessionOptions, openSession, type Session } from '../runtime/session.js';
import type { TensorValue } from '../runtime/tensor-value.js';
import type { Batches } from './batches.js';
import { feedsIn } from './input-names.js';
import type { LossGraph } from './loss-graph.js';
import { probabilityWarning } from './losses/probabilities.js';
import type { MetricAccumulator, Metrics } from './metrics/metric.js';

/** The result of an evaluation. */
export interface Evaluation {
  /** Finite numbers only; the others are in `leftOut`. */
  readonly measures: Metrics & { readonly loss: number };
  /** The measures that are left out, with what they are. */
  readonly leftOut: Readonly<Record<string, number>>;
  /** Things that are likely not what the user meant. */
  readonly warnings: readonly string[];
  /** Why there is no loss, and then no measure either means anything. */
  readonly problem?: string;
}

/** A loss, of the adapters in the input `theta` where it has one. */
type Evaluated = LossGraph & { readonly theta?: string };

export class Evaluator {
  private constructor(
    private readonly session: Session,
    private readonly forward: Evaluated,
  ) {}

  /**
   * Opens a session for the loss of the graph, which is changed for it.
   * @throws OnnxLoraError `runtime`, `provider`
   */
  static async open(
    model: Model,
    forward: Evaluated,
    options: Pick<OpenSessionOptions, 'provider' | 'threads' | 'optimization'>,
  ): Promise<Evaluator> {
    const { graph, loss, weight, logits, doubt } = forward;
    graph.outputs.length = 0;
    for (const name of [loss, weight, logits, ...(doubt ? [doubt.distance] : [])]) {
      graph.outputs.push({ name, dtype: undefined, shape: null });
    }
    prune(graph);
    constantsFirst(graph);
    const externalFolder = folderOf(model);
    const bytes = await collect(graph.modelPieces({}, externalFolder));
    return new Evaluator(await openSession(bytes, { ...options, externalFolder }), forward);
  }

  /**
   * The mean loss over everything that counts in all batches, and the metrics. Ends at the first batch
   * whose loss is not a finite number.
   * @param theta the adapters; undefined for a graph that has none to feed
   * @param onBatch called before each batch; may throw to stop
   */
  async run(
    batches: Batches,
    metrics: MetricAccumulator,
    theta: TensorValue | undefined,
    onBatch: (done: number, total: number) => void | Promise<void>,
  ): Promise<Evaluation> {
    const { loss, weight, logits } = this.forward;
    const sum = { loss: 0, weight: 0 };
    const warnings: string[] = [];
    for (let i = 0; i < batches.perEpoch; i++) {
      await onBatch(i, batches.perEpoch);
      const feeds = await batches.at(i);
      const own = feedsIn(this.forward.renamed, feeds);
      const adapters = theta ? [[this.forward.theta!, theta] as const] : [];
      const results = await this.session.run(new Map([...own, ...adapters]));
      const count = Number(results.get(weight)!.data[0]);
      const mean = Number(results.get(loss)!.data[0]);
      if (count > 0) sum.loss += mean * count;
      sum.weight += count;
      if (i === 0) warnings.push(...this.doubts(results, count));
      if (!Number.isFinite(sum.loss)) return without(mean, batches.describe(i));
      // Logits, also of models that end in probabilities.
      metrics.add(results.get(logits)!, feeds);
    }
    if (sum.weight === 0) return without(Number.NaN, 'no label of any sample counts');
    return { ...evaluationOf(sum.loss / sum.weight, metrics.result()), warnings };
  }

  private doubts(results: ReadonlyMap<string, TensorValue>, weight: number): string[] {
    const { doubt } = this.forward;
    const distance = doubt && Number(results.get(doubt.distance)!.data[0]);
    const found = distance === undefined ? undefined : probabilityWarning(doubt!, distance, weight);
    return found === undefined ? [] : [found];
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

function without(loss: number, reason: string): Evaluation {
  const problem = `the loss is ${loss}, expected a finite number (${reason})`;
  return { measures: { loss }, leftOut: {}, warnings: [], problem };
}

function evaluationOf(loss: number, metrics: Metrics): Omit<Evaluation, 'warnings'> {
  const all = Object.entries(metrics);
  const areFinite = (finite: boolean) =>
    Object.fromEntries(all.filter(([, value]) => Number.isFinite(value) === finite));
  return { measures: { loss, ...areFinite(true) }, leftOut: areFinite(false) };
}
