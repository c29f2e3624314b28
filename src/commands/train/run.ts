/** A whole training run, from the files it reads to the files it leaves. */

import { headEdit, parseHead } from '../../adapters/edit/head.js';
import { formatOf } from '../../adapters/files/adapter-output.js';
import { labelsOf } from '../../adapters/model/labels.js';
import { type OpenedModel, withModel } from '../../adapters/model/opened.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import type { Dataset } from '../../data/dataset.js';
import { modelInputs } from '../../data/model-inputs.js';
import { openDataset } from '../../data/open-dataset.js';
import { dataRequest } from '../../data/request.js';
import { OnnxLoraError } from '../../errors.js';
import { kindOf } from '../../formats/path-kind.js';
import { collect } from '../../onnx/edit.js';
import type { TensorReader } from '../../onnx/tensor.js';
import { writeFiles } from '../../onnx/write.js';
import { lossCurveSvg } from '../../report/curve.js';
import { TensorBoardLog } from '../../report/tensorboard.js';
import type { PlacedNode } from '../../runtime/placement.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import { resolveProvider } from '../../runtime/providers.js';
import type { OpenSessionOptions } from '../../runtime/session.js';
import { openStatefulSession } from '../../runtime/stateful-session.js';
import type { TensorValue } from '../../runtime/tensor-value.js';
import { Batches } from '../../training/batches.js';
import {
  checkSettings,
  hasCheckpoint,
  readCheckpoint,
  type Settings,
} from '../../training/checkpoint.js';
import { Evaluator, folderOf } from '../../training/evaluator.js';
import { buildForward, type ForwardGraph, theSet } from '../../training/forward.js';
import { guardFirstBatch } from '../../training/guard/first-batch.js';
import type { GuardReport } from '../../training/guard/guard.js';
import { batchShapes, symbolSizes } from '../../training/layers/data-shapes.js';
import { RunLog } from '../../training/log.js';
import { TrainingLoop } from '../../training/loop.js';
import { lossOptions } from '../../training/loss-settings.js';
import { labelRequest } from '../../training/losses/index.js';
import { sizeOf } from '../../training/parameters.js';
import type { LogRecord } from '../../training/records.js';
import { INITIAL_THETA, STEP_MANIFEST_KEY } from '../../training/step-format.js';
import { buildStepGraph, type StepGraph, stepOptionsOf } from '../../training/step-graph.js';
import { stepGraphManifest } from '../../training/step-manifest.js';
import { trainedModel } from '../../training/trained-model.js';
import { extract, extractedFiles } from '../extract.js';
import type { ResolvedTrainOptions } from '../options/train.js';
import { defaultOutput, writeModel } from '../output.js';
import { checkOutputs, claimOutputs, rescueFolderFor, runInputs } from './outputs.js';
import { curveOf, writeReport } from './report.js';
import { settingsOf } from './settings.js';
import { TrainedWriting } from './writing.js';

/** The result of a training run. */
export interface TrainResult {
  /** The trained model, or the step graph where only that was asked for. */
  readonly output: string;
  /** The file with the adapters alone. */
  readonly adapter?: string;
  /** Updates done. */
  readonly steps: number;
  /** Things that are likely not what the user meant, as texts for people. */
  readonly warnings?: readonly string[];
  /** Rows of the data that are not samples because something is wrong with them. */
  readonly skippedRows?: number;
  /** The names of the classes by their numbers, where the data have some; they stay with the model. */
  readonly classes?: readonly string[];
  /** The training loss, step by step; absent where only the step graph was written. */
  readonly loss?: {
    /** Of the first step. */
    readonly first: number;
    /** Of the last step. */
    readonly last: number;
    /** The smallest. */
    readonly best: number;
  };
  /** The scale of the loss, where one was asked for. */
  readonly lossScale?: {
    /** At the end. */
    readonly last: number;
    /** Updates that were left out because their gradient overflowed. */
    readonly skipped: number;
  };
  /** The last evaluation; with `keepBest` the best one's step and loss are in `best`. */
  readonly eval?: Readonly<Record<string, number>>;
  /** The best evaluation. */
  readonly best?: {
    /** The step after which it was made. */
    readonly step: number;
    /** Its loss. */
    readonly loss: number;
  };
  /** The comparison of the training step with the file on the first batch, unless that was left out. */
  readonly guard?: GuardReport;
  /** The same of the graph that measures `evalData`. */
  readonly evalGuard?: GuardReport;
  /** Adapted nodes that the output of the loss does not depend on: their adapters stayed as they were. */
  readonly withoutGradient?: readonly string[];
  /** The execution provider; absent where only the step graph was written. */
  readonly provider?: {
    /** As asked for. */
    readonly requested: ProviderName | 'auto';
    /** The one that trained. */
    readonly used: ProviderName;
    /** Nodes that each provider ran. */
    readonly nodes: Readonly<Partial<Record<ProviderName, number>>>;
    /** Nodes that ran on the CPU although another provider was used. */
    readonly fallbacks: readonly PlacedNode[];
  };
  /** Time of the run. */
  readonly seconds: number;
  /** The most memory that the process had. */
  readonly peakMemoryBytes: number;
}

