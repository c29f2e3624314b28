/** The run as JSON lines: one a step, one an evaluation. */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileError } from '../onnx/source.js';
import { checkOutput } from '../onnx/write.js';

/** What is known of one update. */
export interface StepRecord {
  /** Counted from 1. */
  readonly step: number;
  /** Passes over the data, with the part of the present one. */
  readonly epoch: number;
  readonly loss: number;
  /** Before clipping. */
  readonly gradNorm: number;
  readonly lr: number;
  readonly ms: number;
  readonly samplesPerSecond: number;
}

/** What is known of one evaluation. */
export interface EvalRecord {
  readonly step: number;
  readonly eval: Readonly<Record<string, number>>;
}

export type LogRecord = StepRecord | EvalRecord;

/** Appends to the file as things happen; without a path it only remembers. */
export class RunLog {
  readonly records: LogRecord[] = [];

  private constructor(private readonly path: string | undefined) {}

  /**
   * Starts a log; that of a resumed run goes on behind the step it is resumed from.
   * @throws OnnxLoraError `output-exists`, `io`
   */
  static open(path: string | undefined, force: boolean, resumedFrom: number): RunLog {
    const log = new RunLog(path);
    if (path === undefined) return log;
    const before = resumedFrom > 0 ? recordsUntil(path, resumedFrom) : [];
    if (resumedFrom === 0) checkOutput(path, [], force);
    for (const record of before) log.records.push(record);
    withFile(path, () => writeFileSync(path, before.map(lineOf).join('')));
    return log;
  }

  add(record: LogRecord): void {
    this.records.push(record);
    const { path } = this;
    if (path !== undefined) withFile(path, () => appendFileSync(path, lineOf(record)));
  }
}

/** Steps behind the checkpoint are taken again, so their lines go. */
function recordsUntil(path: string, step: number): LogRecord[] {
  if (!existsSync(path)) return [];
  const lines = withFile(path, () => readFileSync(path, 'utf8')).split('\n');
  // A kill can cut the last line.
  const whole = lines.slice(0, -1).filter((line) => line !== '');
  return whole.map((line) => JSON.parse(line) as LogRecord).filter((one) => one.step <= step);
}

function lineOf(record: LogRecord): string {
  return `${JSON.stringify(record)}\n`;
}

function withFile<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fileError(path, error);
  }
}
