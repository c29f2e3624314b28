/** The result of a training run, and how it is put together. */
import type { Dataset } from '../../data/dataset.js';
import type { PlacedNode } from '../../runtime/placement.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import type { ProviderChoice } from '../../runtime/providers.js';
import type { StatefulSession } from '../../runtime/stateful-session.js';
import type { GuardReport } from '../../training/guard/guard.js';
import type { TrainingLoop } from '../../training/loop.js';
import type { RunContext } from './context.js';
import type { Evaluation } from './evaluation.js';
import type { Step } from './step.js';

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

/** The files that a run left. */
export type SavedRun = Pick<TrainResult, 'output' | 'adapter'>;

/** A run that is over, by its parts. */
export interface FinishedRun {
  readonly context: RunContext;
  readonly data: Dataset;
  readonly provider: ProviderChoice;
  readonly step: Step;
  readonly guard: GuardReport | undefined;
  readonly evaluation: Evaluation | undefined;
  readonly session: StatefulSession;
  readonly loop: TrainingLoop;
  readonly saved: SavedRun;
}

export function trainResult(run: FinishedRun): TrainResult {
  const { context, data, loop, guard, evaluation, saved } = run;
  const { warnings, losses, best, scale } = loop;
  const { withoutGradient } = run.step.forward;
  const { requested, used } = run.provider;
  const { nodes, fallbacks } = run.session.placement ?? { nodes: {}, fallbacks: [] };
  const hasScale = context.options.lossScale !== 1;
  return {
    ...saved,
    steps: loop.step,
    ...(warnings.length > 0 ? { warnings } : {}),
    ...(data.skipped === undefined ? {} : { skippedRows: data.skipped }),
    ...(data.classes === undefined ? {} : { classes: data.classes }),
    ...(losses ? { loss: losses } : {}),
    ...(hasScale ? { lossScale: { last: scale.value, skipped: scale.skipped } } : {}),
    ...(loop.evaluation ? { eval: loop.evaluation.eval } : {}),
    ...(best ? { best: { step: best.step, loss: best.loss } } : {}),
    ...(guard ? { guard } : {}),
    ...(evaluation?.guard ? { evalGuard: evaluation.guard } : {}),
    ...(withoutGradient.length > 0 ? { withoutGradient } : {}),
    provider: { requested, used, nodes, fallbacks },
    ...context.cost(),
  };
}
