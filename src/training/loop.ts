/** The loop: steps, evaluations, checkpoints, until the run is over or told to stop. */
import { setImmediate } from 'node:timers/promises';
import { OnnxLoraError } from '../errors.js';
import { temporaryFolder } from '../onnx/temporary.js';
import type { StatefulSession } from '../runtime/stateful-session.js';
import type { Feeds, TensorValue } from '../runtime/tensor-value.js';
import type { Batches } from './batches.js';
import { type RunProgress, type Settings, writeCheckpoint } from './checkpoint.js';
import type { Evaluator } from './evaluator.js';
import { feedsIn } from './input-names.js';
import { type Noise, noiseOf } from './layers/dropout.js';
import type { RunLog } from './log.js';
import { LossMeans } from './loss-means.js';
import { LossScale } from './loss-scale.js';
import { metricsFor } from './losses/index.js';
import { PAIR } from './losses/pairs.js';
import { probabilityWarning } from './losses/probabilities.js';
import type { ConfusionMatrix } from './metrics/confusion.js';
import { stepScalars } from './optimizers/index.js';
import type { EvalRecord, StepRecord, WrittenSample } from './records.js';
import type { RunOptions } from './run-options.js';
import { learningRate } from './schedule.js';
import type { StepGraph } from './step-graph.js';

/** The parts that the loop works with. */
export interface LoopParts {
  readonly session: StatefulSession;
  readonly graph: StepGraph;
  readonly batches: Batches;
  readonly evaluation: { readonly evaluator: Evaluator; readonly batches: Batches } | undefined;
  /** Looks at what the model writes, for people. */
  readonly writing: Writing | undefined;
  readonly log: RunLog;
  readonly settings: Settings;
  /** Random numbers that a batch takes. */
  readonly noise: Noise | undefined;
  /** Updates of the whole run. */
  readonly total: number;
  /** The folder that keeps a run that could not end. */
  readonly rescueFolder: string;
}

/** A model that writes as it learns. */
export interface Writing {
  /** @param theta the adapters that it has by then */
  write(
    theta: Float32Array<ArrayBuffer>,
    signal: AbortSignal | undefined,
  ): Promise<readonly WrittenSample[]>;
}

/** In the place of a norm that is not finite because of the scale of the loss. */
const OVERFLOW = Number.POSITIVE_INFINITY;

type Losses = NonNullable<RunProgress['losses']>;
type Best = NonNullable<RunProgress['best']>;

export class TrainingLoop {
  /** Steps done. */
  step = 0;
  /** Those of them that moved something: not one in whose batches nothing counts. */
  private updates = 0;
  losses: Losses | undefined;
  best: Best | undefined;
  evaluation: EvalRecord | undefined;
  /** Of the last evaluation. */
  confusion: ConfusionMatrix | undefined;
  /** Things that are likely not what the user meant. */
  readonly warnings: string[] = [];
  private hasNoticed = false;
  private readonly trend = new LossMeans();
  /** Steps in which nothing counted. */
  private idle = 0;
  private bestTheta: Float32Array | undefined;
  /** The factor of the loss in the backward pass. */
  readonly scale: LossScale;
  /** The folder of the last checkpoint, and the step after which it was taken. */
  private kept: { readonly step: number; readonly folder: string } | undefined;

  constructor(
    private readonly parts: LoopParts,
    private readonly options: RunOptions,
  ) {
    this.scale = new LossScale(options.lossScale);
  }

  /** Goes on from where a checkpoint was taken. */
  restore(progress: RunProgress, bestTheta: Float32Array | undefined): void {
    const { step, updates = step, losses, best, evaluation, lossScale } = progress;
    if (lossScale) this.scale.restore(lossScale);
    Object.assign(this, { step, updates, losses, best, evaluation });
    this.kept = { step, folder: this.options.checkpoint! };
    this.bestTheta = bestTheta;
  }

  /**
   * Runs to the end.
   * @returns the adapters: the last ones, or those of the best evaluation with `keepBest`
   * @throws OnnxLoraError `diverged`, `aborted`, both with a checkpoint left behind; `runtime`
   */
  async run(): Promise<Float32Array> {
    const { total } = this.parts;
    // A run that was stopped while it evaluated has that still to do.
    let isOver = this.step > 0 && (await this.evaluated());
    await this.looked(isOver);
    while (!isOver && this.step < total) {
      const record = await this.update();
      if (record) this.note(record);
      isOver = await this.evaluated();
      await this.looked(isOver);
      await this.saved(isOver || this.step === total);
    }
    return (this.options.keepBest && this.bestTheta) || (await this.finalTheta());
  }

