/** Differences between two models of one architecture. */
import { setImmediate } from 'node:timers/promises';
import type { OpenedModel } from '../../adapters/model/opened.js';
import type { Selection } from '../../adapters/targets/select.js';
import { OnnxLoraError } from '../../errors.js';
import { type ConstantPair, pairGraphs } from '../../graph/isomorphism.js';
import { finalReaders } from '../../graph/readers.js';
import { byteLength, isConvertible } from '../../onnx/dtype.js';
import { elementCount, nodeLabel, type Tensor } from '../../onnx/model.js';
import { dtypeOf, type TensorReader } from '../../onnx/tensor.js';
import type { WorkOptions } from '../../onnx/write.js';
import { assign } from './assign.js';
import type { ChangedLayer, ChangedTensor } from './changed.js';

export interface Changes {
  readonly layers: readonly ChangedLayer[];
  readonly rest: readonly ChangedTensor[];
  /** Constants that are the same. */
  readonly unchanged: number;
}

/**
 * Compares all constants of the two models, byte by byte, in a small part of their memory.
 * @param selection the layers whose changes adapters may represent
 * @throws OnnxLoraError `model-mismatch` where the graphs differ, `unsupported` for quantized weights
 * that differ, `aborted`
 */
export async function findChanges(
  base: OpenedModel,
  tuned: OpenedModel,
  selection: Selection,
  work: WorkOptions,
): Promise<Changes> {
  const { constants, nodes } = pairGraphs(base.model, tuned.model);
  const pairs = distinct(constants);
  const changed: ConstantPair[] = [];
  const progress = new ComparisonProgress(pairs, base, work);
  for (const pair of pairs) {
    await progress.step();
    if (await differ(base.reader, pair.first.tensor, tuned.reader, pair.second.tensor)) {
      changed.push(pair);
    }
    progress.done(pair);
  }
  checkFloating(base, changed);
  const unchanged = pairs.length - changed.length;
  return { ...assign(base, tuned, { pairs, changed, nodes }, selection), unchanged };
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

/** Progress of the comparison. */
class ComparisonProgress {
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