/**
 * Trains the adapters of the patched model at `path`.
 * @throws OnnxLoraError `invalid-argument`, `invalid-data`, `no-adapter`, `unsupported`, `provider`,
 * `verification` where the guard finds another model, `checkpoint`, `diverged`, `aborted`, and those of
 * reading and writing
 */
export async function runTraining(
  path: string,
  options: ResolvedTrainOptions,
): Promise<TrainResult> {
  return await withModel(path, async (opened) => {
    const { head, modelOutput, ...rest } = { ...options, onNote: onceEach(options.onNote) };
    if (head === undefined) return new Run(opened, path, { ...rest, head, modelOutput }).result();
    // The loss looks at what the head makes, not at what it reads.
    const own = { ...rest, head, modelOutput: undefined };
    return new Run(await withHead(opened, { ...options, head }), path, own).result();
  });
}

/** If training and evaluation read one file, each note on it comes twice. */
function onceEach(onNote: (text: string) => void): (text: string) => void {
  const told = new Set<string>();
  return (text) => {
    if (told.size < told.add(text).size) onNote(text);
  };
}

/** The model that the run leaves, or the step graph where only that was asked for. */
function outputOf(path: string, { emitStepGraph, output }: ResolvedTrainOptions): string {
  return emitStepGraph ?? output ?? defaultOutput(path, 'trained');
}

/** The model with a new head, which no file has yet. */
function withHead(
  opened: OpenedModel,
  { head, name, modelOutput, seed }: ResolvedTrainOptions & { readonly head: string },
): Promise<OpenedModel> {
  const { patched } = opened;
  const plan = { plan: parseHead(head), output: modelOutput, seed };
  return opened.edited(headEdit(patched, theSet(patched, name), plan));
}

const KILO = 1024;

class Run {
  private readonly start = performance.now();
  private readonly output: string;
  private readonly datasets: Dataset[] = [];
  private readonly patched: PatchedModel;
  private readonly reader: TensorReader;

  constructor(
    private readonly opened: OpenedModel,
    path: string,
    private readonly options: ResolvedTrainOptions,
  ) {
    this.patched = opened.patched;
    this.reader = opened.reader;
    this.output = outputOf(path, options);
  }

  async result(): Promise<TrainResult> {
    checkOutputs(this.patched.model, this.output, this.options);
    const claims = claimOutputs(this.output, this.options);
    try {
      const data = await this.open(this.options.data, labelsOf(this.patched));
      return this.options.emitStepGraph === undefined
        ? await this.train(data)
        : await this.emit(data);
    } finally {
      for (const dataset of this.datasets) dataset.close();
      for (const claim of claims) claim.release();
    }
  }

  private async open(path: string, classes?: readonly string[]): Promise<Dataset> {
    const { options, patched } = this;
    const request = { ...modelInputs(patched.model), ...labelRequest(options.loss), classes };
    const dataset = await openDataset(path, dataRequest({ ...options, ...request }));
    this.datasets.push(dataset);
    return dataset;
  }