  /**
   * One update: as many batches as are accumulated.
   * @returns undefined where nothing in them counts
   */
  private async update(): Promise<StepRecord | undefined> {
    const { batches } = this.parts;
    const { accumulate } = this.options;
    const lr = learningRate({ ...this.schedule(), kind: this.options.schedule }, this.step);
    const start = performance.now();
    const sum = { loss: 0, weight: 0, samples: 0, norm: 0 };
    for (let i = 0; i < accumulate && sum.norm !== OVERFLOW; i++) {
      await this.breathe();
      const batch = this.step * accumulate + i;
      const result = await this.batch(batch, lr, sum.weight, i === accumulate - 1);
      sum.loss += result.loss * result.weight;
      sum.weight += result.weight;
      sum.norm = result.norm;
      sum.samples += batches.samplesAt(batch);
    }
    this.step++;
    if (sum.weight === 0) return this.noteIdle();
    const isSkipped = sum.norm === OVERFLOW;
    if (isSkipped) this.noteOverflow();
    else {
      this.updates++;
      this.scale.grow();
    }
    const ms = performance.now() - start;
    return {
      step: this.step,
      epoch: round((this.step * accumulate) / batches.perEpoch),
      loss: sum.loss / sum.weight,
      gradNorm: isSkipped ? Number.NaN : sum.norm,
      lr,
      ms: round(ms),
      samplesPerSecond: round((sum.samples / ms) * 1000),
      ...(isSkipped ? { lossScale: this.scale.value } : {}),
    };
  }

  private schedule() {
    const { lr, warmup } = this.options;
    return { lr, warmup, steps: this.parts.total };
  }

  /** @param before the weight of the batches of the update before this one */
  private async batch(batch: number, lr: number, before: number, apply: boolean) {
    const { session, graph, batches } = this.parts;
    const feeds = new Map([
      ...feedsIn(graph.renamed, await batches.at(batch)),
      ...this.scalars(lr, before, apply),
      ...this.noise(batch),
    ]);
    let [loss, norm, weight] = [Number.NaN, Number.NaN, Number.NaN];
    await session.run(feeds, (outputs) => {
      loss = numberOf(outputs.get(graph.loss)!);
      norm = numberOf(outputs.get(graph.gradientNorm)!);
      weight = numberOf(outputs.get(graph.weight)!);
      this.notice(outputs, weight);
      // If nothing counts, weight decay and momentum alone would move the adapters.
      return Number.isFinite(loss) && Number.isFinite(norm) && before + weight > 0;
    });
    if (Number.isFinite(loss) && !Number.isFinite(norm) && this.scale.shrink()) {
      return { loss, norm: OVERFLOW, weight };
    }
    if (!Number.isFinite(loss) || !Number.isFinite(norm)) {
      const what = Number.isFinite(loss) ? `gradient's norm is ${norm}` : `loss is ${loss}`;
      const found = `the ${what}, expected a finite number (${batches.describe(batch)})`;
      throw await this.diverged(`step ${this.step + 1}: ${found}`);
    }
    return { loss, norm, weight };
  }

  /** Takes the warnings of the run's first batch. */
  private notice(outputs: ReadonlyMap<string, TensorValue>, weight: number): void {
    const { doubt } = this.parts.graph;
    if (this.hasNoticed || !doubt) return;
    this.hasNoticed = true;
    const found = probabilityWarning(doubt, numberOf(outputs.get(doubt.distance)!), weight);
    if (found === undefined) return;
    this.warnings.push(found);
    this.options.onNote(`warning: ${found}`);
  }

  private noteOverflow(): void {
    const { skipped, value } = this.scale;
    if (skipped > 1) return;
    this.options.onNote(
      `step ${this.step}: the gradient overflows with the loss scale ${2 * value}, so the update is left out; the scale is ${value} now`,
    );
  }

  private noteIdle(): undefined {
    const problem = `step ${this.step}: no label of its samples counts, so it moves nothing`;
    if (this.idle++ === 0) this.options.onNote(problem);
  }

