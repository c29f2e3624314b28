/** Options of a session, and their names in ONNX Runtime. */
import type { InferenceSession } from 'onnxruntime-node';
import { handler, type OptionsOf } from '../options/option.js';
import { choice, list, path, text, toggle } from '../options/schemas.js';
import { threadsOption } from './options.js';
import { LOG_FATAL } from './ort.js';
import { executionProviders, providerNames } from './provider-names.js';

export const sessionOptions = {
  /** Default `cpu`. */
  provider: handler(choice(providerNames)),
  /** The folder of the external data files of a model given as bytes. */
  externalFolder: handler(path),
  /**
   * Which of ONNX Runtime's graph optimizations to use. Default `basic`: those that keep what the
   * graph computes. On CPUs the higher levels are not faster for transformers.
   */
  optimization: handler(choice(['disabled', 'basic', 'extended', 'all'])),
  /**
   * Optimizations of that level to leave out, by ONNX Runtime's names: `SkipLayerNormFusion` makes
   * transformers slower on CPUs, `ConstantFolding` copies weights that are transposed.
   */
  withoutOptimizers: handler(list(text, 0)),
  /**
   * Whether single operators that the provider has no kernel for may run on the CPU. Default true;
   * false makes such a model an error when it is opened. On `cpu` there is nothing to forbid.
   */
  cpuFallback: handler(toggle),
  /** CPU threads; default one a core. */
  threads: threadsOption.threads,
  /**
   * Whether threads without work wait for it in a loop. Default true: a run is a few percent faster,
   * but whatever else runs on the machine, another session too, gets less of it.
   */
  spinning: handler(toggle),
  /**
   * Whether weights are copied into the layout that products like best. Default true; false keeps
   * those in external files as mapped pages of the file, which loads at once, takes no memory of its
   * own, and computes some 10 % slower. On CPUs it is false for models with float16 MatMulNBits at
   * accuracy level 4, which would come out wrong.
   */
  prepacking: handler(toggle),
  /**
   * Whether the memory of a run is laid out in one block beforehand. Default true; false takes about
   * half the memory where many values are kept for long, as in a training step.
   */
  memoryPattern: handler(toggle),
};

/** Options of opening a session of ONNX Runtime. */
export interface OpenSessionOptions extends OptionsOf<typeof sessionOptions> {}

/** The options in ONNX Runtime's terms. */
export function nativeOptions(options: OpenSessionOptions): InferenceSession.SessionOptions {
  const { provider = 'cpu', optimization = 'basic', threads } = options;
  return {
    executionProviders: executionProviders(provider),
    graphOptimizationLevel: optimization,
    logSeverityLevel: LOG_FATAL,
    ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
    // DirectML refuses memory patterns.
    enableMemPattern: provider !== 'directml' && options.memoryPattern !== false,
    extra: configEntries(options),
  };
}

/** Session configuration entries; their values are strings. */
function configEntries(options: OpenSessionOptions): Record<string, string> {
  const { provider = 'cpu', externalFolder, withoutOptimizers = [] } = options;
  const entries: Record<string, string> = {};
  if (externalFolder !== undefined) {
    entries['session.model_external_initializers_file_folder_path'] = externalFolder;
  }
  if (withoutOptimizers.length > 0) {
    entries['optimization.disable_specified_optimizers'] = withoutOptimizers.join(';');
  }
  if (options.cpuFallback === false && provider !== 'cpu') {
    entries['session.disable_cpu_ep_fallback'] = '1';
  }
  if (options.optimization === 'extended' || options.optimization === 'all') {
    // They fuse products with dequantized weights, by default into ones with activations of 8 bits.
    entries['session.qdq_matmulnbits_accuracy_level'] = '0';
  }
  if (options.spinning === false) entries['session.intra_op.allow_spinning'] = '0';
  if (options.prepacking === false) entries['session.disable_prepacking'] = '1';
  return entries;
}
