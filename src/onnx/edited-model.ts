/** An edited model that is read without being written first. */

import type { ByteSource, FilePlace } from './byte-source.js';
import { collect, type MessageEdit, type Piece, pieceLength } from './edit.js';
import type { Model } from './model.js';
import { parseModel } from './parse.js';

/**
 * The model as `edit` leaves it: its new bytes are in memory, all others where they are. It goes by the
 * path of `model`, beside which its external data is, and closes it when it is closed.
 * @throws OnnxLoraError those of what the edit computes
 */
export async function editedModel(model: Model, edit: MessageEdit): Promise<Model> {
  const pieces = await Promise.all(edit.pieces().map(settled));
  return parseModel(new EditedSource(model.source, pieces));
}

/** A piece whose bytes are known. */
type Settled = Exclude<Piece, { chunks(): unknown }>;

async function settled(piece: Piece): Promise<Settled> {
  return 'chunks' in piece ? collect([piece]) : piece;
}

class EditedSource implements ByteSource {
  readonly label: string;
  readonly path: string | undefined;
  readonly size: number;
  private readonly starts: number[] = [];
  /** The piece that was read last: reading mostly goes on there. */
  private current = 0;

  constructor(
    private readonly base: ByteSource,
    private readonly pieces: readonly Settled[],
  ) {
    this.label = base.label;
    this.path = base.path;
    let size = 0;
    for (const piece of pieces) {
      this.starts.push(size);
      size += pieceLength(piece);
    }
    this.size = size;
  }

  byteAt(offset: number): number {
    const index = this.find(offset);
    const piece = this.pieces[index]!;
    const at = offset - this.starts[index]!;
    return piece instanceof Uint8Array ? piece[at]! : piece.source.byteAt(piece.start + at);
  }

  read(start: number, end: number): Uint8Array {
    const bytes = new Uint8Array(end - start);
    this.readInto(bytes, start);
    return bytes;
  }

  readInto(target: Uint8Array, start: number): void {
    for (let done = 0; done < target.length; ) {
      const index = this.find(start + done);
      const piece = this.pieces[index]!;
      const at = start + done - this.starts[index]!;
      const count = Math.min(target.length - done, pieceLength(piece) - at);
      const part = target.subarray(done, done + count);
      if (piece instanceof Uint8Array) part.set(piece.subarray(at, at + count));
      else piece.source.readInto(part, piece.start + at);
      done += count;
    }
  }

  placeOf(start: number, end: number): FilePlace | undefined {
    if (start >= end || end > this.size) return undefined;
    const index = this.find(start);
    const piece = this.pieces[index]!;
    const at = start - this.starts[index]!;
    const isInside = at + (end - start) <= pieceLength(piece);
    if (piece instanceof Uint8Array || !isInside) return undefined;
    return piece.source.placeOf(piece.start + at, piece.start + at + (end - start));
  }

  close(): void {
    this.base.close();
  }

  /** The piece that holds a byte; of pieces without any, none does. */
  private find(offset: number): number {
    if (offset < 0 || offset >= this.size) throw new RangeError(`byte ${offset} of ${this.size}`);
    if (this.holds(this.current, offset)) return this.current;
    let [low, high] = [0, this.pieces.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.starts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    this.current = low;
    return low;
  }

  private holds(index: number, offset: number): boolean {
    const start = this.starts[index]!;
    return start <= offset && offset < start + pieceLength(this.pieces[index]!);
  }
}