  /** @param provider that it is written for; undefined for any, and batches of any shape */
  private forward(
    data: Dataset,
    provider: ProviderName | undefined,
    dropout = 0,
    labelledRowsOnly = false,
  ): Promise<ForwardGraph> {
    const { loss, modelOutput, name, trainBias, batchSize } = this.options;
    const { inputs } = this.patched.model.graph;
    const sizes = symbolSizes(inputs, data, batchSize);
    const forGpu = provider !== undefined && provider !== 'cpu';
    return buildForward(this.patched, this.reader, {
      ...{ loss, modelOutput, name, trainBias },
      lossOptions: lossOptions(this.options, inputs, data),
      sizes,
      rewrite: { fused: provider === 'cpu' },
      dropout,
      labelledRowsOnly,
      forGpu,
      inputShapes: provider && batchShapes(inputs, data, batchSize, forGpu),
    });
  }

  private async batches(data: Dataset, forward: ForwardGraph, shuffle: boolean): Promise<Batches> {
    const { options } = this;
    const how = { ...options, shuffle };
    const batches = await Batches.of(data, this.patched.model, forward, how, options);
    if (batches.unused.length > 0) {
      options.onNote(`${data.label}: nothing reads ${batches.unused.join(', ')}`);
    }
    return batches;
  }

  private async train(data: Dataset): Promise<TrainResult> {
    const { options, patched } = this;
    const { requested, used, reason } = await resolveProvider(options.provider);
    if (requested === 'auto') options.onNote(`provider auto: ${used} (${reason})`);
    const fused = used === 'cpu';
    const forward = await this.forward(data, used, options.dropout, fused);
    const batches = await this.batches(data, forward, options.shuffle);
    const rest = data.size % options.batchSize;
    if (!fused && rest !== 0) {
      options.onNote(
        `the last batch of an epoch has ${rest} of ${options.batchSize} samples: the model's arithmetic on shapes runs on the CPU, and would not if all batches were alike`,
      );
    }
    if (options.trainBias) this.noteLayersWithoutBias(forward);
    this.noteWithoutGradient(forward);
    const feedsLossScale = options.lossScale !== 1;
    const graph = await buildStepGraph(
      forward,
      stepOptionsOf({ ...options, fused, feedsLossScale }),
    );
    const settings = settingsOf(options, forward, this.datasets, patched.model.source.size);
    const total = this.updates(batches);
    const checkpoint = this.checkpoint(graph, settings);
    const externalFolder = folderOf(patched.model);
    const guarded = await this.guarded(forward, graph, batches, used);
    const optimization = guarded?.optimization;
    const evaluation = await this.evaluation(used);
    const writing = await this.writing(forward, data, { provider: used, optimization });
    const session = await openStatefulSession(
      await collect(graph.graph.modelPieces({}, externalFolder)),
      {
        provider: used,
        externalFolder,
        threads: options.threads,
        optimization,
        memoryPattern: false,
        state: graph.state,
        initial: checkpoint ? tensors(checkpoint.vectors, graph) : this.initial(forward, graph),
        reportPlacement: true,
      },
    );
    const rescueFolder = rescueFolderFor(options.finalOutput ?? this.output);
    const { noise } = forward;
    try {
      // Last, so that a run that cannot start leaves none.
      const resumedFrom = checkpoint?.progress.step ?? 0;
      const log = RunLog.open(options.log, options.force, resumedFrom, options.resume);
      const { tensorboard } = options;
      if (tensorboard !== undefined) log.listen(TensorBoardLog.open(tensorboard, resumedFrom));
      const parts = {
        ...{
          session,
          graph,
          batches,
          evaluation,
          writing,
          log,
          settings,
          total,
          rescueFolder,
          noise,
        },
      };
      const loop = new TrainingLoop(parts, options);
      if (checkpoint) loop.restore(checkpoint.progress, checkpoint.vectors.get('best'));
      const written = await this.finished(loop, async (theta) => {
        const files = await this.write(forward, theta, log);
        const { best, confusion } = loop;
        const { finalOutput: shownAs } = options;
        const run = { output: this.output, shownAs, files: this.files(), provider: used, settings };
        const { classes: classNames } = data;
        const more = { best, confusion, classNames, records: log.records, ...this.cost() };
        const { report, force } = options;
        if (report !== undefined) await writeReport(report, { ...run, ...more }, force);
        return files;
      });
      const { nodes, fallbacks } = session.placement ?? { nodes: {}, fallbacks: [] };
      return {
        ...written,
        steps: loop.step,
        ...(loop.warnings.length > 0 ? { warnings: loop.warnings } : {}),
        ...(data.skipped === undefined ? {} : { skippedRows: data.skipped }),
        ...(data.classes === undefined ? {} : { classes: data.classes }),
        ...(loop.losses ? { loss: loop.losses } : {}),
        ...(options.lossScale === 1 ? {} : { lossScale: scaleOf(loop) }),
        ...(loop.evaluation ? { eval: loop.evaluation.eval } : {}),
        ...(loop.best ? { best: { step: loop.best.step, loss: loop.best.loss } } : {}),
        ...(guarded === undefined ? {} : { guard: guarded }),
        ...(evaluation?.guarded === undefined ? {} : { evalGuard: evaluation.guarded }),
        ...(forward.withoutGradient.length === 0
          ? {}
          : { withoutGradient: forward.withoutGradient }),
        provider: { requested, used, nodes, fallbacks },
        ...this.cost(),
      };
    } finally {
      await session.release();
      await evaluation?.evaluator.release();
      await writing?.release();
    }
  }

