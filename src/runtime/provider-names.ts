/** The providers by the names of our command line and by those of ONNX Runtime. */
import { OnnxLoraError } from '../errors.js';

/** The execution providers of ONNX Runtime that can be asked for. */
export const providerNames = ['cpu', 'cuda', 'webgpu', 'directml', 'coreml', 'tensorrt'] as const;
/** An execution provider of ONNX Runtime. */
export type ProviderName = (typeof providerNames)[number];

/** The name of the provider in onnxruntime-node. */
export function backendName(provider: ProviderName): string {
  return provider === 'directml' ? 'dml' : provider;
}

/**
 * The `executionProviders` of a session on `provider`. The CPU always comes after them for single
 * operators that a provider lacks; TensorRT lacks so many that it wants CUDA in between.
 */
export function executionProviders(provider: ProviderName): string[] {
  return provider === 'tensorrt' ? ['tensorrt', 'cuda'] : [backendName(provider)];
}

/** @throws OnnxLoraError `invalid-argument` for any other name */
export function checkProviderName(name: string): ProviderName {
  const known = providerNames.find((provider) => provider === name);
  if (known) return known;
  throw new OnnxLoraError('invalid-argument', `there is no provider ${JSON.stringify(name)}`, {
    hint: `Choose one of: auto, ${providerNames.join(', ')}.`,
  });
}
