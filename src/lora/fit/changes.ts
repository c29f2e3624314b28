/** What differs between two models of one architecture: layers that adapters can stand for, and the rest. */
import { setImmediate } from 'node:timers/promises';
import { OnnxLoraError } from '../../errors.js';
import { type ConstantPair, pairConstants } from '../../graph/isomorphism.js';
import { finalReaders } from '../../graph/readers.js';
import { byteLength, isConvertible } from '../../onnx/dtype.js';
import { elementCount, nodeLabel, type Tensor } from '../../onnx/model.js';
import { dtypeOf, type TensorReader } from '../../onnx/tensor.js';
import type { WorkOptions } from '../../onnx/write.js';
import { findLayers, type Layer } from '../layers.js';
import { type Selection, select } from '../select.js';
import type { OpenedModel } from './opened.js';

/** A stored tensor that differs. */
export interface ChangedPair {
  /** What the base model calls it. */
  readonly name: string;
  readonly base: Tensor;
  readonly tuned: Tensor;
}

/** A layer of the base model whose weight differs. */
export interface ChangedLayer extends ChangedPair {
  readonly layer: Layer;
}

/** A constant that differs and that no adapter stands for. */
export interface ChangedTensor extends ChangedPair {
  /** Why it is no adapter's. */
  readonly reason: string;
  /** Whether it is in the main graph, where it can be replaced. */
  readonly isReplaceable: boolean;
}

export interface Changes {
  readonly layers: readonly ChangedLayer[];
  readonly rest: readonly ChangedTensor[];
  /** Constants that are the same. */
  readonly unchanged: number;
}

/**
 * Compares all constants of the two models, byte by byte, in a small part of their memory.
 * @param selection the layers that adapters may stand for
 * @throws OnnxLoraError `model-mismatch` where the graphs differ, `unsupported` for quantized weights
 * that differ, `aborted`
 */
export async function findChanges(
  base: OpenedModel,
  tuned: OpenedModel,
  selection: Selection,
  work: WorkOptions,
): Promise<Changes> {
  const pairs = distinct(pairConstants(base.model, tuned.model));
  const changed: ConstantPair[] = [];
  const course = new Course(pairs, base, work);
  for (const pair of pairs) {
    await course.step();
    if (await differ(base.reader, pair.first.tensor, tuned.reader, pair.second.tensor)) {
      changed.push(pair);
    }
    course.done(pair);
  }
  checkFloating(base, changed);
  checkShared(base, changed);
  return { ...sorted(base, changed, selection), unchanged: pairs.length - changed.length };
}

/** Several nodes may read a tensor, but it need not be compared more than once. */
function distinct(pairs: readonly ConstantPair[]): ConstantPair[] {
  const partners = new Map<Tensor, Set<Tensor>>();
  return pairs.filter(({ first, second }) => {
    const known = partners.get(first.tensor) ?? new Set();
    const isNew = !known.has(second.tensor);
    partners.set(first.tensor, known.add(second.tensor));
    return isNew;
  });
}

/** Where the comparison stands. */
class Course {
  private bytes = 0;
  private readonly total: number;

  constructor(
    pairs: readonly ConstantPair[],
    private readonly base: OpenedModel,
    private readonly work: WorkOptions,
  ) {
    this.total = pairs.reduce((sum, pair) => sum + this.sizeOf(pair), 0);
  }