  private scalars(lr: number, before: number, apply: boolean): Feeds {
    const { inputs } = this.parts.graph;
    const numbers = {
      ...stepScalars(this.options, lr, this.updates + 1),
      accumulated_weight: before,
      loss_scale: this.scale.value,
    };
    const values = Object.entries(numbers).map(([name, value]) => [name, float32(value)] as const);
    const flag = { dtype: 'bool', dims: [], data: Uint8Array.of(apply ? 1 : 0) } as const;
    const given = [...values, ['apply', flag] as const];
    return new Map(given.flatMap(([name, value]) => (inputs[name] ? [[inputs[name], value]] : [])));
  }

  private noise(batch: number): Feeds {
    const { noise } = this.parts;
    if (!noise) return new Map();
    const data = noiseOf(this.options.seed, batch, noise.size);
    return new Map([[noise.input, { dtype: 'float32', dims: [noise.size], data }]]);
  }

  /** Messages and signals get their turn, for a step blocks the thread. */
  private async breathe(): Promise<void> {
    await setImmediate();
    if (!this.options.signal?.aborted) return;
    await this.rescue();
    const { step, parts } = this;
    throw new OnnxLoraError('aborted', `interrupted after step ${step} of ${parts.total}`, {
      hint: this.wayOn(),
    });
  }

  private async diverged(problem: string): Promise<OnnxLoraError> {
    // An earlier checkpoint is a better place to go on from than what led to no finite number.
    if (!this.kept) await this.rescue();
    const cause =
      this.step === 0
        ? 'It is the first step: the model itself overflows on these inputs, or its numbers are damaged.'
        : `The likely cause is the learning rate (${this.options.lr}): try a lower \`lr\`, more \`warmup\`, or a smaller \`clip\`.`;
    const hint = `${cause}\n${this.wayOn(', force: true', ' and the new values')}`;
    return new OnnxLoraError('diverged', problem, { hint });
  }

  private async rescue(): Promise<void> {
    if (this.step === 0) return;
    await this.checkpoint(this.options.checkpoint ?? this.parts.rescueFolder);
  }

  /**
   * Keeps what a failure of anything else would lose, as that of a disk that is full.
   * @returns the error, with where the state is
   */
  async keeping(error: unknown): Promise<unknown> {
    const isTold = error instanceof OnnxLoraError && ['aborted', 'diverged'].includes(error.code);
    if (isTold || this.step === 0) return error;
    if (this.kept?.step !== this.step) await this.keepAnywhere();
    if (!(error instanceof OnnxLoraError)) {
      this.options.onNote(this.wayOn());
      return error;
    }
    const { code, message, node, hint } = error;
    const hints = [...(hint === undefined ? [] : [hint]), this.wayOn()];
    return new OnnxLoraError(code, message, { node, hint: hints.join('\n'), cause: error });
  }

  /** In the checkpoint folder, else beside the output, else among the system's temporary files. */
  private async keepAnywhere(): Promise<void> {
    const { checkpoint } = this.options;
    const folders = [
      ...(checkpoint === undefined ? [] : [() => checkpoint]),
      () => this.parts.rescueFolder,
      () => temporaryFolder('onnx-lora-run-'),
    ];
    for (const folder of folders) {
      try {
        return await this.checkpoint(folder());
      } catch (error) {
        if (!(error instanceof OnnxLoraError)) throw error;
      }
    }
  }

  private wayOn(moreOptions = '', andWhat = ''): string {
    const { kept } = this;
    if (!kept) return 'There is no state yet that is worth keeping.';
    const options = `checkpoint: ${JSON.stringify(kept.folder)}, resume: true${moreOptions}`;
    return `The state after step ${kept.step} is kept: go on with \`${options}\`${andWhat}`;
  }

  private note(record: StepRecord): void {
    const { loss } = record;
    const { first = loss, best = loss } = this.losses ?? {};
    this.losses = { first, last: loss, best: Math.min(best, loss) };
    this.parts.log.add(record);
    this.trend.add(loss);
    this.options.onProgress({
      phase: 'training',
      done: this.step,
      total: this.parts.total,
      unit: 'steps',
      detail: `loss ${loss.toPrecision(4)}`,
      trend: this.trend.values(),
    });
  }

  /**
   * Evaluates where it is time to.
   * @returns whether the run ends here, before its last step
   */
  private async evaluated(): Promise<boolean> {
    const { evaluation, total } = this.parts;
    const { evalEvery = this.perEpoch(), earlyStop } = this.options;
    const isDue = this.step === total || this.step % evalEvery === 0;
    if (evaluation && isDue && this.evaluation?.step !== this.step) await this.evaluate(evaluation);
    return earlyStop !== undefined && this.best !== undefined && this.best.since >= earlyStop;
  }

