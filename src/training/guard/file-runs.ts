/** Runs of a model's file as it is, on one batch. */
import { OnnxLoraError } from '../../errors.js';
import { collect, MessageEdit } from '../../onnx/edit.js';
import { record, stringRecord } from '../../onnx/encode.js';
import { GraphField, ValueInfoField } from '../../onnx/fields.js';
import type { Model } from '../../onnx/model.js';
import { deviationOf } from '../../runtime/deviation.js';
import type { Outputs } from '../../runtime/difference.js';
import { openSession, type Session } from '../../runtime/session.js';
import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';
import { folderOf } from '../evaluator.js';

/**
 * ONNX Runtime without its optimizations, some of which compute something else: sums in half precision
 * without their roundings, quantized products with activations of 8 bits.
 */
export class FileRuns {
  constructor(
    private readonly model: Model,
    private readonly threads: number | undefined,
  ) {}

  /**
   * The outputs of the file; the session is closed afterwards.
   * @param inner values to give besides its outputs
   * @throws OnnxLoraError `runtime`
   */
  outputs(feeds: Feeds, inner: readonly string[] = []): Promise<Outputs> {
    return this.with(inner, (session) => session.run(widened(feeds, session)));
  }

  /** Whether the file gives other numbers when it runs again. */
  isRandom(feeds: Feeds, output: string): Promise<boolean> {
    return this.with([], async (session) => {
      const fed = widened(feeds, session);
      const [first, second] = [await session.run(fed), await session.run(fed)];
      return deviationOf(first.get(output)!, second.get(output)!).share > 0;
    });
  }

  private async with<T>(inner: readonly string[], work: (session: Session) => Promise<T>) {
    const session = await this.open(inner);
    try {
      return await work(session);
    } finally {
      await session.release();
    }
  }

  /** Some files in half precision need optimizations to be loaded at all: they get the fewest that do. */
  private async open(inner: readonly string[]): Promise<Session> {
    try {
      return await this.openAt('disabled', inner);
    } catch (error) {
      if (!(error instanceof OnnxLoraError) || error.code !== 'runtime') throw error;
      return await this.openAt('basic', inner);
    }
  }

  private async openAt(
    optimization: 'disabled' | 'basic',
    inner: readonly string[],
  ): Promise<Session> {
    const { model, threads } = this;
    // One run: laying weights out for many would take longer than it saves, and copies them.
    const options = { threads, optimization, prepacking: false } as const;
    const path = inner.length === 0 ? pathOf(model) : undefined;
    if (path !== undefined) return openSession(path, options);
    const whole = await withOutputs(model, inner);
    return openSession(whole, { ...options, externalFolder: folderOf(model) });
  }
}

/** The file that the model is, byte for byte. */
function pathOf({ source }: Model): string | undefined {
  const place = source.placeOf(0, source.size);
  return place?.start === 0 && place.path === source.path ? place.path : undefined;
}

async function withOutputs(model: Model, inner: readonly string[]): Promise<Uint8Array> {
  const edit = new MessageEdit(model.source, model.range);
  const known = new Set(model.graph.outputs.map(({ name }) => name));
  const graph = edit.child(model.graph.field);
  for (const name of inner) {
    if (known.has(name)) continue;
    graph.append(...record(GraphField.output, stringRecord(ValueInfoField.name, name)));
  }
  return collect(edit.pieces());
}

/** The feeds in the types that the file takes: a graph for GPUs takes integers as int32. */
function widened(feeds: Feeds, { inputs }: Session): Feeds {
  const int64 = new Set(inputs.filter(({ dtype }) => dtype === 'int64').map(({ name }) => name));
  return new Map(
    [...feeds].map(([name, value]): [string, TensorValue] =>
      int64.has(name) && value.data instanceof Int32Array
        ? [name, { ...value, dtype: 'int64', data: BigInt64Array.from(value.data, BigInt) }]
        : [name, value],
    ),
  );
}
