/**
 * The guard: before a graph that was built from a model file is trusted, the file itself runs on the
 * first batch, and the graph has to give the same numbers but for rounding. ONNX Runtime computes the
 * file without any optimization, which is what the file says; the graph runs as it is going to.
 */
import { OnnxLoraError } from '../../errors.js';
import { nodeLabel } from '../../onnx/model.js';
import { deviationOf } from '../../runtime/deviation.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import { type TensorValue, tensorToFloat64 } from '../../runtime/tensor-value.js';
import { FileRuns } from './file-runs.js';
import { type Difference, firstDifference } from './first-difference.js';
import { runGraph } from './graph-run.js';
import type { Guarded } from './guarded.js';
import { withTokensShown } from './shown-tokens.js';
import { guardTolerance } from './tolerance.js';

export interface GuardOptions {
  /** The provider of the graph; the file runs on the CPU. */
  readonly provider: ProviderName;
  readonly threads?: number | undefined;
}

/** The findings of the guard. */
export interface GuardReport {
  /** The greatest difference as a share of the output's greatest number; null where none was found out. */
  readonly maxRelDiff: number | null;
  /** The largest relative difference that counts as rounding. */
  readonly tolerance: number;
  /** null where nothing could be compared. */
  readonly passed: boolean | null;
  /** Why nothing could be compared. */
  readonly reason?: string;
  /** Without which optimizations of ONNX Runtime the graph has to run, to compute what the file does. */
  readonly optimization?: 'disabled';
  /** Time of the comparison. */
  readonly seconds: number;
}

/**
 * Compares a graph with its file.
 * @throws OnnxLoraError `verification` naming the first node whose value differs by more than rounding;
 * `runtime` where the graph does not run
 */
export async function guard(guarded: Guarded, options: GuardOptions): Promise<GuardReport> {
  const start = performance.now();
  const feeds = withTokensShown(guarded.model, guarded.feeds);
  const verdict = await judge({ ...guarded, feeds }, options);
  return { ...verdict, seconds: (performance.now() - start) / 1000 };
}

/** A note on a guard that did not stop the run. */
export function guardNote({ passed, reason, optimization }: GuardReport): string | undefined {
  if (passed === null) return `not compared with the file itself: ${reason}`;
  if (optimization === undefined) return undefined;
  return 'ONNX Runtime computes something else with its optimizations than the file says: it runs without them, which takes longer';
}

type Verdict = Omit<GuardReport, 'seconds'>;

async function judge(guarded: Guarded, options: GuardOptions): Promise<Verdict> {
  const { model, output, rows, feeds, theta } = guarded;
  const runs = new FileRuns(model, options.threads);
  const expected = await outputOf(runs, guarded);
  if (typeof expected === 'string')
    return unknown(expected, guardTolerance(model, [], options.provider));
  if (!tensorToFloat64(expected).some(Number.isFinite)) {
    const reason = `the file gives no finite number for ${output}`;
    return unknown(reason, guardTolerance(model, [expected.dtype], options.provider));
  }
  // A step holds what it trains in float32, also in a model of double precision.
  const held = theta === undefined ? undefined : feeds.get(theta)?.dtype;
  const types = [expected.dtype, ...(held ? [held] : [])];
  const tolerance = guardTolerance(model, types, options.provider);
  const differenceWith = async (optimization: 'basic' | 'disabled') => {
    const values = [output, ...(rows === undefined ? [] : [rows])];
    const found = await runGraph(guarded, values, { ...options, optimization });
    const kept = rows === undefined ? expected : rowsOf(expected, found.get(rows)!);
    return shareOf(kept, found.get(output)!);
  };
  const maxRelDiff = await differenceWith('basic');
  if (maxRelDiff <= tolerance) return { maxRelDiff, tolerance, passed: true };
  if (await runs.isRandom(feeds, output)) {
    return unknown('two runs of the file itself differ: it draws random numbers', tolerance);
  }
  const unoptimized = await differenceWith('disabled');
  if (unoptimized <= tolerance) {
    return { maxRelDiff: unoptimized, tolerance, passed: true, optimization: 'disabled' };
  }
  const first = await firstDifference(guarded, runs, tolerance, options);
  throw failure(guarded, first, { maxRelDiff, tolerance });
}

/** The file's own output, or why there is none. */
async function outputOf(runs: FileRuns, { feeds, output }: Guarded): Promise<TensorValue | string> {
  try {
    return (await runs.outputs(feeds)).get(output) ?? `the file gives no numbers for ${output}`;
  } catch (error) {
    if (error instanceof OnnxLoraError && error.code === 'runtime') return error.message;
    throw error;
  }
}

/** The rows of an output that a graph computes, as it gives them: [1, rows, ..]. */
function rowsOf(output: TensorValue, { data: index }: TensorValue): TensorValue {
  const width = output.dims.at(-1)!;
  const rows = Array.from(index as BigInt64Array, Number);
  // A row may be there twice.
  const Numbers = output.data.constructor as new (length: number) => Float32Array;
  const data = new Numbers(rows.length * width);
  const all = output.data as Float32Array;
  for (const [i, row] of rows.entries())
    data.set(all.subarray(row * width, (row + 1) * width), i * width);
  return { dtype: output.dtype, dims: [1, rows.length, width], data };
}

function shareOf(expected: TensorValue, found: TensorValue): number {
  const isSameShape = found.dims.join() === expected.dims.join();
  return isSameShape ? deviationOf(expected, found).share : Number.POSITIVE_INFINITY;
}

function unknown(reason: string, tolerance: number): Verdict {
  return { maxRelDiff: null, tolerance, passed: null, reason };
}

function failure(
  { model, output }: Guarded,
  first: Difference | undefined,
  { maxRelDiff, tolerance }: { maxRelDiff: number; tolerance: number },
): OnnxLoraError {
  const file = model.source.label;
  const node = first?.node;
  const where = first
    ? `the first value that differs is ${first.value}${node ? `, of ${nodeLabel(node)} (${node.opType})` : ''}: ${described(first)}`
    : `no single value before it does`;
  return new OnnxLoraError(
    'verification',
    `${file}: what was built from the file to compute its loss computes something else than the file. ${output} differs by ${maxRelDiff.toPrecision(2)} of its greatest number, tolerance ${tolerance}; ${where}`,
    { node: node?.name || undefined, hint: HINT },
  );
}

const HINT =
  'The fault is in onnx-lora, or in a kernel of ONNX Runtime: keep the model and this message for whoever maintains your copy. `guard: false` goes on with the numbers as they are; layers after the node can train with `targets`.';

function described({ shapes, deviation }: Difference): string {
  if (!deviation) {
    return `expected the shape [${shapes.expected.join(', ')}], found [${shapes.found.join(', ')}]`;
  }
  const { index, expected, found } = deviation;
  return `expected ${expected} at [${index.join(', ')}], found ${found}`;
}
