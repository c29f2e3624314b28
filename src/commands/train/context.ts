/** The common ground of a run's parts: the open model, the options, and what is made of the two for any data. */
import type { OpenedModel } from '../../adapters/model/opened.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import type { Dataset } from '../../data/dataset.js';
import { modelInputs } from '../../data/model-inputs.js';
import { openDataset } from '../../data/open-dataset.js';
import { dataRequest } from '../../data/request.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import { Batches } from '../../training/batches.js';
import { buildForward, type ForwardGraph, type ForwardOptions } from '../../training/forward.js';
import { guardFirstBatch } from '../../training/guard/first-batch.js';
import type { GuardReport } from '../../training/guard/guard.js';
import { batchShapes, symbolSizes } from '../../training/layers/data-shapes.js';
import { lossOptions } from '../../training/loss-settings.js';
import { labelRequest } from '../../training/losses/index.js';
import type { StepGraph } from '../../training/step-graph.js';
import type { ResolvedTrainOptions } from '../options/train.js';
import { defaultOutput } from '../output.js';

const KILO = 1024;

/** A forward pass, the graph that was made of it, and the batches that this is going to run on. */
interface GuardedPass {
  readonly forward: ForwardGraph;
  readonly graph: Pick<StepGraph, 'graph' | 'size'>;
  readonly batches: Batches;
}

export class RunContext {
  readonly patched: PatchedModel;
  /** The model that the run leaves, or the step graph where only that was asked for. */
  readonly output: string;
  private readonly start = performance.now();
  private readonly datasets: Dataset[] = [];

  /** @param path of the model that the user gave: `opened` may be that with a new head */
  constructor(
    readonly opened: OpenedModel,
    path: string,
    readonly options: ResolvedTrainOptions,
  ) {
    const { emitStepGraph, output } = options;
    this.patched = opened.patched;
    this.output = emitStepGraph ?? output ?? defaultOutput(path, 'trained');
  }

  /** @param classes names of classes that the data have to agree with */
  async openData(path: string, classes: readonly string[] | undefined): Promise<Dataset> {
    const { options, patched } = this;
    const request = { ...modelInputs(patched.model), ...labelRequest(options.loss), classes };
    const dataset = await openDataset(path, dataRequest({ ...options, ...request }));
    this.datasets.push(dataset);
    return dataset;
  }

  closeData(): void {
    for (const dataset of this.datasets) dataset.close();
  }

  /** @param provider that it is written for; undefined for any, and batches of any shape */
  forward(
    data: Dataset,
    provider: ProviderName | undefined,
    more: Pick<ForwardOptions, 'dropout' | 'labelledRowsOnly'> = {},
  ): Promise<ForwardGraph> {
    const { loss, modelOutput, name, trainBias, batchSize } = this.options;
    const { inputs } = this.patched.model.graph;
    const forGpu = provider !== undefined && provider !== 'cpu';
    return buildForward(this.patched, this.opened.reader, {
      ...{ loss, modelOutput, name, trainBias },
      lossOptions: lossOptions(this.options, inputs, data),
      sizes: symbolSizes(inputs, data, batchSize),
      rewrite: { fused: provider === 'cpu' },
      forGpu,
      inputShapes: provider && batchShapes(inputs, data, batchSize, forGpu),
      ...more,
    });
  }

  async batches(data: Dataset, forward: ForwardGraph, shuffle: boolean): Promise<Batches> {
    const { options, patched } = this;
    const batches = await Batches.of(
      data,
      patched.model,
      forward,
      { ...options, shuffle },
      options,
    );
    if (batches.unused.length > 0) {
      options.onNote(`${data.label}: nothing reads ${batches.unused.join(', ')}`);
    }
    return batches;
  }

  /** Compares a graph with the file, both with the adapters that the file has. */
  guard(
    { forward, batches, graph: { graph, size } }: GuardedPass,
    provider: ProviderName,
  ): Promise<GuardReport | undefined> {
    const theta = this.theta(forward, size);
    const built = { model: this.patched.model, graph, forward, batches, theta };
    return guardFirstBatch(built, { ...this.options, provider });
  }

  /** The numbers of what trains as they are in the file. */
  theta({ parameters }: ForwardGraph, size: number): Float32Array<ArrayBuffer> {
    const theta = new Float32Array(size);
    for (const { name, offset } of parameters) {
      theta.set(this.opened.reader.float32(this.patched.constant(name)), offset);
    }
    return theta;
  }

  /** Of the run so far. */
  cost() {
    const seconds = (performance.now() - this.start) / 1000;
    return { seconds, peakMemoryBytes: process.resourceUsage().maxRSS * KILO };
  }
}