  /** Runs to the end and writes the files; a run whose files cannot be written is kept. */
  private async finished<T>(loop: TrainingLoop, write: (theta: Float32Array) => Promise<T>) {
    try {
      return await write(await loop.run());
    } catch (error) {
      throw await loop.keeping(error);
    }
  }

  /** Compares a graph with the file, both with the adapters that the file has. */
  private guarded(
    forward: ForwardGraph,
    { graph, size }: Pick<StepGraph, 'graph' | 'size'>,
    batches: Batches,
    provider: ProviderName,
  ): Promise<GuardReport | undefined> {
    const { model } = this.patched;
    const theta = this.theta(forward, size);
    return guardFirstBatch(
      { model, graph, forward, batches, theta },
      { ...this.options, provider },
    );
  }

  private noteWithoutGradient({ withoutGradient, output }: ForwardGraph): void {
    if (withoutGradient.length === 0) return;
    this.options.onNote(
      `no gradient, for they do not reach ${output.name}: ${withoutGradient.join(', ')}`,
    );
  }

  private noteLayersWithoutBias({ withoutBias, set }: ForwardGraph): void {
    const [first, ...more] = withoutBias;
    if (first === undefined) return;
    const sites = set.adapters.flatMap((adapter) => adapter.sites).length;
    this.options.onNote(
      `${withoutBias.length} of ${sites} adapted layers have no bias that could train: ${first}${more.length > 0 ? ' and others' : ''}`,
    );
  }

  private updates({ perEpoch }: Batches): number {
    const { steps, epochs, accumulate } = this.options;
    return steps ?? Math.max(1, Math.ceil((epochs * perEpoch) / accumulate));
  }

  /** The checkpoint to go on from, if that was asked for. */
  private checkpoint(graph: StepGraph, settings: Settings) {
    const { checkpoint: folder, resume, force, onNote } = this.options;
    if (folder === undefined) return undefined;
    if (!hasCheckpoint(folder)) {
      if (resume) onNote(`${folder} holds no checkpoint yet: starting from the beginning`);
      return undefined;
    }
    if (!resume && !force) {
      throw new OnnxLoraError('output-exists', `${folder} holds the checkpoint of another run`, {
        hint: 'Go on from it with `resume: true`, start anew with `force: true`, or name another folder.',
      });
    }
    if (!resume) return undefined;
    const names = graph.state.map(({ name }) => name);
    const checkpoint = readCheckpoint(folder, names, graph.size);
    const changes = checkSettings(folder, checkpoint.progress.settings, settings, force);
    onNote(`resuming from step ${checkpoint.progress.step}`);
    for (const change of changes) onNote(`with another setting than before: ${change}`);
    return checkpoint;
  }

  private initial(forward: ForwardGraph, graph: StepGraph): Map<string, TensorValue> {
    const vectors = graph.state.map(({ name }) => [name, new Float32Array(graph.size)] as const);
    const initial = new Map(vectors);
    initial.set('theta', this.theta(forward, graph.size));
    return tensors(initial, graph);
  }

  private theta({ parameters }: ForwardGraph, size: number): Float32Array<ArrayBuffer> {
    const theta = new Float32Array(size);
    for (const { name, offset } of parameters) {
      theta.set(this.reader.float32(this.patched.constant(name)), offset);
    }
    return theta;
  }

