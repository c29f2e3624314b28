import { distance } from 'fastest-levenshtein';
import { DEFAULT_BLANK } from '../../data/blank.js';
import { tensorToFloat64 } from '../../runtime/tensor-value.js';
import type { MetricAccumulator, MetricOptions } from './metric.js';
import { argmax, rowsOf } from './rows.js';

/**
 * `cer`, the edits between greedy readings and labels over the number of labels, and `exactMatch`, the
 * share of rows without any, of logits [B, T, C] against `labels` [B, S].
 */
export function transcription({ blank = DEFAULT_BLANK }: MetricOptions): MetricAccumulator {
  const sum = { edits: 0, labels: 0, exact: 0, rows: 0 };
  return {
    add(logits, batch) {
      const [rows, frames] = logits.dims as [number, number];
      const best = Array.from(rowsOf(logits), argmax);
      const labels = batch.get('labels')!;
      const width = labels.dims[1]!;
      const [ids, inputLengths, labelLengths] = [
        labels,
        batch.get('input_lengths')!,
        batch.get('label_lengths')!,
      ].map(tensorToFloat64) as [Float64Array, Float64Array, Float64Array];
      for (let row = 0; row < rows; row++) {
        const end = Math.min(inputLengths[row]!, frames);
        const read = collapse(best.slice(row * frames, row * frames + end), blank);
        const wanted = [...ids.slice(row * width, row * width + labelLengths[row]!)];
        const edits = editDistance(read, wanted);
        sum.edits += edits;
        sum.labels += wanted.length;
        sum.exact += Number(edits === 0);
        sum.rows++;
      }
    },
    result: () => ({ cer: sum.edits / sum.labels, exactMatch: sum.exact / sum.rows }),
  };
}

/** The text that the classes of frames spell: a class that is repeated counts once, blanks do not count. */
export function collapse(classes: readonly number[], blank: number): number[] {
  return classes.filter((c, i) => c !== blank && c !== classes[i - 1]);
}

/** Levenshtein's distance. Classes become characters, numbered as they come: there may be many. */
function editDistance(a: readonly number[], b: readonly number[]): number {
  const codes = new Map<number, number>();
  const code = (c: number) => {
    if (!codes.has(c)) codes.set(c, codes.size);
    return String.fromCharCode(codes.get(c)!);
  };
  return distance(a.map(code).join(''), b.map(code).join(''));
}
