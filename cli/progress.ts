/** Progress of long work: a bar on a terminal, else a plain line now and then. */
import { SingleBar } from 'cli-progress';
import type { Progress } from '../src/onnx/write.js';
import { sparkline } from './sparkline.js';
import { bytes, count, duration } from './text.js';

export interface ProgressView {
  update(progress: Progress): void;
  /** Writes to the stream without mixing with the bar, which comes again below. */
  beside(write: () => void): void;
  /** Takes the bar off the terminal. */
  stop(): void;
}

/** Shows nothing. */
export const noProgress: ProgressView = {
  update: () => {},
  beside: (write) => write(),
  stop: () => {},
};

/** The view that fits the stream. */
export function progressOn(stream: NodeJS.WriteStream): ProgressView {
  return stream.isTTY ? new BarView(stream) : new LineView(stream);
}

/** Speed and time left of one phase of the work. */
class Pace {
  private readonly start = performance.now();
  private readonly doneAtStart: number;
  readonly phase: string;

  constructor(first: Progress) {
    this.phase = first.phase;
    this.doneAtStart = first.done;
  }

  get elapsed(): number {
    return (performance.now() - this.start) / 1000;
  }

  describe(progress: Progress): string {
    const { done, total, unit, detail } = progress;
    const amount = (value: number) => (unit === 'bytes' ? bytes(value) : count(value));
    const rate = (done - this.doneAtStart) / Math.max(this.elapsed, 1e-3);
    const said = detail === undefined ? '' : `${detail}, `;
    const of = `${said}${amount(done)} of ${amount(total)}${unit === 'bytes' ? '' : ` ${unit}`}`;
    if (rate <= 0) return of;
    const perSecond = unit === 'bytes' ? bytes(rate) : rate.toPrecision(2);
    return `${of}, ${perSecond}/s, ${duration((total - done) / rate)} left`;
  }
}

/** A line on a terminal is drawn anew each time; in a log the course is in the lines themselves. */
function withTrend(line: string, { trend = [] }: Progress): string {
  return trend.length > 1 ? `${sparkline(trend)} ${line}` : line;
}

function share({ done, total }: Progress): number {
  return total > 0 ? Math.min(1, done / total) : 1;
}

// A bar that is gone before it can be read is noise.
const BAR_AFTER_SECONDS = 0.3;

class BarView implements ProgressView {
  private pace: Pace | undefined;
  private bar: SingleBar | undefined;

  constructor(private readonly stream: NodeJS.WriteStream) {}

  update(progress: Progress): void {
    if (this.pace?.phase !== progress.phase) {
      this.stop();
      this.pace = new Pace(progress);
    }
    if (this.pace.elapsed < BAR_AFTER_SECONDS) return;
    const { phase } = progress;
    const line = withTrend(this.pace.describe(progress), progress);
    if (this.bar) this.bar.update(share(progress), { phase, line });
    else this.bar = this.start(share(progress), { phase, line });
  }

  beside(write: () => void): void {
    this.clear();
    write();
  }

  stop(): void {
    this.clear();
    this.pace = undefined;
  }

  private clear(): void {
    this.bar?.stop();
    this.bar = undefined;
  }

  private start(value: number, payload: object): SingleBar {
    const bar = new SingleBar({
      stream: this.stream,
      format: '{phase} {bar} {percentage}%  {line}',
      barsize: 24,
      barCompleteChar: '█',
      barIncompleteChar: '░',
      clearOnComplete: true,
      hideCursor: true,
      // Ctrl-C is main's business, which calls stop().
      gracefulExit: false,
    });
    bar.start(1, value, payload);
    return bar;
  }
}

// Short work needs no line; after that, one now and then keeps a log readable.
const FIRST_LINE_SECONDS = 2;
const NEXT_LINE_SECONDS = 5;

class LineView implements ProgressView {
  private pace: Pace | undefined;
  private nextAt = FIRST_LINE_SECONDS;

  constructor(private readonly stream: NodeJS.WriteStream) {}

  update(progress: Progress): void {
    if (this.pace?.phase !== progress.phase) {
      this.pace = new Pace(progress);
      this.nextAt = FIRST_LINE_SECONDS;
    }
    if (this.pace.elapsed < this.nextAt) return;
    this.nextAt = this.pace.elapsed + NEXT_LINE_SECONDS;
    const percentage = Math.floor(100 * share(progress));
    this.stream.write(`${progress.phase}: ${percentage}%, ${this.pace.describe(progress)}\n`);
  }

  beside(write: () => void): void {
    write();
  }

  stop(): void {
    this.pace = undefined;
  }
}
