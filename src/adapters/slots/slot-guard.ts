/**
 * The guard of a slotted model: with nothing in its slots it has to compute what its base does, which is
 * the file without them.
 */
import { OnnxLoraError } from '../../errors.js';
import { collect } from '../../onnx/edit.js';
import type { Model } from '../../onnx/model.js';
import { deviationOf } from '../../runtime/deviation.js';
import { comparedOutputs, type Outputs } from '../../runtime/difference.js';
import { folderOf, runnableForm } from '../../runtime/runnable-form.js';
import { findWorkingInputs } from '../../runtime/samples.js';
import { openSession, type Session } from '../../runtime/session.js';
import type { Feeds } from '../../runtime/tensor-value.js';
import { defaultTolerance } from '../../runtime/tolerance.js';
import type { OpenedModel } from '../model/opened.js';
import type { SlotManifest } from '../model/slot-manifest.js';
import { emptyFeeds } from './feeds.js';
import { withoutSlots } from './remove.js';

/** The findings of the comparison. */
export interface SlotGuardReport {
  /** Over all outputs, as a share of the output's greatest number; null where nothing was compared. */
  readonly maxRelDiff: number | null;
  /** The largest relative difference that counts as rounding; null where nothing was compared. */
  readonly tolerance: number | null;
  /** Whether the outputs agreed; null where nothing was compared. */
  readonly passed: boolean | null;
  /** Why nothing was compared. */
  readonly reason?: string;
}

/** One run of the base, or why there is none. */
type BaseRun =
  | { readonly feeds: Feeds; readonly outputs: Outputs; readonly tolerance: number }
  | { readonly reason: string };

/** Runs the base of a slotted model once, on random inputs and without optimizations. */
export async function runBase(opened: OpenedModel, threads: number | undefined): Promise<BaseRun> {
  const { model } = await withoutSlots(opened);
  try {
    return await runOnce(model, threads);
  } catch (error) {
    if (!(error instanceof OnnxLoraError)) throw error;
    return { reason: error.message };
  }
}

async function runOnce(base: Model, threads: number | undefined): Promise<BaseRun> {
  const externalFolder = folderOf(base);
  const form = await runnableForm(base, 'cpu', externalFolder);
  const session = await openSession(
    form ?? (await collect([{ source: base.source, ...base.range }])),
    {
      ...{ threads, optimization: 'disabled', externalFolder },
    },
  );
  try {
    const [feeds] = await findWorkingInputs(session, base, 0, 1);
    const [outputs, again] = [await session.run(feeds!), await session.run(feeds!)];
    if (differences(outputs, again).some((share) => share > 0)) {
      return { reason: 'two runs of the base differ: it draws random numbers' };
    }
    const dtypes = comparedOutputs(outputs).map((name) => outputs.get(name)!.dtype);
    return { feeds: feeds!, outputs, tolerance: defaultTolerance([base], dtypes) };
  } finally {
    await session.release();
  }
}

/**
 * Compares the model, with empty slots, with a run of its base.
 * @throws OnnxLoraError `verification`; the session is closed then
 */
export async function compareWithBase(
  { model }: OpenedModel,
  { slots }: SlotManifest,
  session: Session,
  base: BaseRun,
): Promise<SlotGuardReport> {
  if ('reason' in base) return { maxRelDiff: null, tolerance: null, passed: null, ...base };
  const { feeds, outputs, tolerance } = base;
  try {
    const found = await session.run(new Map([...feeds, ...emptyFeeds(slots, session.provider)]));
    const maxRelDiff = Math.max(0, ...differences(outputs, found));
    if (maxRelDiff <= tolerance) return { maxRelDiff, tolerance, passed: true };
    throw failure(model.source.label, maxRelDiff, tolerance);
  } catch (error) {
    await session.release();
    throw error;
  }
}

function differences(expected: Outputs, found: Outputs): number[] {
  return comparedOutputs(expected).map((name) => {
    const [a, b] = [expected.get(name)!, found.get(name)];
    if (a.dims.join() !== b?.dims.join()) return Number.POSITIVE_INFINITY;
    return deviationOf(a, b).share;
  });
}

function failure(label: string, maxRelDiff: number, tolerance: number): OnnxLoraError {
  return new OnnxLoraError(
    'verification',
    `${label} with empty slots does not compute what its base does: its outputs differ by ${maxRelDiff.toPrecision(2)} of their greatest number, tolerance ${tolerance}`,
    {
      hint: 'Open it with { optimization: "disabled" }. If that does not help, keep the model and this message for whoever maintains your copy of onnx-lora; { guard: false } opens it all the same.',
    },
  );
}
