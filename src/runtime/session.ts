/** Sessions of ONNX Runtime: a model that runs. */
import { statSync } from 'node:fs';
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { OnnxLoraError } from '../errors.js';
import type { DataTypeName } from '../onnx/dtype.js';
import type { Dim } from '../onnx/model.js';
import { fileError } from '../onnx/source.js';
import { LOG_FATAL, loadRuntime, type Runtime } from './ort.js';
import { runtimeError } from './ort-error.js';
import { executionProviders, type ProviderName } from './provider-names.js';
import { requireProvider } from './providers.js';
import { type Feeds, isFeedable, type TensorArray, type TensorValue } from './tensor-value.js';

export interface OpenSessionOptions {
  /** Default `cpu`. */
  readonly provider?: ProviderName | undefined;
  /** Where the external data files of a model given as bytes are. */
  readonly externalFolder?: string | undefined;
  /**
   * Which of ONNX Runtime's graph optimizations to use. Default `basic`: those that keep what the
   * graph computes. The higher levels fuse some quantized products into ones with 8-bit activations,
   * and on CPUs they are not faster for transformers.
   */
  readonly optimization?: 'disabled' | 'basic' | 'extended' | 'all' | undefined;
  /** CPU threads; default one a core. */
  readonly threads?: number | undefined;
}

/** An input or output of a model. */
export interface ValueMeta {
  readonly name: string;
  /** undefined for what is no tensor: a sequence, a map, an optional. */
  readonly dtype: DataTypeName | undefined;
  /** Sizes, symbols, and null for a dimension that is left open. A tensor of any rank has []. */
  readonly shape: readonly Dim[];
}

/** A model in ONNX Runtime. A run blocks the event loop until it is done. */
export interface Session {
  readonly provider: ProviderName;
  readonly inputs: readonly ValueMeta[];
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
 * @throws OnnxLoraError `provider` where the provider does not work here, `file-not-found`,
 * `runtime` where ONNX Runtime does not take the model
 */
export async function openSession(
  model: string | Uint8Array,
  options: OpenSessionOptions = {},
): Promise<Session> {
  const { provider = 'cpu' } = options;
  const label = typeof model === 'string' ? model : 'the model';
  if (typeof model === 'string') checkFile(model);
  const runtime = await loadRuntime();
  await requireProvider(provider);
  try {
    const native = await create(runtime, model, nativeOptions(provider, options));
    return new NativeSession(runtime, native, provider, label);
  } catch (error) {
    throw runtimeError(
      `ONNX Runtime does not load ${label} on ${provider}`,
      error,
      provider === 'cpu'
        ? `Is it a complete ONNX model that ONNX Runtime ${runtime.env.versions.node} supports?`
        : 'Try --provider cpu.',
    );
  }
}

function create(
  runtime: Runtime,
  model: string | Uint8Array,
  options: InferenceSession.SessionOptions,
) {
  const { InferenceSession } = runtime;
  // Two calls: no overload takes either.
  return typeof model === 'string'
    ? InferenceSession.create(model, options)
    : InferenceSession.create(model, options);
}

function checkFile(path: string): void {
  try {
    if (statSync(path).isFile()) return;
  } catch (error) {
    throw fileError(path, error);
  }
  throw new OnnxLoraError('not-a-file', `${path} is not a file, expected an ONNX model`);
}

function nativeOptions(
  provider: ProviderName,
  { externalFolder, optimization = 'basic', threads }: OpenSessionOptions,
): InferenceSession.SessionOptions {
  return {
    executionProviders: executionProviders(provider),
    graphOptimizationLevel: optimization,
    logSeverityLevel: LOG_FATAL,
    ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
    // DirectML refuses memory patterns.
    ...(provider === 'directml' ? { enableMemPattern: false } : {}),
    ...(externalFolder === undefined
      ? {}
      : { extra: { 'session.model_external_initializers_file_folder_path': externalFolder } }),
  };
}

class NativeSession implements Session {
  readonly inputs: readonly ValueMeta[];
  readonly outputs: readonly ValueMeta[];
  private readonly fetched: string[];
  private released = false;

  constructor(
    private readonly runtime: Runtime,
    private readonly native: InferenceSession,
    readonly provider: ProviderName,
    private readonly label: string,
  ) {
    this.inputs = native.inputMetadata.map(valueMeta);
    this.outputs = native.outputMetadata.map(valueMeta);
    this.fetched = this.outputs.filter((o) => isFeedable(o.dtype)).map((o) => o.name);
  }

  async run(feeds: Feeds): Promise<Map<string, TensorValue>> {
    if (this.released) throw new Error(`${this.label} was released`);
    try {
      const results = await this.native.run(this.nativeFeeds(feeds), this.fetched);
      return new Map(this.fetched.map((name) => [name, tensorValue(results[name]!)]));
    } catch (error) {
      throw runtimeError(
        `${this.label} does not run on ${this.provider}`,
        error,
        'Do the shapes and values of the inputs fit the model?',
      );
    }
  }

  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await this.native.release();
  }

  private nativeFeeds(feeds: Feeds): Record<string, Tensor> {
    const { Tensor } = this.runtime;
    const known = this.inputs.flatMap(({ name }) => {
      const value = feeds.get(name);
      return value ? [[name, nativeTensor(Tensor, value)] as const] : [];
    });
    return Object.fromEntries(known);
  }
}

function valueMeta(meta: InferenceSession.ValueMetadata): ValueMeta {
  if (!meta.isTensor) return { name: meta.name, dtype: undefined, shape: [] };
  const shape = meta.shape.map((dim) => (dim === '' ? null : dim));
  return { name: meta.name, dtype: meta.type, shape };
}

function nativeTensor(TensorClass: Runtime['Tensor'], { dtype, dims, data }: TensorValue): Tensor {
  // The constructor checks at run time what its types say.
  return new TensorClass(dtype as 'float32', data as Float32Array, dims);
}

function tensorValue({ type, dims, data }: Tensor): TensorValue {
  const array = data as TensorArray;
  // From Node 24 on it is a Float16Array.
  const bits =
    type === 'float16' && !(array instanceof Uint16Array)
      ? new Uint16Array(
          (data as Uint16Array).buffer,
          (data as Uint16Array).byteOffset,
          array.length,
        )
      : array;
  return { dtype: type, dims, data: bits };
}