  async step(): Promise<void> {
    await setImmediate();
    if (this.work.signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
  }

  done(pair: ConstantPair): void {
    this.bytes += this.sizeOf(pair);
    const { bytes, total } = this;
    this.work.onProgress?.({ phase: 'compare', done: bytes, total, unit: 'bytes' });
  }

  private sizeOf({ first: { tensor } }: ConstantPair): number {
    const dtype = dtypeOf(tensor, this.base.model);
    return dtype === 'string' ? 0 : byteLength(dtype, elementCount(tensor.dims));
  }
}

const COMPARED_BYTES = 4 * 1024 * 1024;

async function differ(
  reader: TensorReader,
  tensor: Tensor,
  otherReader: TensorReader,
  other: Tensor,
): Promise<boolean> {
  const [span, otherSpan] = [reader.span(tensor), otherReader.span(other)];
  if (!span || !otherSpan) {
    return Buffer.compare(reader.bytes(tensor), otherReader.bytes(other)) !== 0;
  }
  const size = Math.min(COMPARED_BYTES, span.end - span.start);
  const [left, right] = [new Uint8Array(size), new Uint8Array(size)];
  for (let at = 0; at < span.end - span.start; at += size) {
    const length = Math.min(size, span.end - span.start - at);
    span.source.readInto(left.subarray(0, length), span.start + at);
    otherSpan.source.readInto(right.subarray(0, length), otherSpan.start + at);
    if (Buffer.compare(left.subarray(0, length), right.subarray(0, length)) !== 0) return true;
  }
  return false;
}

/** The difference of two quantized weights is for the most part that of their roundings. */
function checkFloating({ model, patched }: OpenedModel, changed: readonly ConstantPair[]): void {
  for (const { name, first } of changed) {
    const dtype = dtypeOf(first.tensor, model);
    const reader = finalReaders(patched.values, first).find(({ node }) => node)?.node;
    const isQuantized = QUANTIZED.test(dtype) && !isConvertible(dtype);
    if (!isQuantized) continue;
    throw new OnnxLoraError(
      'unsupported',
      `${model.source.label}: ${name} differs and is ${dtype}: expected weights in floating point, for the difference of quantized ones is mostly rounding`,
      {
        node: reader && nodeLabel(reader),
        hint: 'Fit the models before quantization; the adapter then fits the quantized model too.',
      },
    );
  }
}

const QUANTIZED = /^(u?int[248]|float[48])/;

/** What the base model stores once cannot become two tensors. */
function checkShared({ model }: OpenedModel, changed: readonly ConstantPair[]): void {
  const seen = new Set<Tensor>();
  for (const { name, first } of changed) {
    if (seen.has(first.tensor)) {
      throw new OnnxLoraError(
        'unsupported',
        `${model.source.label} uses ${name} in several places, where the tuned model has tensors that differ`,
        { hint: 'Export both models with the same weights tied.' },
      );
    }
    seen.add(first.tensor);
  }
}

function sorted(base: OpenedModel, changed: readonly ConstantPair[], selection: Selection) {
  const all = findLayers(base.patched);
  const selected = new Set(select(all, selection));
  const layers: ChangedLayer[] = [];
  const rest: ChangedTensor[] = [];
  for (const { name, first, second } of changed) {
    const users = all.filter(({ linear }) => linear[0]?.weight.constant?.tensor === first.tensor);
    const reason = refusal(base, first, users, selected);
    const pair = { name, base: first.tensor, tuned: second.tensor };
    if (reason === undefined) layers.push(...users.map((layer) => ({ layer, ...pair })));
    else {
      const isReplaceable = first.graph === base.model.graph;
      rest.push({ ...pair, reason, isReplaceable });
    }
  }
  const order = new Map(all.map((layer, i) => [layer, i]));
  layers.sort((a, b) => order.get(a.layer)! - order.get(b.layer)!);
  rest.sort((a, b) => a.base.field.start - b.base.field.start);
  return { layers, rest };
}

/** Why adapters cannot stand for the change of a tensor. */
function refusal(
  { patched }: OpenedModel,
  place: ConstantPair['first'],
  users: readonly Layer[],
  selected: ReadonlySet<Layer>,
): string | undefined {
  const adapted = new Set(users.flatMap(({ linear }) => linear.map(({ node }) => node)));
  const readers = finalReaders(patched.values, place).flatMap(({ node }) => node ?? []);
  const other = readers.find((node) => !adapted.has(node));
  if (users.length === 0) {
    return other ? `read by ${nodeLabel(other)} (${other.opType})` : 'an output of a graph';
  }
  if (other) return `read by ${nodeLabel(other)} (${other.opType}) beside its linear layer`;
  const left = users.find((layer) => !selected.has(layer));
  return left && `${left.module} is not among the targets`;
}
