/** The page that tells a run. */

import { writeFiles } from '../../onnx/write.js';
import { type RunReport, runReportPage } from '../../report/run-report.js';
import type { Settings } from '../../training/checkpoint.js';
import type { LogRecord } from '../../training/records.js';
import { inspectBlocks } from '../inspect.js';

export interface ReportedRun
  extends Pick<RunReport, 'best' | 'confusion' | 'classNames' | 'seconds' | 'peakMemoryBytes'> {
  /** The trained model. */
  readonly output: string;
  /** Its final name. */
  readonly shownAs?: string | undefined;
  /** Files that the run read, by what they are. */
  readonly files: Readonly<Record<string, string | undefined>>;
  readonly settings: Settings;
  readonly provider: string;
  readonly records: readonly LogRecord[];
}

/**
 * Writes the report of a run that is over.
 * @throws OnnxLoraError those of reading the trained model and of writing
 */
export async function writeReport(path: string, run: ReportedRun, force: boolean): Promise<void> {
  const { output, shownAs, records, files, settings, ...rest } = run;
  const { result: found, blocks } = await inspectBlocks(output);
  const result = { ...found, model: { ...found.model, path: shownAs ?? found.model.path } };
  const page = runReportPage({
    ...rest,
    inspected: result,
    blocks,
    curve: curveOf(records),
    evaluations: records.flatMap((record) =>
      'eval' in record ? [{ step: record.step, measures: record.eval }] : [],
    ),
    writing: records.flatMap((record) => ('samples' in record ? [record] : [])),
    settings: { ...described(files), ...described(settings) },
  });
  await writeFiles([{ path, pieces: [Buffer.from(page)] }], [], { force });
}

/** Steps and evaluations as the loss curve draws them. */
export function curveOf(records: readonly LogRecord[]) {
  return {
    steps: records.flatMap((record) => ('loss' in record ? [record] : [])),
    evaluations: records.flatMap((record) =>
      'eval' in record ? [{ step: record.step, loss: record.eval.loss! }] : [],
    ),
  };
}

// They tell a checkpoint whether it fits, and nobody anything.
const internal = new Set(['adapters', 'modelBytes']);

function described(values: Readonly<Record<string, unknown>>): Record<string, string> {
  const told = Object.entries(values).filter(
    ([name, value]) => value !== null && value !== undefined && !internal.has(name),
  );
  return Object.fromEntries(told.map(([name, value]) => [spaced(name), String(value)]));
}

/** weightDecay -> weight decay */
function spaced(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
