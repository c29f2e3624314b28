/**
 * A new external data file for a model whose weights change: the old files with the changed ranges
 * replaced, and new tensors after them. Files that nothing changes in stay referenced as they are.
 */
import { type Computed, type MessageEdit, type Piece, pieceLength, totalLength } from './edit.js';
import { externalInitializerRecord, inputRecord, type NewTensor } from './encode.js';
import { allTensors, type ExternalFiles, type TensorPlace } from './external.js';
import { EntryField } from './fields.js';
import type { Model } from './model.js';
import { setExternalEntry, tensorEdit } from './rewrite.js';
import { type Field, fieldsOf, readString } from './wire.js';

// ONNX Runtime maps data files into memory by pages; exporters align the same way.
const ALIGNMENT = 4096;

interface Change {
  readonly place: TensorPlace;
  readonly data: Computed;
}

/** Collects changed and new tensors; `finish` edits the model and gives the file's contents. */
export class NewDataFile {
  private readonly changes = new Map<Field, Change>();
  private readonly added: NewTensor[] = [];
  private readonly dropped = new Map<Field, TensorPlace>();

  /** @param location the file's name, as the model will refer to it */
  constructor(
    private readonly model: Model,
    private readonly files: ExternalFiles,
    public location: string,
  ) {}

  get isEmpty(): boolean {
    return this.touched().size === 0 && this.added.length === 0;
  }

  /** Gives an external tensor other bytes of the same length. */
  replace(place: TensorPlace, data: Computed): void {
    this.changes.set(place.tensor.field, { place, data });
  }

  /** Adds an initializer to the main graph, with its bytes in this file. */
  add(tensor: NewTensor): void {
    this.added.push(tensor);
  }

  /** Says that the edit takes an external tensor out: the others of its file move here without its bytes. */
  drop(place: TensorPlace): void {
    this.dropped.set(place.tensor.field, place);
  }

  /** The locations whose contents move into this file. */
  touched(): Set<string> {
    const changed = [...this.changes.values()].map(({ place }) => place);
    return new Set([...changed, ...this.dropped.values()].map(locationOf));
  }

  /** Points the model's tensors to this file. @returns the file's contents */
  finish(root: MessageEdit): Piece[] {
    const contents = new Contents();
    const offsets = new Map<Field, number>();
    const places = placesByLocation(this.model);
    const thinned = new Set([...this.dropped.values()].map(locationOf));
    for (const moved of this.touched()) {
      const inFile = places.get(moved) ?? [];
      if (thinned.has(moved)) this.moveTensors(moved, inFile, contents, offsets);
      else this.moveFile(moved, inFile, contents, offsets);
    }
    const { location } = this;
    for (const place of allTensors(this.model)) {
      const offset = offsets.get(place.tensor.field);
      if (offset !== undefined) this.pointTo(root, place, location, offset);
    }
    const graph = root.child(this.model.graph.field);
    for (const tensor of this.added) {
      const offset = contents.append([tensor.data]);
      const place = { location, offset, length: pieceLength(tensor.data) };
      graph.append(...externalInitializerRecord(tensor, place));
      if (this.model.irVersion < 4)
        graph.append(...inputRecord(tensor.name, tensor.dtype, tensor.dims));
    }
    return contents.pieces;
  }

  /** Moves what is left of a file, tensor by tensor; those that share all their bytes still do. */
  private moveTensors(
    location: string,
    places: readonly TensorPlace[],
    contents: Contents,
    offsets: Map<Field, number>,
  ): void {
    const source = this.files.source(location);
    const moved = new Map<string, number>();
    for (const place of places) {
      const { field } = place.tensor;
      if (this.dropped.has(field)) continue;
      const changed = this.changes.get(field)?.data;
      const [start, end] = [offsetOf(place), Math.min(endOf(place), source.size)];
      const key = changed ? `${field.start}` : `${start} to ${end}`;
      const offset = moved.get(key) ?? contents.append([changed ?? { source, start, end }]);
      moved.set(key, offset);
      offsets.set(field, offset);
    }
  }

