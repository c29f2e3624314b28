/** Adapters as dense matrices, by the definition of their structures. */
import type { StoredAdapter } from '../../src/adapters/files/adapter-file.js';
import { openAdapter } from '../../src/adapters/files/open-adapter.js';

/** ΔW [in, out], an element at a time. */
export function denseOf({ record, values }: StoredAdapter): Float64Array {
  const { structure, blockRank: r, hybridRank: h, scale } = record;
  const [kIn, kOut] = record.grid;
  const [height, width] = [record.in / kIn, record.out / kOut];
  const [a, b] = [values('a'), values('b')];
  const isDiagonal = structure === 'diagonal';
  return Float64Array.from({ length: record.in * record.out }, (_, at) => {
    const [x, y] = [Math.floor(at / record.out), at % record.out];
    const [n, j] = [Math.floor(x / height), Math.floor(y / width)];
    let sum = 0;
    for (let i = 0; i < r && (!isDiagonal || n === j); i++) {
      const column = isDiagonal ? i : j * r + i;
      const row = isDiagonal ? i : n * r + i;
      const columns = isDiagonal ? r : kOut * r;
      const rows = isDiagonal ? r : kIn * r;
      sum += a[x * columns + column]! * b[(j * rows + row) * width + (y % width)]!;
    }
    for (let i = 0; i < h; i++)
      sum += values('generalA')[x * h + i]! * values('generalB')[i * record.out + y]!;
    return scale * sum;
  });
}

/** The ΔW of an adapter file, or a folder of PEFT, by module. */
export function denseDeltas(path: string): Record<string, Float64Array> {
  const file = openAdapter(path);
  try {
    return Object.fromEntries(file.adapters.map((one) => [one.record.name, denseOf(one)]));
  } finally {
    file.close();
  }
}
