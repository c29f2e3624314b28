/** Sessions of ONNX Runtime: a model that runs. */
import { resolveOptions } from '../options/resolve.js';
import {
  type NativeModel,
  nativeFeeds,
  openNative,
  runNative,
  tensorValue,
  type ValueMeta,
  valueMeta,
} from './native.js';
import type { ProviderName } from './provider-names.js';
import { type OpenSessionOptions, sessionOptions } from './session-options.js';
import { type Feeds, isFeedable, type TensorValue } from './tensor-value.js';

export type { ValueMeta } from './native.js';
export type { OpenSessionOptions } from './session-options.js';

/** A model in ONNX Runtime. A run blocks the event loop until it is done. */
export interface Session {
  /** The execution provider that runs the model. */
  readonly provider: ProviderName;
  /** Name, type and shape of the inputs. */
  readonly inputs: readonly ValueMeta[];
  /** Name, type and shape of the outputs. */
  readonly outputs: readonly ValueMeta[];
  /**
   * Runs the model. Feeds that the model has no input for are ignored.
   * @returns every output that is a tensor of numbers
   * @throws OnnxLoraError `runtime` with ONNX Runtime's reason; `node` where it names one
   */
  run(feeds: Feeds): Promise<Map<string, TensorValue>>;
  /** Frees the model; may be called again. */
  release(): Promise<void>;
}

/**
 * Loads a model: a path, or the bytes of an ONNX file.
 * @throws OnnxLoraError `invalid-argument` naming the option; `provider` where the provider does not work here, or lacks a kernel and may
 * not fall back; `file-not-found`; `runtime` where ONNX Runtime does not take the model
 * @example
 * ```ts
 * import { openSession, tensorFromNumbers } from 'onnx-lora';
 *
 * const session = await openSession('model.onnx');
 * const outputs = await session.run(
 *   new Map([
 *     ['input_ids', tensorFromNumbers('int64', [1, 4], Float64Array.of(2, 7, 9, 3))],
 *     ['attention_mask', tensorFromNumbers('int64', [1, 4], Float64Array.of(1, 1, 1, 1))],
 *   ]),
 * );
 * console.log(outputs.get('logits')?.data);
 * await session.release();
 * ```
 */
export async function openSession(
  model: string | Uint8Array,
  options: OpenSessionOptions = {},
): Promise<Session> {
  const checked = resolveOptions(sessionOptions, options, 'openSession');
  return new NativeSession(await openNative(model, checked));
}

class NativeSession implements Session {
  readonly provider: ProviderName;
  readonly inputs: readonly ValueMeta[];
  readonly outputs: readonly ValueMeta[];
  private readonly fetched: string[];
  private released = false;

  constructor(private readonly model: NativeModel) {
    this.provider = model.provider;
    this.inputs = model.session.inputMetadata.map(valueMeta);
    this.outputs = model.session.outputMetadata.map(valueMeta);
    this.fetched = this.outputs.filter((o) => isFeedable(o.dtype)).map((o) => o.name);
  }

  async run(feeds: Feeds): Promise<Map<string, TensorValue>> {
    if (this.released) throw new Error(`${this.model.label} was released`);
    const results = await runNative(this.model, nativeFeeds(this.model, feeds), this.fetched);
    return new Map(this.fetched.map((name) => [name, tensorValue(results[name]!)]));
  }

  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await this.model.session.release();
  }
}
