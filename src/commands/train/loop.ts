/** The loop of a run and what it runs with: session, log, a model that writes. */
import type { Dataset } from '../../data/dataset.js';
import { collect } from '../../onnx/edit.js';
import { TensorBoardLog } from '../../report/tensorboard.js';
import { folderOf } from '../../runtime/runnable-form.js';
import { openStatefulSession, type StatefulSession } from '../../runtime/stateful-session.js';
import type { Batches } from '../../training/batches.js';
import type { Checkpoint } from '../../training/checkpoint.js';
import { RunLog } from '../../training/log.js';
import { type LoopParts, TrainingLoop } from '../../training/loop.js';
import type { ResolvedTrainOptions } from '../options/train.js';
import type { RunContext } from './context.js';
import { rescueFolderFor } from './outputs.js';
import type { FinishedRun } from './result.js';
import { initialState } from './resume.js';
import type { Step } from './step.js';
import { TrainedWriting } from './writing.js';

/**
 * The session that the step runs in, in the state that the run starts from.
 * @throws OnnxLoraError `runtime`, `provider`
 */
export async function openStep(
  context: RunContext,
  step: Step,
  checkpoint: Checkpoint | undefined,
  { provider, guard }: Pick<FinishedRun, 'provider' | 'guard'>,
): Promise<StatefulSession> {
  const externalFolder = folderOf(context.patched.model);
  const { graph, state } = step.graph;
  return await openStatefulSession(await collect(graph.modelPieces({}, externalFolder)), {
    provider: provider.used,
    externalFolder,
    threads: context.options.threads,
    optimization: guard?.optimization,
    memoryPattern: false,
    state,
    initial: initialState(context, step, checkpoint),
    reportPlacement: true,
  });
}

/**
 * The model that writes texts as it learns.
 * @returns undefined where no prompt asks for any
 * @throws OnnxLoraError as `TrainedWriting.open`
 */
export async function openWriting(
  { opened, options }: RunContext,
  { forward }: Step,
  { isChat = false }: Dataset,
  { provider, guard }: Pick<FinishedRun, 'provider' | 'guard'>,
): Promise<TrainedWriting | undefined> {
  if (options.samplePrompt === undefined) return undefined;
  const how = { ...options, provider: provider.used, optimization: guard?.optimization };
  return await TrainedWriting.open(opened, forward, isChat, how);
}

/** @throws OnnxLoraError `output-exists`, `io`, `not-a-file` */
export function openLog(options: ResolvedTrainOptions, checkpoint: Checkpoint | undefined): RunLog {
  const { log: path, force, resume, tensorboard } = options;
  const resumedFrom = checkpoint?.progress.step ?? 0;
  const log = RunLog.open(path, force, resumedFrom, resume);
  if (tensorboard !== undefined) log.listen(TensorBoardLog.open(tensorboard, resumedFrom));
  return log;
}

/** The loop before its first step, or where the checkpoint was taken. */
export function newLoop(
  { options, output }: RunContext,
  { forward, batches, graph }: Step,
  checkpoint: Checkpoint | undefined,
  parts: Pick<LoopParts, 'session' | 'evaluation' | 'writing' | 'log' | 'settings'>,
): TrainingLoop {
  const loop = new TrainingLoop(
    {
      ...parts,
      ...{ graph, batches, noise: forward.noise },
      total: updatesOf(options, batches),
      rescueFolder: rescueFolderFor(options.finalOutput ?? output),
    },
    options,
  );
  if (checkpoint) loop.restore(checkpoint.progress, checkpoint.vectors.get('best'));
  return loop;
}

/** Updates of the whole run. */
function updatesOf(
  { steps, epochs, accumulate }: ResolvedTrainOptions,
  { perEpoch }: Batches,
): number {
  return steps ?? Math.max(1, Math.ceil((epochs * perEpoch) / accumulate));
}