  private async evaluate({ evaluator, batches }: NonNullable<LoopParts['evaluation']>) {
    const theta = await this.theta();
    const metricOptions = { ...this.options, group: Math.max(PAIR, batches.group) };
    const metrics = metricsFor(this.options.loss, metricOptions);
    const value = { dtype: 'float32', dims: [theta.length], data: theta } as const;
    const found = await evaluator.run(batches, metrics, value, (done, total) => {
      this.options.onProgress({ phase: 'evaluating', done, total, unit: 'runs' });
      return this.breathe();
    });
    if (found.problem) {
      throw await this.diverged(`the evaluation after step ${this.step}: ${found.problem}`);
    }
    const { measures } = found;
    this.evaluation = { step: this.step, eval: measures };
    this.confusion = metrics.confusion;
    // The log comes last: it may fail, and the run go on from here.
    this.rate(measures.loss, theta);
    this.parts.log.add(this.evaluation);
  }

  private rate(loss: number, theta: Float32Array): void {
    if (this.best && !(loss < this.best.loss)) {
      this.best = { ...this.best, since: this.best.since + 1 };
      return;
    }
    this.best = { step: this.step, loss, since: 0 };
    if (this.options.keepBest) this.bestTheta = theta;
  }

  /** Looks at what the model writes where it is time to. */
  private async looked(isOver: boolean): Promise<void> {
    const { writing, log, total } = this.parts;
    const { sampleEvery = this.perEpoch(), signal } = this.options;
    const isDue = isOver || this.step === total || this.step % sampleEvery === 0;
    // A resumed run may have it in its log already.
    if (!writing || !isDue || log.lastLook === this.step) return;
    const samples = await writing.write(await this.theta(), signal).catch(async (error) => {
      if (signal?.aborted) await this.breathe();
      throw error;
    });
    for (const { prompt, text } of samples) {
      this.options.onNote(
        `step ${this.step}: ${JSON.stringify(prompt)} -> ${JSON.stringify(text)}`,
      );
    }
    log.add({ step: this.step, samples });
  }

  private async saved(isLast: boolean): Promise<void> {
    const { checkpoint, checkpointEvery = this.perEpoch() } = this.options;
    if (checkpoint === undefined || !(isLast || this.step % checkpointEvery === 0)) return;
    await this.checkpoint(checkpoint);
  }

  /** Takes a checkpoint, unless the numbers overflowed: then an earlier one is kept. */
  private async checkpoint(folder: string): Promise<void> {
    const { settings } = this.parts;
    const { step, updates, losses, best, evaluation, bestTheta } = this;
    const state = await this.parts.session.readState();
    const vectors = new Map(
      this.parts.graph.state.map(({ name, input }) => [
        name,
        state.get(input)!.data as Float32Array,
      ]),
    );
    if (!allFinite(vectors.get('theta')!)) return;
    // Batches of an update that was broken off are taken again.
    vectors.get('accumulated')?.fill(0);
    if (bestTheta) vectors.set('best', bestTheta);
    await writeCheckpoint(folder, {
      progress: { version: 1, step, updates, settings, losses, best, evaluation, ...this.scaled() },
      vectors,
    });
    this.kept = { step, folder };
  }

  private scaled(): Pick<RunProgress, 'lossScale'> {
    return this.options.lossScale === 1 ? {} : { lossScale: this.scale.state };
  }

  private perEpoch(): number {
    return Math.max(1, Math.round(this.parts.batches.perEpoch / this.options.accumulate));
  }

  private async finalTheta(): Promise<Float32Array> {
    const theta = await this.theta();
    if (allFinite(theta)) return theta;
    throw await this.diverged(`step ${this.step}: its update overflows, expected finite numbers`);
  }

  private async theta(): Promise<Float32Array<ArrayBuffer>> {
    const { session, graph } = this.parts;
    return (await session.readState()).get(graph.inputs.theta!)!.data as Float32Array<ArrayBuffer>;
  }
}

function allFinite(values: Float32Array): boolean {
  return values.every(Number.isFinite);
}

function numberOf({ data }: TensorValue): number {
  return Number(data[0]);
}

function float32(value: number): TensorValue {
  return { dtype: 'float32', dims: [], data: Float32Array.of(value) };
}

function round(value: number): number {
  return Number(value.toPrecision(6));
}