  private async evaluation(provider: ProviderName) {
    const { evalData, threads } = this.options;
    if (evalData === undefined) return undefined;
    const data = await this.open(evalData, this.datasets[0]?.classes);
    const forward = await this.forward(data, provider);
    const batches = await this.batches(data, forward, false);
    const built = { graph: forward.graph, size: sizeOf(forward.parameters) };
    const guarded = await this.guarded(forward, built, batches, provider);
    const evaluator = await Evaluator.open(this.patched.model, forward, {
      ...{ provider, threads, optimization: guarded?.optimization },
    });
    return { evaluator, batches, guarded };
  }

  private async writing(
    forward: ForwardGraph,
    { isChat = false }: Dataset,
    how: Pick<OpenSessionOptions, 'optimization'> & { readonly provider: ProviderName },
  ): Promise<TrainedWriting | undefined> {
    if (this.options.samplePrompt === undefined) return undefined;
    return await TrainedWriting.open(this.opened, forward, isChat, { ...this.options, ...how });
  }

  private async write(forward: ForwardGraph, theta: Float32Array, log: RunLog) {
    const { saveAdapter, plot, force } = this.options;
    const { set } = forward;
    const edit = trainedModel(this.patched, forward, theta, this.datasets[0]?.classes);
    const alsoRead = runInputs(this.patched.model, this.options);
    const adapter = saveAdapter && { output: saveAdapter, name: set.set, force };
    // A folder that is not there yet is made when the model is: then there is nothing older in it.
    const isPlaced = saveAdapter !== undefined && hasPlace(saveAdapter);
    const beside =
      adapter && isPlaced ? await extractedFiles(await this.opened.edited(edit), adapter) : [];
    await writeModel(this.patched.model, edit, this.output, { force, alsoRead }, { beside });
    if (plot !== undefined) await writePlot(plot, log.records, force);
    if (!adapter) return { output: this.output };
    if (!isPlaced) await extract(this.output, adapter);
    return { output: this.output, adapter: adapter.output };
  }

  /** In standard operators, which every runtime has. */
  private async emit(data: Dataset): Promise<TrainResult> {
    const { options, output } = this;
    const forward = await this.forward(data, undefined, options.dropout);
    this.noteWithoutGradient(forward);
    const batches = await this.batches(data, forward, options.shuffle);
    const step = await buildStepGraph(
      { ...forward, doubt: undefined },
      stepOptionsOf({ ...options, fused: false }),
    );
    const guarded = await this.guarded(forward, step, batches, 'cpu');
    const initial = step.graph.fresh(INITIAL_THETA);
    const manifest = stepGraphManifest(forward, step, options, initial);
    const theta = this.theta(forward, step.size);
    step.graph.addInitializer({
      name: initial,
      dtype: 'float32',
      dims: [step.size],
      data: new Uint8Array(theta.buffer),
    });
    const pieces = step.graph.modelPieces({ [STEP_MANIFEST_KEY]: manifest });
    await writeFiles([{ path: output, pieces }], runInputs(this.patched.model, options), options);
    const found = guarded === undefined ? {} : { guard: guarded };
    return { output, steps: 0, ...found, ...this.cost() };
  }

  private files() {
    const { data, evalData } = this.options;
    return { model: this.patched.model.source.label, data, evalData };
  }

  private cost() {
    const seconds = (performance.now() - this.start) / 1000;
    return { seconds, peakMemoryBytes: process.resourceUsage().maxRSS * KILO };
  }
}

/** Whether adapters go to a file, or to a folder that is there. */
function hasPlace(saveAdapter: string): boolean {
  return formatOf(saveAdapter) !== 'peft' || kindOf(saveAdapter) === 'folder';
}

function tensors(
  vectors: ReadonlyMap<string, Float32Array>,
  { state, size }: StepGraph,
): Map<string, TensorValue> {
  const value = (data: Float32Array) => ({ dtype: 'float32', dims: [size], data }) as const;
  return new Map(state.map(({ name, input }) => [input, value(vectors.get(name)!)]));
}

async function writePlot(path: string, records: readonly LogRecord[], force: boolean) {
  const svg = lossCurveSvg(curveOf(records));
  await writeFiles([{ path, pieces: [Buffer.from(svg)] }], [], { force });
}

function scaleOf({
  scale: { value, skipped },
}: TrainingLoop): NonNullable<TrainResult['lossScale']> {
  return { last: value, skipped };
}
