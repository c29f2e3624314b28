/** Sessions that carry tensors from run to run: parameters and moments of a training step. */
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { OnnxLoraError } from '../errors.js';
import type { Outputs } from './difference.js';
import {
  type NativeModel,
  nativeFeeds,
  nativeTensor,
  openNative,
  runNative,
  tensorValue,
  type ValueMeta,
  valueMeta,
} from './native.js';
import { type Placement, placementOf } from './placement.js';
import { ProfileRecord } from './profile-events.js';
import type { ProviderName } from './provider-names.js';
import type { OpenSessionOptions } from './session-options.js';
import { checkSlots, checkState, type State, type StateSlot } from './state.js';
import { StateReader } from './state-reader.js';
import type { Feeds, TensorValue } from './tensor-value.js';

export type { State, StateSlot } from './state.js';

/** Options of `openStatefulSession`. */
export interface StatefulSessionOptions extends OpenSessionOptions {
  /** The values that each run hands to the next one. */
  readonly state: readonly StateSlot[];
  /** The state that the first run starts from; copied. */
  readonly initial: State;
  /** Whether to find out where the nodes run; makes the first run slower, and no other. */
  readonly reportPlacement?: boolean | undefined;
}

/**
 * A model in ONNX Runtime with state. On WebGPU the state stays on the device; the binding cannot
 * keep it on any other, where it goes through the host's memory. Calls wait for one another.
 */
export interface StatefulSession {
  /** The execution provider that runs the model. */
  readonly provider: ProviderName;
  /** Name, type and shape of the inputs. */
  readonly inputs: readonly ValueMeta[];
  /** Name, type and shape of the outputs. */
  readonly outputs: readonly ValueMeta[];
  /** The provider of each node: after the first run, if `reportPlacement` asked for it. */
  readonly placement: Placement | undefined;
  /**
   * Runs one step: takes the feeds without the state, gives the outputs that are not state, and the
   * state moves on. It stays what it was if the run fails, or if `accept` throws or says no.
   * Feeds that the model has no input for are ignored.
   * @throws OnnxLoraError `runtime` with ONNX Runtime's reason; `node` where it names one
   */
  run(feeds: Feeds, accept?: (outputs: Outputs) => boolean): Promise<Map<string, TensorValue>>;
  /** A copy of the state in the host's memory. */
  readState(): Promise<Map<string, TensorValue>>;
  /**
   * Replaces tensors of the state by copies of these; the others stay.
   * @throws OnnxLoraError `invalid-argument` for a name that is not in the state, or another type or shape
   */
  writeState(values: State): Promise<void>;
  /** Frees model and state; may be called again. */
  release(): Promise<void>;
}

/**
 * Loads a model whose outputs are fed back as inputs.
 * @throws OnnxLoraError `invalid-argument` where the slots do not fit the model or `initial`;
 * otherwise as `openSession`
 */
export async function openStatefulSession(
  model: string | Uint8Array,
  { state: slots, initial, reportPlacement = false, ...options }: StatefulSessionOptions,
): Promise<StatefulSession> {
  const onDevice = options.provider === 'webgpu';
  const record = reportPlacement ? new ProfileRecord() : undefined;
  const native = await openNative(model, options, {
    ...record?.options,
    ...(onDevice ? stayOnDevice(slots) : {}),
  }).catch((error) => {
    record?.delete();
    throw error;
  });
  const session = new NativeStatefulSession(native, slots, record);
  try {
    await session.start(initial, onDevice);
    return session;
  } catch (error) {
    await session.release();
    throw error;
  }
}

/** Outputs that are not named come to the host. */
function stayOnDevice(slots: readonly StateSlot[]): InferenceSession.SessionOptions {
  const locations = slots.map(({ output }) => [output, 'gpu-buffer'] as const);
  return { preferredOutputLocation: Object.fromEntries(locations) };
}

