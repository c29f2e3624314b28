/** A series as a word of block characters, each as high as its number. */

const BARS = '▁▂▃▄▅▆▇█';

/** The lowest number is the lowest bar, the highest the highest; a gap for what is not finite. */
export function sparkline(values: readonly number[]): string {
  const finite = values.filter(Number.isFinite);
  const [least, most] = [Math.min(...finite), Math.max(...finite)];
  const step = (most - least) / (BARS.length - 1);
  const bar = (value: number) => BARS[step > 0 ? Math.round((value - least) / step) : 0]!;
  return values.map((value) => (Number.isFinite(value) ? bar(value) : ' ')).join('');
}
