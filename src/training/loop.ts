/** The loop: steps, evaluations, checkpoints, until the run is over or told to stop. */
import { setImmediate } from 'node:timers/promises';
import { OnnxLoraError } from '../errors.js';
import type { StatefulSession } from '../runtime/stateful-session.js';
import type { Feeds, TensorValue } from '../runtime/tensor-value.js';
import type { Batches } from './batches.js';
import { type RunProgress, type Settings, writeCheckpoint } from './checkpoint.js';
import type { Evaluator } from './evaluator.js';
import { NOISE, noiseOf } from './layers/dropout.js';
import type { EvalRecord, RunLog, StepRecord } from './log.js';
import type { LossName } from './losses/index.js';
import { metricsFor } from './metrics/index.js';
import { stepScalars } from './optimizer.js';
import type { ResolvedOptions } from './options.js';
import { learningRate } from './schedule.js';
import type { StepGraph } from './step-graph.js';

/** What the loop works with. */
export interface LoopParts {
  readonly session: StatefulSession;
  readonly graph: StepGraph;
  readonly batches: Batches;
  readonly evaluation: { readonly evaluator: Evaluator; readonly batches: Batches } | undefined;
  readonly log: RunLog;
  readonly settings: Settings;
  /** Random numbers that a batch takes. */
  readonly noise: number;
  /** Updates of the whole run. */
  readonly total: number;
  /** Where a run that could not end is kept. */
  readonly rescueFolder: string;
}

type Losses = NonNullable<RunProgress['losses']>;
type Best = NonNullable<RunProgress['best']>;

export class TrainingLoop {
  /** Updates done. */
  step = 0;
  losses: Losses | undefined;
  best: Best | undefined;
  evaluation: EvalRecord | undefined;
  private bestTheta: Float32Array | undefined;

  constructor(
    private readonly parts: LoopParts,
    private readonly options: ResolvedOptions,
  ) {}

  /** Goes on from where a checkpoint was taken. */
  restore({ step, losses, best }: RunProgress, bestTheta: Float32Array | undefined): void {
    Object.assign(this, { step, losses, best });
    this.bestTheta = bestTheta;
  }

  /**
   * Runs to the end.
   * @returns the adapters: the last ones, or those of the best evaluation with `keepBest`
   * @throws OnnxLoraError `diverged`, `aborted`, both with a checkpoint left behind; `runtime`
   */
  async run(): Promise<Float32Array> {
    const { total } = this.parts;
    while (this.step < total) {
      const record = await this.update();
      this.note(record);
      const isLast = this.step === total;
      if (await this.evaluated(isLast)) break;
      await this.saved(isLast);
    }
    return (this.options.keepBest && this.bestTheta) || (await this.theta());
  }

  /** One update: as many batches as are accumulated. */
  private async update(): Promise<StepRecord> {
    const { batches } = this.parts;
    const { accumulate } = this.options;
    const lr = learningRate({ ...this.schedule(), kind: this.options.schedule }, this.step);
    const start = performance.now();
    const sum = { loss: 0, samples: 0, norm: 0 };
    for (let i = 0; i < accumulate; i++) {
      await this.breathe();
      const batch = this.step * accumulate + i;
      const result = await this.batch(batch, lr, i === accumulate - 1);
      sum.loss += result.loss / accumulate;
      sum.norm = result.norm;
      sum.samples += batches.samplesAt(batch);
    }
    this.step++;
    const ms = performance.now() - start;
    return {
      step: this.step,
      epoch: round((this.step * accumulate) / batches.perEpoch),
      loss: sum.loss,
      gradNorm: sum.norm,
      lr,
      ms: round(ms),
      samplesPerSecond: round((sum.samples / ms) * 1000),
    };
  }

  private schedule() {
    const { lr, warmup } = this.options;
    return { lr, warmup, steps: this.parts.total };
  }

  private async batch(batch: number, lr: number, apply: boolean) {
    const { session, graph, batches } = this.parts;
    const feeds = new Map([
      ...(await batches.at(batch)),
      ...this.scalars(lr, apply),
      ...this.noise(batch),
    ]);
    let [loss, norm] = [Number.NaN, Number.NaN];
    await session.run(feeds, (outputs) => {
      loss = numberOf(outputs.get(graph.loss)!);
      norm = numberOf(outputs.get(graph.gradientNorm)!);
      return Number.isFinite(loss) && Number.isFinite(norm);
    });
    if (!Number.isFinite(loss) || !Number.isFinite(norm)) throw await this.diverged(loss, norm, lr);
    return { loss, norm };
  }

