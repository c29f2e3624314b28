/** The run as curves for TensorBoard. */
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileHeader, restartRecord, scalarRecord } from '../formats/event-file.js';
import { fileError } from '../onnx/source.js';
import type { EvalRecord, LogRecord, StepRecord } from '../training/records.js';

/** A file of events in a folder that may hold those of earlier runs, which stay. */
export class TensorBoardLog {
  private constructor(private readonly path: string) {}

  /**
   * Starts a file in `folder`, which is made where there is none.
   * @param resumedFrom the step after which a resumed run goes on; 0 for a new run
   * @throws OnnxLoraError `io`, `not-a-file`
   */
  static open(folder: string, resumedFrom: number): TensorBoardLog {
    // Readers take files in the order of their names and recognize them by "tfevents".
    const name = `events.out.tfevents.${Date.now()}.${process.pid}.onnx-lora`;
    const log = new TensorBoardLog(join(folder, name));
    guarded(folder, () => mkdirSync(folder, { recursive: true }));
    log.append(fileHeader(now()));
    if (resumedFrom > 0) log.append(restartRecord(now(), resumedFrom + 1));
    return log;
  }

  add(record: LogRecord): void {
    if ('samples' in record) return;
    this.append(scalarRecord({ time: now(), step: record.step, scalars: scalarsOf(record) }));
  }

  private append(bytes: Uint8Array): void {
    guarded(this.path, () => appendFileSync(this.path, bytes));
  }
}

function scalarsOf(record: StepRecord | EvalRecord): Record<string, number> {
  if ('eval' in record) {
    return Object.fromEntries(
      Object.entries(record.eval).map(([name, value]) => [`eval/${name}`, value]),
    );
  }
  const { loss, gradNorm, lr, samplesPerSecond } = record;
  return {
    'train/loss': loss,
    'train/gradient_norm': gradNorm,
    'train/learning_rate': lr,
    'train/samples_per_second': samplesPerSecond,
  };
}

function now(): number {
  return Date.now() / 1000;
}

function guarded<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fileError(path, error);
  }
}
