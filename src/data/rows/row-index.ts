/** Places of rows in a file, in twelve bytes each. */

const CHUNK = 2 ** 16;

export class RowIndex {
  size = 0;
  private readonly starts: Float64Array[] = [];
  private readonly lengths: Uint32Array[] = [];

  add(start: number, length: number): void {
    const at = this.size++ % CHUNK;
    if (at === 0) {
      this.starts.push(new Float64Array(CHUNK));
      this.lengths.push(new Uint32Array(CHUNK));
    }
    this.starts.at(-1)![at] = start;
    this.lengths.at(-1)![at] = length;
  }

  start(row: number): number {
    return this.starts[Math.floor(row / CHUNK)]![row % CHUNK]!;
  }

  /** In bytes. */
  length(row: number): number {
    return this.lengths[Math.floor(row / CHUNK)]![row % CHUNK]!;
  }
}
