/** The time that a model takes, operator by operator. */
import { handler, type OptionsOf } from '../options/option.js';
import { resolveOptions } from '../options/resolve.js';
import { whole } from '../options/schemas.js';
import { nativeFeeds, openNative, runNative } from './native.js';
import { type Placement, placementOf } from './placement.js';
import { type ProfileEvent, ProfileRecord } from './profile-events.js';
import { type OpenSessionOptions, sessionOptions } from './session-options.js';
import type { Feeds } from './tensor-value.js';

const ownOptions = {
  /** Runs that do not count, in which kernels are compiled and memory is taken. Default 1. */
  warmup: handler(whole(0), { default: 1 }),
  /** Runs to take the mean of. Default 3. */
  runs: handler(whole(1), { default: 3 }),
};

const profileOptions = { ...sessionOptions, ...ownOptions };

/** Options of `profileModel`. */
export interface ProfileOptions extends OpenSessionOptions, OptionsOf<typeof ownOptions> {}

/** The time of one operator's kernels in a run. */
export interface OperatorTime {
  /** Type of the operator. */
  readonly op: string;
  /** Milliseconds of all its nodes together, per run. */
  readonly ms: number;
  /** Number of its nodes. */
  readonly count: number;
}

/** Times of a model's operators. */
export interface Profile {
  /** Which provider ran which node. */
  readonly placement: Placement;
  /** Mean of a run while it is recorded, which is more than the kernels take. */
  readonly msPerRun: number;
  /**
   * The slowest first. On WebGPU the time that the GPU takes; on CUDA, DirectML and CoreML the time
   * that it takes to hand the work over.
   */
  readonly operators: readonly OperatorTime[];
}

/**
 * Runs a model some times with ONNX Runtime's profiler.
 * @throws OnnxLoraError as `openSession` and `Session.run` do
 * @example
 * ```ts
 * import { openDataset, profileModel } from 'onnx-lora';
 *
 * const data = await openDataset('test.safetensors');
 * const { operators } = await profileModel('model.onnx', await data.batch([0, 1, 2, 3]));
 * for (const { op, ms, count } of operators.slice(0, 5)) console.log(op, ms, count);
 * data.close();
 * ```
 */
export async function profileModel(
  model: string | Uint8Array,
  feeds: Feeds,
  given: ProfileOptions = {},
): Promise<Profile> {
  const { warmup, runs, ...options } = resolveOptions(profileOptions, given, 'profileModel');
  const record = new ProfileRecord();
  try {
    const native = await openNative(model, options, record.options);
    try {
      const inputs = nativeFeeds(native, feeds);
      for (let i = 0; i < warmup + runs; i++) {
        await runNative(native, inputs, native.session.outputNames);
      }
      const events = record.end(native.session);
      const counted = eventsFrom(events, warmup);
      return {
        placement: placementOf(events, native.provider),
        msPerRun: sum(counted.filter(isRun).map(({ dur }) => dur)) / runs / 1000,
        operators: operatorTimes(counted, runs),
      };
    } finally {
      await native.session.release();
    }
  } finally {
    record.delete();
  }
}

function isRun({ cat, name }: ProfileEvent): boolean {
  return cat === 'Session' && name === 'model_run';
}

/** The events since the run of this number began: GPUs may work on after the end of a run. */
function eventsFrom(events: readonly ProfileEvent[], run: number): ProfileEvent[] {
  const starts = events.filter(isRun).map(({ ts }) => ts);
  return events.filter(({ ts }) => ts >= starts[run]!);
}

function operatorTimes(events: readonly ProfileEvent[], runs: number): OperatorTime[] {
  const onGpu = events.some(({ cat }) => cat === 'Api');
  const times = new Map<string, { us: number; count: number }>();
  for (const event of events) {
    const op = operatorOf(event, onGpu);
    if (op === undefined) continue;
    const { us, count } = times.get(op) ?? { us: 0, count: 0 };
    times.set(op, { us: us + event.dur, count: count + 1 });
  }
  return [...times]
    .map(([op, { us, count }]) => ({ op, ms: us / runs / 1000, count: count / runs }))
    .sort((a, b) => b.ms - a.ms);
}

/** The operator whose kernel the event is the time of. */
function operatorOf({ cat, name, args }: ProfileEvent, onGpu: boolean): string | undefined {
  // Node, operator and program, of which the node's name may hold any character.
  if (cat === 'Api') return name.split('&').at(-2);
  if (cat !== 'Node' || !name.endsWith('_kernel_time')) return undefined;
  const handsOver = onGpu && args.provider === 'WebGpuExecutionProvider';
  const isCopy = args.op_name?.startsWith('Memcpy');
  return handsOver && !isCopy ? undefined : args.op_name;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
