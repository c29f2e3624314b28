/** A whole training run, from the files it reads to the files it leaves. */
import { headEdit, parseHead } from '../../adapters/edit/head.js';
import { labelsOf } from '../../adapters/model/labels.js';
import { type OpenedModel, withModel } from '../../adapters/model/opened.js';
import type { Dataset } from '../../data/dataset.js';
import { type ProviderChoice, resolveProvider } from '../../runtime/providers.js';
import type { TrainingLoop } from '../../training/loop.js';
import { theSet } from '../../training/trainable.js';
import type { ResolvedTrainOptions } from '../options/train.js';
import { RunContext } from './context.js';
import { emitStep } from './emit.js';
import { openEvaluation } from './evaluation.js';
import { newLoop, openLog, openStep, openWriting } from './loop.js';
import { checkOutputs, claimOutputs } from './outputs.js';
import { type TrainResult, trainResult } from './result.js';
import { checkpointToResume } from './resume.js';
import { saveRun } from './save.js';
import { settingsOf } from './settings.js';
import { buildStep } from './step.js';

/**
 * Trains the adapters of the patched model at `path`.
 * @throws OnnxLoraError `invalid-argument`, `invalid-data`, `no-adapter`, `unsupported`, `provider`,
 * `verification` where the guard finds another model, `checkpoint`, `diverged`, `aborted`, and those of
 * reading and writing
 */
export async function runTraining(path: string, given: ResolvedTrainOptions): Promise<TrainResult> {
  const options = { ...given, onNote: onceEach(given.onNote) };
  return await withModel(path, async (opened) => {
    if (options.head === undefined) return await run(new RunContext(opened, path, options));
    // The loss looks at what the head makes, not at what it reads.
    const onHead = { ...options, modelOutput: undefined };
    return await run(new RunContext(await withHead(opened, options, options.head), path, onHead));
  });
}

/** If training and evaluation read one file, each note on it comes twice. */
function onceEach(onNote: (text: string) => void): (text: string) => void {
  const told = new Set<string>();
  return (text) => {
    if (told.size < told.add(text).size) onNote(text);
  };
}

/** The model with a new head, which no file has yet. */
function withHead(
  opened: OpenedModel,
  { name, modelOutput, seed }: ResolvedTrainOptions,
  head: string,
): Promise<OpenedModel> {
  const { patched } = opened;
  const plan = { plan: parseHead(head), output: modelOutput, seed };
  return opened.edited(headEdit(patched, theSet(patched, name), plan));
}

/** Whatever is claimed and opened on the way is given back at its end. */
async function run(context: RunContext): Promise<TrainResult> {
  const { options, output, patched } = context;
  checkOutputs(patched.model, output, options);
  const claims = claimOutputs(output, options);
  try {
    const data = await context.openData(options.data, labelsOf(patched));
    const emitsOnly = options.emitStepGraph !== undefined;
    return await (emitsOnly ? emitStep(context, data) : trainOn(context, data));
  } finally {
    context.closeData();
    for (const claim of claims) claim.release();
  }
}

/** Nothing is written before the end but the log and checkpoints. */
async function trainOn(context: RunContext, data: Dataset): Promise<TrainResult> {
  const { options, patched } = context;
  const provider = await chosenProvider(options);
  const step = await buildStep(context, data, provider.used);
  const guard = await context.guard(step, provider.used);
  const opened: { release(): Promise<void> }[] = [];
  try {
    const evaluation = await openEvaluation(context, data, provider.used);
    if (evaluation) opened.push(evaluation.evaluator);
    const samples = { trained: data, evaluated: evaluation?.data };
    const settings = settingsOf(options, step.forward, samples, patched.model.source.size);
    const checkpoint = checkpointToResume(options, step.graph, settings);
    const writing = await openWriting(context, step, data, { provider, guard });
    if (writing) opened.push(writing);
    const session = await openStep(context, step, checkpoint, { provider, guard });
    opened.push(session);
    // Last, so that a run that cannot start leaves none.
    const log = openLog(options, checkpoint);
    const parts = { session, evaluation, writing, log, settings };
    const loop = newLoop(context, step, checkpoint, parts);
    const finished = { context, data, provider, step, loop };
    const saved = await kept(loop, async () =>
      saveRun({ ...finished, settings, log }, await loop.run()),
    );
    return trainResult({ ...finished, guard, evaluation, session, saved });
  } finally {
    for (const one of opened.reverse()) await one.release();
  }
}

async function chosenProvider(options: ResolvedTrainOptions): Promise<ProviderChoice> {
  const choice = await resolveProvider(options.provider);
  const { requested, used, reason } = choice;
  if (requested === 'auto') options.onNote(`provider auto: ${used} (${reason})`);
  return choice;
}

/** A run whose end fails, as where its files cannot be written, keeps its state. */
async function kept<T>(loop: TrainingLoop, end: () => Promise<T>): Promise<T> {
  try {
    return await end();
  } catch (error) {
    throw await loop.keeping(error);
  }
}
