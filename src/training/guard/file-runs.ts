/** Runs of a model's file as it is, on one batch. */
import { withSettled } from '../../data/settled-inputs.js';
import { OnnxLoraError } from '../../errors.js';
import { findDataType } from '../../onnx/dtype.js';
import { collect, MessageEdit } from '../../onnx/edit.js';
import { externalInitializerRecord, record, stringRecord } from '../../onnx/encode.js';
import { GraphField, ValueInfoField } from '../../onnx/fields.js';
import type { Model, Tensor } from '../../onnx/model.js';
import { placeIn } from '../../onnx/place-in.js';
import { deviationOf } from '../../runtime/deviation.js';
import type { Outputs } from '../../runtime/difference.js';
import { folderOf, runnableForm } from '../../runtime/runnable-form.js';
import { openSession, type Session } from '../../runtime/session.js';
import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';

/**
 * In the form that runs here, where that is another one. ONNX Runtime without its optimizations, some of which compute something else: sums in half precision
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
    return this.with(inner, (session) => session.run(this.fed(feeds, session)));
  }

  /** Whether the file gives other numbers when it runs again. */
  isRandom(feeds: Feeds, output: string): Promise<boolean> {
    return this.with([], async (session) => {
      const fed = this.fed(feeds, session);
      const [first, second] = [await session.run(fed), await session.run(fed)];
      return deviationOf(first.get(output)!, second.get(output)!).share > 0;
    });
  }

  private fed(feeds: Feeds, session: Session): Feeds {
    return withSettled(this.model, widened(feeds, session));
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
    const externalFolder = folderOf(model);
    const form = await runnableForm(model, 'cpu', externalFolder, inner);
    const bytes = form ?? (await withOutputs(model, inner, externalFolder));
    return openSession(bytes, { ...options, externalFolder });
  }
}

/**
 * The file with these values as outputs too, and its large weights as external data in the file itself:
 * ONNX Runtime maps them, where it would read and copy the whole file.
 */
async function withOutputs(
  model: Model,
  inner: readonly string[],
  folder: string | undefined,
): Promise<Uint8Array> {
  const edit = new MessageEdit(model.source, model.range);
  const known = new Set(model.graph.outputs.map(({ name }) => name));
  const graph = edit.child(model.graph.field);
  for (const name of inner) {
    if (known.has(name)) continue;
    graph.append(...record(GraphField.output, stringRecord(ValueInfoField.name, name)));
  }
  for (const tensor of model.graph.initializers.values()) {
    const mapped = mappedRecord(model, tensor, folder);
    if (mapped) graph.replace(tensor.field, ...mapped);
  }
  return collect(edit.pieces());
}

/** The record of a tensor that stays in its file; undefined for one that has to be in the model. */
function mappedRecord({ source }: Model, tensor: Tensor, folder: string | undefined) {
  const { name, dims, data } = tensor;
  const dtype = findDataType(tensor.dataType);
  if (data.kind !== 'raw' || dtype === undefined) return undefined;
  const place = placeIn(folder, { source, start: data.field.value, end: data.field.end });
  return place && externalInitializerRecord({ name, dtype, dims }, place);
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
