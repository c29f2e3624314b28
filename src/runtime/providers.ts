/** Which providers work on this machine, and which of them to use. */
import { OnnxLoraError } from '../errors.js';
import { loadRuntime } from './ort.js';
import { type Trial, tryProvider } from './probe.js';
import { additionModel, PRODUCT_SIZE, productModel } from './probe-models.js';
import {
  backendName,
  checkProviderName,
  type ProviderName,
  providerNames,
} from './provider-names.js';

/** An execution provider, and whether it works on this machine. */
export interface ProviderInfo {
  /** Name of the provider. */
  readonly name: ProviderName;
  /** onnxruntime-node brings all of it; what it does not bring has to be installed beside it. */
  readonly bundled: boolean;
  /** It ran a model here, and the numbers were right. */
  readonly usable: boolean;
  /** Why it is not usable. */
  readonly reason?: string;
}

/** A provider that was chosen. */
export interface ProviderChoice {
  /** As asked for. */
  readonly requested: ProviderName | 'auto';
  /** The one that is used. */
  readonly used: ProviderName;
  /** The reason for the choice of `auto`, in one line. */
  readonly reason: string;
}

/** For `auto`: the first that is faster than the CPU wins. TensorRT builds for minutes. */
const CANDIDATES: readonly ProviderName[] = ['cuda', 'directml', 'coreml', 'webgpu'];

/** A rival has to be this many times as fast: less is noise, or the CPU under another name. */
const CLEARLY_FASTER = 1.25;

const MEASURE_MS = 500;

/**
 * Every provider that there is, and whether it works here, found by running a tiny model on each in
 * a process of its own.
 * @throws OnnxLoraError `runtime` where ONNX Runtime itself does not load
 * @example
 * ```ts
 * import { listProviders } from 'onnx-lora';
 *
 * for (const { name, usable, reason } of await listProviders()) {
 *   console.log(name, usable ? 'works' : reason);
 * }
 * ```
 */
export function listProviders(): Promise<ProviderInfo[]> {
  return Promise.all(providerNames.map(providerInfo));
}

const known = new Map<ProviderName, Promise<ProviderInfo>>();

/** The entry of `listProviders` for one provider; tried once a process. */
export function providerInfo(name: ProviderName): Promise<ProviderInfo> {
  const info = known.get(name) ?? probe(name);
  known.set(name, info);
  return info;
}

async function probe(name: ProviderName): Promise<ProviderInfo> {
  const runtime = await loadRuntime();
  const backend = runtime.listSupportedBackends().find((b) => b.name === backendName(name));
  if (!backend) return { name, bundled: false, usable: false, reason: notInBuild(name) };
  const { bundled } = backend;
  const trial = { model: additionModel(), dims: [2, 2], budgetMs: 0 };
  const result = await tryProvider(name, trial);
  if (!result.ok) return { name, bundled, usable: false, reason: result.reason };
  if (result.y.every((value) => value === 2)) return { name, bundled, usable: true };
  const reason = `it computes 1 + 1 = ${result.y.find((value) => value !== 2)}`;
  return { name, bundled, usable: false, reason };
}

function notInBuild(name: ProviderName): string {
  const homes: Partial<Record<ProviderName, string>> = {
    directml: ', only on Windows',
    coreml: ', only on macOS',
    cuda: ', only on Linux x64',
    tensorrt: ', only on Linux x64',
  };
  const here = `${process.platform}-${process.arch}`;
  return `onnxruntime-node does not have it on ${here}${homes[name] ?? ''}`;
}

/**
 * Checks that a provider works here.
 * @throws OnnxLoraError `provider` with the reason where it does not
 */
export async function requireProvider(name: ProviderName): Promise<void> {
  // A process of its own would only prove what the session itself is about to show.
  if (name === 'cpu') return;
  const { usable, reason } = await providerInfo(name);
  if (usable) return;
  throw new OnnxLoraError('provider', `provider ${name} does not work here: ${reason}`, {
    hint: "`listProviders()` shows what does. With `provider: 'auto'` the best one is taken.",
  });
}

/**
 * The provider to use. `auto` measures products of 1024 x 1024 matrices and takes the first of CUDA,
 * DirectML, CoreML and WebGPU that is clearly faster than the CPU: WebGPU may stand for a software
 * renderer, which works and is a hundred times slower.
 * @throws OnnxLoraError `provider` where a named one does not work, `invalid-argument` for a name
 * that does not exist
 * @example
 * ```ts
 * import { resolveProvider } from 'onnx-lora';
 *
 * const { requested, used } = await resolveProvider('cpu');
 * console.log(requested, used);
 * ```
 */
export async function resolveProvider(requested: string): Promise<ProviderChoice> {
  if (requested === 'auto') {
    automatic ??= fastest();
    return automatic;
  }
  const used = checkProviderName(requested);
  await requireProvider(used);
  return { requested: used, used, reason: 'asked for' };
}

let automatic: Promise<ProviderChoice> | undefined;

async function fastest(): Promise<ProviderChoice> {
  const infos = await Promise.all(CANDIDATES.map(providerInfo));
  const candidates = infos.filter(({ usable }) => usable);
  const choose = (used: ProviderName, reason: string) =>
    ({ requested: 'auto', used, reason }) as const;
  if (candidates.length === 0) return choose('cpu', 'no other provider works here');
  const cpu = await measure('cpu');
  const slower: string[] = [];
  for (const { name } of candidates) {
    const ms = await measure(name);
    if (ms * CLEARLY_FASTER <= cpu)
      return choose(name, `${format(ms)} against ${format(cpu)} on cpu`);
    slower.push(`${format(ms)} on ${name}`);
  }
  return choose('cpu', `${format(cpu)} against ${slower.join(', ')}`);
}

function format(ms: number): string {
  if (!Number.isFinite(ms)) return 'a failure';
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** Milliseconds for the products; infinite where the provider does not get through them. */
async function measure(name: ProviderName): Promise<number> {
  const trial: Trial = { model: productModel(), dims: [1, PRODUCT_SIZE], budgetMs: MEASURE_MS };
  const result = await tryProvider(name, trial);
  return result.ok ? result.ms : Number.POSITIVE_INFINITY;
}
