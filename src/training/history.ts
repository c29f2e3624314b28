/** A bounded record of a run's steps: enough to draw it, whatever its length. */
import type { EvalRecord, LogRecord, SampleRecord, StepRecord } from './records.js';

/** Several times the pixels that a picture has for them. */
const MAX_KEPT = 2 ** 14;

/** Of a list that grows without an end every first, second, fourth, … element, and the last one. */
class Sampled<T> {
  private kept: T[] = [];
  private last: T | undefined;
  private stride = 1;
  private count = 0;

  add(element: T): void {
    if (this.count++ % this.stride === 0) this.kept.push(element);
    this.last = element;
    if (this.kept.length < MAX_KEPT) return;
    this.kept = this.kept.filter((_, i) => i % 2 === 0);
    this.stride *= 2;
  }

  elements(): T[] {
    const { kept, last } = this;
    return last === undefined || kept.at(-1) === last ? [...kept] : [...kept, last];
  }
}

/** The records of a run, those of a long one thinned out evenly; a log in a file has all. */
export class RunHistory {
  private readonly steps = new Sampled<StepRecord>();
  private readonly evaluations = new Sampled<EvalRecord>();
  private readonly samples = new Sampled<SampleRecord>();

  add(record: LogRecord): void {
    if ('eval' in record) this.evaluations.add(record);
    else if ('samples' in record) this.samples.add(record);
    else this.steps.add(record);
  }

  /** In the order of their steps. */
  records(): LogRecord[] {
    const kinds = [this.steps, this.evaluations, this.samples];
    const records = kinds.flatMap<LogRecord>((kind) => kind.elements());
    return records.sort((a, b) => a.step - b.step);
  }
}