  private scalars(lr: number, apply: boolean): Feeds {
    const scalars = Object.entries(stepScalars(this.options, lr, this.step + 1));
    const feeds = scalars.map(([name, value]) => [name, float32(value)] as const);
    const flag = { dtype: 'bool', dims: [], data: Uint8Array.of(apply ? 1 : 0) } as const;
    return new Map<string, TensorValue>([...feeds, ['apply', flag]]);
  }

  private noise(batch: number): Feeds {
    const { noise: length } = this.parts;
    if (length === 0) return new Map();
    const data = noiseOf(this.options.seed, batch, length);
    return new Map([[NOISE, { dtype: 'float32', dims: [length], data }]]);
  }

  /** Messages and signals get their turn, for a step blocks the thread. */
  private async breathe(): Promise<void> {
    await setImmediate();
    if (!this.options.signal?.aborted) return;
    const kept = await this.rescue();
    throw new OnnxLoraError(
      'aborted',
      `interrupted behind step ${this.step} of ${this.parts.total}`,
      {
        hint: kept,
      },
    );
  }

  private async diverged(loss: number, norm: number, lr: number): Promise<OnnxLoraError> {
    const what = Number.isFinite(loss) ? `gradient's norm is ${norm}` : `loss is ${loss}`;
    const cause =
      this.losses === undefined
        ? 'It is the first step: the model itself overflows on these inputs, or its numbers are damaged.'
        : `The likely cause is the learning rate (${lr}): try a lower --lr, more --warmup, or --clip 1.`;
    const kept = await this.rescue();
    return new OnnxLoraError(
      'diverged',
      `step ${this.step + 1}: the ${what}, expected a finite number`,
      { hint: `${cause}\n${kept}` },
    );
  }

  /** Keeps the last good state. */
  private async rescue(): Promise<string> {
    if (this.step === 0) return 'Nothing was trained yet, so nothing is kept.';
    const folder = this.options.checkpoint ?? this.parts.rescueFolder;
    await this.checkpoint(folder);
    return `The state behind step ${this.step} is kept: go on with --checkpoint ${folder} --resume`;
  }

  private note(record: StepRecord): void {
    const { loss } = record;
    const { first = loss, best = loss } = this.losses ?? {};
    this.losses = { first, last: loss, best: Math.min(best, loss) };
    this.parts.log.add(record);
    this.options.onProgress({
      phase: 'training',
      done: this.step,
      total: this.parts.total,
      unit: 'steps',
      detail: `loss ${loss.toPrecision(4)}`,
    });
  }

  /** @returns whether the run ends here, before its last step */
  private async evaluated(isLast: boolean): Promise<boolean> {
    const { evaluation } = this.parts;
    const { evalEvery = this.perEpoch(), earlyStop } = this.options;
    if (!evaluation || !(isLast || this.step % evalEvery === 0)) return false;
    const theta = await this.theta();
    const metrics = metricsFor(this.options.loss as LossName, this.options);
    const value = { dtype: 'float32', dims: [theta.length], data: theta } as const;
    const { evaluator, batches } = evaluation;
    const result = await evaluator.run(batches, metrics, value, (done, total) => {
      this.options.onProgress({ phase: 'evaluating', done, total, unit: 'runs' });
      return this.breathe();
    });
    this.evaluation = { step: this.step, eval: result };
    this.parts.log.add(this.evaluation);
    this.rate(result.loss!, theta);
    return earlyStop !== undefined && this.best!.since >= earlyStop;
  }

  private rate(loss: number, theta: Float32Array): void {
    if (this.best && !(loss < this.best.loss)) {
      this.best = { ...this.best, since: this.best.since + 1 };
      return;
    }
    this.best = { step: this.step, loss, since: 0 };
    if (this.options.keepBest) this.bestTheta = theta;
  }

  private async saved(isLast: boolean): Promise<void> {
    const { checkpoint, checkpointEvery = this.perEpoch() } = this.options;
    if (checkpoint === undefined || !(isLast || this.step % checkpointEvery === 0)) return;
    await this.checkpoint(checkpoint);
  }

  private async checkpoint(folder: string): Promise<void> {
    const { settings } = this.parts;
    const { step, losses, best, bestTheta } = this;
    const state = await this.parts.session.readState();
    const vectors = new Map([...state].map(([name, { data }]) => [name, data as Float32Array]));
    if (bestTheta) vectors.set('best', bestTheta);
    await writeCheckpoint(folder, {
      progress: { version: 1, step, settings, losses, best },
      vectors,
    });
  }

  private perEpoch(): number {
    return Math.max(1, Math.round(this.parts.batches.perEpoch / this.options.accumulate));
  }

  private async theta(): Promise<Float32Array> {
    return (await this.parts.session.readState()).get('theta')!.data as Float32Array;
  }
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
