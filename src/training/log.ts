/** The run as JSON lines: one a step, an evaluation, and a look at what the model writes. */
import { appendFileSync, existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { OnnxLoraError } from '../errors.js';
import { fileError } from '../onnx/source.js';
import { checkOutput } from '../onnx/write.js';
import { RunHistory } from './history.js';
import type { EvalRecord, LogRecord, SampleRecord } from './records.js';

/** Whoever else wants to know. */
export interface LogListener {
  add(record: LogRecord): void;
}

/** Appends to the file as things happen, and remembers what a picture of the run needs. */
export class RunLog {
  private readonly history = new RunHistory();
  private readonly listeners: LogListener[] = [];

  private constructor(private readonly path: string | undefined) {}

  /**
   * Starts a log; that of a resumed run goes on after the step it is resumed from.
   * @param resume a log that is there is of a run that came to no checkpoint, and begins anew
   * @throws OnnxLoraError `output-exists`, `io`
   */
  static open(
    path: string | undefined,
    force: boolean,
    resumedFrom: number,
    resume = false,
  ): RunLog {
    const log = new RunLog(path);
    if (path === undefined) return log;
    if ((resumedFrom > 0 || resume) && existsSync(path)) {
      log.goOn(path, resumedFrom);
    } else {
      checkOutput(path, [], force, 'log');
      withFile(path, () => writeFileSync(path, ''));
    }
    return log;
  }

  /** Steps after the checkpoint are taken again, so their lines go; so does one that a kill cut. */
  private goOn(path: string, resumedFrom: number): void {
    let length = 0;
    let isBehind = false;
    // All is read before anything goes: it may be another program's.
    for (const line of withFile(path, () => readFileSync(path, 'utf8')).split(/(?<=\n)/)) {
      if (!line.endsWith('\n')) checkCut(path, line);
      else {
        const record = parse(path, line);
        isBehind ||= record.step > resumedFrom;
        if (isBehind) continue;
        this.history.add(record);
        length += Buffer.byteLength(line);
      }
    }
    // Lines that stay are not written again: nothing can get lost here.
    withFile(path, () => truncateSync(path, length));
  }

  /** Those of a long run thinned out: see {@link RunHistory}. */
  get records(): readonly LogRecord[] {
    return this.history.records();
  }

  /** The step after which the last samples of the model's writing were taken. */
  get lastLook(): number | undefined {
    return this.records.findLast((record) => 'samples' in record)?.step;
  }

  listen(listener: LogListener): void {
    this.listeners.push(listener);
  }

  add(record: LogRecord): void {
    this.history.add(record);
    for (const listener of this.listeners) listener.add(record);
    const { path } = this;
    if (path !== undefined) withFile(path, () => appendFileSync(path, lineOf(record)));
  }
}

function parse(path: string, line: string): LogRecord {
  try {
    const record = JSON.parse(line);
    if (Number.isInteger(record?.step) && kinds.some((is) => is(record))) return record;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw notALog(path);
}

function isEvaluation({ eval: measures }: Partial<EvalRecord>): boolean {
  return typeof measures === 'object' && measures !== null;
}

function isSamples({ samples }: Partial<SampleRecord>): boolean {
  return Array.isArray(samples);
}

const kinds = [isEvaluation, isStep, isSamples];

// Others write lines with a step and a loss too.
const OF_STEPS = ['loss', 'gradNorm', 'lr', 'samplesPerSecond'];

function isStep(record: object): boolean {
  return OF_STEPS.every((key) => key in record);
}

/** A line that a kill cut off is the beginning of one of ours. */
function checkCut(path: string, line: string): void {
  const start = '{"step":';
  if (line.startsWith(start) || start.startsWith(line)) return;
  throw notALog(path);
}

function notALog(path: string): OnnxLoraError {
  return new OnnxLoraError(
    'output-exists',
    `${path} exists already, and is not a log of a training run`,
    { hint: 'Name another file with `log`.' },
  );
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