class NativeStatefulSession implements StatefulSession {
  readonly provider: ProviderName;
  readonly inputs: readonly ValueMeta[];
  readonly outputs: readonly ValueMeta[];
  placement: Placement | undefined;
  private state: ReadonlyMap<string, Tensor> = new Map();
  private reader: StateReader | undefined;
  private released = false;
  private releasing: Promise<void> | undefined;
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly model: NativeModel,
    private readonly slots: readonly StateSlot[],
    private record: ProfileRecord | undefined,
  ) {
    this.provider = model.provider;
    this.inputs = model.session.inputMetadata.map(valueMeta);
    this.outputs = model.session.outputMetadata.map(valueMeta);
  }

  /** Takes the initial state, and makes ready to read it where it is going to be on a device. */
  async start(initial: State, onDevice: boolean): Promise<void> {
    checkSlots(this.slots, this.inputs, this.outputs);
    const missing = this.slots.find(({ input }) => !initial.has(input));
    if (missing) {
      throw new OnnxLoraError('invalid-argument', `state ${missing.input} has no initial value`, {
        hint: 'Give one for each input of the state.',
      });
    }
    await this.writeState(initial);
    if (!onDevice) return;
    const kept = this.inputs.filter(({ name }) => this.state.has(name));
    this.reader = await StateReader.open(kept, this.provider);
  }

  run(
    feeds: Feeds,
    accept: (outputs: Outputs) => boolean = () => true,
  ): Promise<Map<string, TensorValue>> {
    return this.inTurn(async () => {
      const inputs = { ...nativeFeeds(this.model, feeds), ...Object.fromEntries(this.state) };
      // All outputs: the binding mixes up where they go when only some are asked for.
      const results = await runNative(this.model, inputs, this.model.session.outputNames);
      this.endRecord();
      const next = new Map(this.slots.map(({ input, output }) => [input, results[output]!]));
      const outputs = this.plainOutputs(results);
      let accepted = false;
      try {
        accepted = accept(outputs);
      } finally {
        if (accepted) this.replace(next);
        else dispose(next);
      }
      return outputs;
    });
  }

  readState(): Promise<Map<string, TensorValue>> {
    return this.inTurn(async () => {
      if (this.reader) return this.reader.read(this.state);
      return new Map([...this.state].map(([name, tensor]) => [name, copyOf(tensorValue(tensor))]));
    });
  }

  writeState(values: State): Promise<void> {
    return this.inTurn(async () => {
      checkState(values, this.slots, this.inputs);
      const { runtime } = this.model;
      const tensors = [...values].map(
        ([name, value]) => [name, nativeTensor(runtime, copyOf(value))] as const,
      );
      this.replace(new Map(tensors));
    });
  }

  release(): Promise<void> {
    this.releasing ??= this.inTurn(async () => {
      this.released = true;
      dispose(this.state);
      this.endRecord();
      await this.reader?.release();
      await this.model.session.release();
    });
    return this.releasing;
  }

  /** One call at a time: a tensor that one call replaces may be what another is about to read. */
  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.last.then(() => {
      if (this.released) throw new Error(`${this.model.label} was released`);
      return work();
    });
    this.last = turn.catch(() => {});
    return turn;
  }

  /** Nobody frees a buffer of the device but us: garbage collection does not know its size. */
  private replace(next: ReadonlyMap<string, Tensor>): void {
    const old = [...this.state].filter(([name]) => next.has(name));
    this.state = new Map([...this.state, ...next]);
    dispose(new Map(old));
  }

  private plainOutputs(results: Record<string, Tensor>): Map<string, TensorValue> {
    const carried = new Set(this.slots.map(({ output }) => output));
    const plain = Object.entries(results).filter(([name]) => !carried.has(name));
    return new Map(plain.map(([name, tensor]) => [name, tensorValue(tensor)]));
  }

  private endRecord(): void {
    if (!this.record) return;
    this.placement = placementOf(this.record.end(this.model.session), this.provider);
    this.record = undefined;
  }
}

function dispose(tensors: ReadonlyMap<string, Tensor>): void {
  for (const tensor of tensors.values()) tensor.dispose();
}

function copyOf(value: TensorValue): TensorValue {
  return { ...value, data: value.data.slice() };
}
