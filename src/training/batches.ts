/** A dataset as the feeds of a graph, batch by batch. */

import { type CheckedData, checkDataset } from '../data/check.js';
import { convertBatch } from '../data/convert.js';
import type { Dataset } from '../data/dataset.js';
import { DEFAULT_IGNORE_INDEX } from '../data/ignore-index.js';
import { narrowFeeds } from '../data/narrow.js';
import { BatchOrder } from '../data/order.js';
import type { ScanOptions } from '../data/scan.js';
import { trimPadding } from '../data/trim.js';
import { ValueIndex } from '../graph/uses.js';
import type { Model } from '../onnx/model.js';
import { IndexTracer } from '../runtime/index-bounds.js';
import type { Feeds } from '../runtime/tensor-value.js';
import type { LossGraph } from './loss-graph.js';
import { type LossName, labelRequest } from './losses/index.js';

/** Samples of a batch that are named one by one. */
const NAMED = 8;

export interface BatchOptions {
  readonly loss: LossName;
  readonly ignoreIndex?: number | undefined;
  readonly blank?: number | undefined;
  readonly batchSize: number;
  readonly shuffle: boolean;
  readonly seed: number;
}

export class Batches {
  /** Batches of one pass over the data. */
  readonly perEpoch: number;
  /** Keys of the data that nothing reads. */
  readonly unused: readonly string[];
  /** Rows of the model's inputs that a sample is. */
  readonly group: number;
  private readonly order: BatchOrder;

  private constructor(
    private readonly dataset: Dataset,
    private readonly graph: Pick<LossGraph, 'inputs' | 'narrowed'>,
    private readonly checked: CheckedData,
    private readonly options: BatchOptions,
  ) {
    const lengthOf = dataset.lengthOf && ((sample: number) => dataset.lengthOf!(sample));
    this.order = new BatchOrder({ size: dataset.size, lengthOf, ...options });
    this.perEpoch = this.order.batchesPerEpoch;
    this.unused = checked.unused;
    this.group = checked.feeds[0]?.group ?? 1;
  }

  /**
   * Checks that the data fit the graph, reading them once.
   * @throws OnnxLoraError as `checkDataset`
   */
  static async of(
    dataset: Dataset,
    model: Model,
    graph: LossGraph,
    options: BatchOptions,
    work: ScanOptions,
  ): Promise<Batches> {
    const { inputs, lossInputs, output } = graph;
    const { loss, ignoreIndex, blank } = options;
    const tracer = new IndexTracer(model, new ValueIndex(model));
    const indexBounds = new Map(
      inputs.map(({ name }) => [name, tracer.bounds(name, { strict: true })]),
    );
    const labels = labelRequest(loss);
    const frames = labels.labelKind === 'spelling' ? framesOf(graph) : undefined;
    const found = { inputs, lossInputs, output, frames, indexBounds };
    const needs = { ...labels, ...found, ignoreIndex, blank };
    const checked = await checkDataset(dataset, { ...needs, batches: options }, work);
    return new Batches(dataset, graph, checked, options);
  }

  /** The feeds of a batch, counted from 0 over all epochs. */
  async at(batch: number): Promise<Feeds> {
    const { ignoreIndex = DEFAULT_IGNORE_INDEX } = this.options;
    const { inputs, narrowed } = this.graph;
    const arrays = await this.dataset.batch(this.order.indices(batch), this.checked.keys);
    const feeds = trimPadding(convertBatch(arrays, this.checked), inputs, ignoreIndex);
    return narrowFeeds(feeds, narrowed);
  }

  /** A batch in words: its samples, by their places in the file. */
  describe(batch: number): string {
    const { label, placeOf } = this.dataset;
    const samples = [...this.order.indices(batch)];
    const places = samples.slice(0, NAMED).map((i) => placeOf?.call(this.dataset, i) ?? i);
    const rest = samples.length > NAMED ? `, .. (${samples.length})` : '';
    const kind = placeOf ? '' : `of ${label} `;
    return `batch ${(batch % this.perEpoch) + 1}: samples ${kind}${places.join(', ')}${rest}`;
  }

  /** Number of samples of a batch. */
  samplesAt(batch: number): number {
    return this.order.indices(batch).length;
  }
}

/** For the sizes of the data. */
function framesOf({ output, probe }: LossGraph): number | undefined {
  const frames = probe.shapeAt(output.shape, 0)?.[1];
  return typeof frames === 'number' ? frames : undefined;
}
