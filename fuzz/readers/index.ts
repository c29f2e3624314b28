/** Everything that is fuzzed, by the name that `--reader` has. */
import type { Reader } from '../reader.js';

/** Loaded when it is its turn. */
export const readers = {
  inspect: async () => (await import('./inspect.js')).inspectReader,
  patch: async () => (await import('./patch.js')).patchReader,
  slots: async () => (await import('./slots.js')).slotsReader,
  merge: async () => (await import('./merge.js')).mergeReader,
  extract: async () => (await import('./extract.js')).extractReader,
  apply: async () => (await import('./apply.js')).applyReader,
  graph: async () => (await import('./graph.js')).graphReader,
  manifest: async () => (await import('./manifest.js')).manifestReader,
  'external-data': async () => (await import('./external-data.js')).externalDataReader,
  safetensors: async () => (await import('./safetensors.js')).safetensorsReader,
  npy: async () => (await import('./npy.js')).npyReader,
  peft: async () => (await import('./peft.js')).peftReader,
  'onnx-adapter': async () => (await import('./onnx-adapter.js')).onnxAdapterReader,
  config: async () => (await import('./config.js')).configReader,
  checkpoint: async () => (await import('./checkpoint.js')).checkpointReader,
  'step-graph': async () => (await import('./step-graph.js')).stepGraphReader,
  'step-manifest': async () => (await import('./step-manifest.js')).stepManifestReader,
  rows: async () => (await import('./rows.js')).rowsReader,
  parquet: async () => (await import('./parquet.js')).parquetReader,
  image: async () => (await import('./image.js')).imageReader,
  npz: async () => (await import('./npz.js')).npzReader,
  tokenizer: async () => (await import('./tokenizer.js')).tokenizerReader,
  processor: async () => (await import('./processor.js')).processorReader,
} as const satisfies Readonly<Record<string, () => Promise<Reader>>>;

export type ReaderName = keyof typeof readers;