  private moveFile(
    location: string,
    places: readonly TensorPlace[],
    contents: Contents,
    offsets: Map<Field, number>,
  ): void {
    const source = this.files.source(location);
    const sorted = [...places].sort((a, b) => offsetOf(a) - offsetOf(b));
    const shared = overlapping(sorted);
    const changed = sorted.filter(({ tensor }) => this.changes.has(tensor.field));
    const pieces: Piece[] = [];
    const apart: TensorPlace[] = [];
    let at = 0;
    for (const place of changed) {
      const { data } = this.changes.get(place.tensor.field)!;
      const start = offsetOf(place);
      if (shared.has(place)) apart.push(place);
      else {
        pieces.push({ source, start: at, end: start }, data);
        at = start + data.length;
      }
    }
    pieces.push({ source, start: at, end: source.size });
    const base = contents.append(pieces);
    for (const place of places) offsets.set(place.tensor.field, base + offsetOf(place));
    // Other tensors share these bytes and keep them.
    for (const { tensor } of apart) {
      offsets.set(tensor.field, contents.append([this.changes.get(tensor.field)!.data]));
    }
  }

  private pointTo(root: MessageEdit, place: TensorPlace, location: string, offset: number): void {
    const { data } = place.tensor;
    if (data.kind !== 'external') return;
    const { source } = this.model;
    const entries = new Map<string, Field>();
    for (const entry of data.entries) {
      for (const part of fieldsOf(source, { start: entry.value, end: entry.end })) {
        if (part.number === EntryField.key) entries.set(readString(source, part), entry);
      }
    }
    const edit = tensorEdit(root, place);
    setExternalEntry(edit, entries, 'location', location);
    if (offset !== data.offset) setExternalEntry(edit, entries, 'offset', String(offset));
    if (this.changes.has(place.tensor.field))
      setExternalEntry(edit, entries, 'checksum', undefined);
  }
}

/** The stretches of the new file, each on a page of its own. */
class Contents {
  readonly pieces: Piece[] = [];
  private length = 0;

  append(pieces: readonly Piece[]): number {
    const padding = (ALIGNMENT - (this.length % ALIGNMENT)) % ALIGNMENT;
    if (padding > 0) this.pieces.push(new Uint8Array(padding));
    const offset = this.length + padding;
    for (const piece of pieces) this.pieces.push(piece);
    this.length = offset + totalLength(pieces);
    return offset;
  }
}

function locationOf({ tensor }: TensorPlace): string {
  return tensor.data.kind === 'external' ? tensor.data.location : '';
}

function offsetOf({ tensor }: TensorPlace): number {
  return tensor.data.kind === 'external' ? tensor.data.offset : 0;
}

function endOf({ tensor }: TensorPlace): number {
  if (tensor.data.kind !== 'external') return 0;
  return tensor.data.offset + (tensor.data.length ?? Number.POSITIVE_INFINITY);
}

/** Those of the places, in the order of their offsets, that have bytes in common with another. */
function overlapping(sorted: readonly TensorPlace[]): Set<TensorPlace> {
  const found = new Set<TensorPlace>();
  let [furthest] = sorted;
  for (const place of sorted.slice(1)) {
    if (offsetOf(place) < endOf(furthest!) && offsetOf(furthest!) < endOf(place)) {
      found.add(place).add(furthest!);
    }
    if (endOf(place) > endOf(furthest!)) furthest = place;
  }
  return found;
}

function placesByLocation(model: Model): Map<string, TensorPlace[]> {
  const places = new Map<string, TensorPlace[]>();
  for (const place of allTensors(model)) {
    const known = places.get(locationOf(place));
    if (known) known.push(place);
    else places.set(locationOf(place), [place]);
  }
  return places;
}
