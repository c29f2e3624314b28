/** ONNX Runtime, loaded when first needed: it takes a tenth of a second and 50 MB. */
import { OnnxLoraError } from '../errors.js';
import { withoutTelemetry } from './telemetry.js';

export type Runtime = typeof import('onnxruntime-node');

/** Its levels in `logSeverityLevel`; the same as `env.logLevel` 'fatal'. */
export const LOG_FATAL = 4;

let loading: Promise<Runtime> | undefined;

/**
 * The onnxruntime-node module, silenced: whatever it would print as an error it also throws, and
 * stderr is ours; its telemetry is off.
 * @throws OnnxLoraError `runtime` where it has no binary for this machine
 */
export function loadRuntime(): Promise<Runtime> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Runtime> {
  await withoutTelemetry();
  try {
    const { default: runtime } = await import('onnxruntime-node');
    // Read once, when the first session of the process is made.
    runtime.env.logLevel = 'fatal';
    return runtime;
  } catch (error) {
    throw new OnnxLoraError(
      'runtime',
      `ONNX Runtime does not load on ${process.platform}-${process.arch}: ${firstLine(error)}`,
      {
        hint: 'Install onnxruntime-node again, on a platform that it has binaries for.',
        cause: error,
      },
    );
  }
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split('\n')[0]!;
}
