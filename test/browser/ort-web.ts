/** ONNX Runtime Web, whose WebAssembly runs in Node as it does in a browser. */
import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { Tensor } from 'onnxruntime-node';
import { env, InferenceSession } from 'onnxruntime-web';
import { type Outputs, valuesOf } from '../support/run.js';

// Threads of WebAssembly would be worker threads of the test's process.
env.wasm.numThreads = 1;

/** All outputs of a model file, with its external data beside it where it has one. */
export async function runInWeb(
  path: string,
  feeds: Readonly<Record<string, Tensor>>,
): Promise<Outputs> {
  const data = `${path}.data`;
  const externalData = existsSync(data) ? [{ path: basename(data), data: readFileSync(data) }] : [];
  const session = await InferenceSession.create(readFileSync(path), {
    externalData,
    graphOptimizationLevel: 'disabled',
    logSeverityLevel: 4,
  });
  try {
    const wanted = Object.entries(feeds).filter(([name]) => session.inputNames.includes(name));
    const outputs = await session.run(Object.fromEntries(wanted));
    return Object.fromEntries(Object.entries(outputs).map(([name, t]) => [name, valuesOf(t)]));
  } finally {
    await session.release();
  }
}
