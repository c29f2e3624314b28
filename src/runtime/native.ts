/** The sessions and tensors of the Node binding, behind our own terms and errors. */
import { statSync } from 'node:fs';
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { OnnxLoraError } from '../errors.js';
import type { DataTypeName } from '../onnx/dtype.js';
import type { Dim } from '../onnx/model.js';
import { fileError } from '../onnx/source.js';
import { refuseFatal } from './fatal-nodes.js';
import { isHalfProduct } from './half-products.js';
import { visitNodes } from './model-nodes.js';
import { loadRuntime, type Runtime } from './ort.js';
import { runtimeError } from './ort-error.js';
import type { ProviderName } from './provider-names.js';
import { requireProvider } from './providers.js';
import { nativeOptions, type OpenSessionOptions } from './session-options.js';
import type { Feeds, TensorArray, TensorValue } from './tensor-value.js';

/** An input or output of a model. */
export interface ValueMeta {
  /** Name of the value. */
  readonly name: string;
  /** undefined for what is not a tensor: a sequence, a map, an optional. */
  readonly dtype: DataTypeName | undefined;
  /** Sizes, symbols, and null for a dimension that is left open. A tensor of any rank has []. */
  readonly shape: readonly Dim[];
}

/** A session of the binding, and what messages call its model. */
export interface NativeModel {
  readonly runtime: Runtime;
  readonly session: InferenceSession;
  readonly provider: ProviderName;
  readonly label: string;
}

/**
 * Loads a model: a path, or the bytes of an ONNX file.
 * @param more options of the binding that only one kind of session needs
 * @throws OnnxLoraError `provider` where the provider does not work here, or lacks a kernel and may
 * not fall back; `file-not-found`; `runtime` where ONNX Runtime does not take the model
 */
export async function openNative(
  model: string | Uint8Array,
  options: OpenSessionOptions,
  more: InferenceSession.SessionOptions = {},
): Promise<NativeModel> {
  const { provider = 'cpu' } = options;
  const label = typeof model === 'string' ? model : 'the model';
  if (typeof model === 'string') checkFile(model);
  const runtime = await loadRuntime();
  await requireProvider(provider);
  const prepacking = prepackingFor(model, label, options);
  try {
    const native = nativeOptions({ ...options, prepacking });
    const session = await create(runtime, model, { ...native, ...more });
    return { runtime, session, provider, label };
  } catch (error) {
    throw loadError(error, label, provider, runtime);
  }
}

/**
 * Whether weights may be laid out for the kernels: not of models whose products would come out wrong.
 * @throws OnnxLoraError `runtime` for a model that ends the process
 */
function prepackingFor(
  model: string | Uint8Array,
  label: string,
  { provider = 'cpu', prepacking }: OpenSessionOptions,
): boolean | undefined {
  let isWrong = false;
  visitNodes(model, (node, graph) => {
    refuseFatal(label, node, graph);
    isWrong ||= provider === 'cpu' && isHalfProduct(node, graph);
  });
  return isWrong ? false : prepacking;
}

function create(
  { InferenceSession }: Runtime,
  model: string | Uint8Array,
  options: InferenceSession.SessionOptions,
) {
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

const NO_KERNEL = /fallback to CPU EP has been explicitly disabled/;

function loadError(
  error: unknown,
  label: string,
  provider: ProviderName,
  runtime: Runtime,
): OnnxLoraError {
  if (error instanceof Error && NO_KERNEL.test(error.message)) {
    const message = `${provider} has no kernels for some operators of ${label}, and the CPU may not run them`;
    const hint = `Allow it to (cpuFallback), or take another provider than ${provider}.`;
    return new OnnxLoraError('provider', message, { hint, cause: error });
  }
  const hint =
    provider === 'cpu'
      ? `Is it a complete ONNX model that ONNX Runtime ${runtime.env.versions.node} supports?`
      : "Try `provider: 'cpu'`.";
  return runtimeError(`ONNX Runtime does not load ${label} on ${provider}`, error, hint);
}

/**
 * Runs the model once and gives the outputs of these names.
 * @throws OnnxLoraError `runtime` with ONNX Runtime's reason; `node` where it names one
 */
export async function runNative(
  { session, provider, label }: NativeModel,
  feeds: Record<string, Tensor>,
  fetches: readonly string[],
): Promise<Record<string, Tensor>> {
  try {
    return await session.run(feeds, fetches);
  } catch (error) {
    throw runtimeError(`${label} does not run on ${provider}`, error, runHint(error));
  }
}

const NO_MEMORY = /out of memory|failed to allocate|bad_alloc/i;

function runHint(error: unknown): string {
  return error instanceof Error && NO_MEMORY.test(error.message)
    ? 'Smaller batches or shorter sequences take less memory.'
    : 'Do the shapes and values of the inputs fit the model?';
}

/** The feeds that the model has an input for, as tensors of the binding; the arrays are shared. */
export function nativeFeeds({ runtime, session }: NativeModel, feeds: Feeds) {
  const known = session.inputNames.flatMap((name) => {
    const value = feeds.get(name);
    return value ? [[name, nativeTensor(runtime, value)] as const] : [];
  });
  return Object.fromEntries(known);
}

/** A tensor of the binding on the same array. */
export function nativeTensor(runtime: Runtime, { dtype, dims, data }: TensorValue): Tensor {
  // The constructor checks at run time what its types say.
  return new runtime.Tensor(dtype as 'float32', data as Float32Array, dims);
}

/** A tensor of the binding that is in the CPU's memory; the array is shared. */
export function tensorValue({ type, dims, data }: Tensor): TensorValue {
  const array = data as TensorArray;
  // Since Node 24 it is a Float16Array.
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

/** ONNX Runtime's description of an input or output, in our terms. */
export function valueMeta(meta: InferenceSession.ValueMetadata): ValueMeta {
  if (!meta.isTensor) return { name: meta.name, dtype: undefined, shape: [] };
  const shape = meta.shape.map((dim) => (dim === '' ? null : dim));
  return { name: meta.name, dtype: meta.type, shape };
}
