/**
 * A model as this machine runs it: the file itself, or where there are no kernels or arrays for what is in it, a form
 * of it in other types and operators that computes the same.
 */
import { existsSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { lacksBias } from '../graph/attention-bias.js';
import { hasHeadNorms } from '../graph/head-norms.js';
import { loadGraph } from '../graph/load.js';
import { hasBfloat16 } from '../graph/widen.js';
import { collect } from '../onnx/edit.js';
import { ExternalFiles } from '../onnx/external.js';
import type { Model } from '../onnx/model.js';
import { TensorReader } from '../onnx/tensor.js';
import type { ProviderName } from './provider-names.js';

/** The folder whose files a session may refer to; links are followed, as the runtime does it. */
export function folderOf({ source }: Model): string | undefined {
  const { path } = source;
  if (path === undefined) return undefined;
  return existsSync(path) ? dirname(realpathSync(path)) : realpathSync(dirname(path));
}

/** Why the file itself does not run on a provider; undefined where it should. */
export function obstacleOf(model: Model, provider: ProviderName): string | undefined {
  if (hasBfloat16(model)) return 'bfloat16 is computed in float32';
  if (provider !== 'cpu') return undefined;
  const { nodes } = model.graph;
  if (nodes.some(hasHeadNorms)) return 'norms of heads are computed in nodes of their own';
  return nodes.some(lacksBias) ? 'attention has a bias of zeros' : undefined;
}

/**
 * The bytes of the form; undefined where the file runs as it is.
 * @param folder weights in its files stay there
 * @param inner values to give besides the outputs
 * @throws OnnxLoraError `unsupported`, those of reading
 */
export async function runnableForm(
  model: Model,
  provider: ProviderName,
  folder: string | undefined,
  inner: readonly string[] = [],
): Promise<Uint8Array | undefined> {
  if (obstacleOf(model, provider) === undefined) return undefined;
  const files = new ExternalFiles(model);
  try {
    const graph = loadGraph(model, new TensorReader(model, files));
    const known = new Set(graph.outputs.map(({ name }) => name));
    for (const name of inner) {
      if (!known.has(name)) graph.outputs.push({ name, dtype: undefined, shape: null });
    }
    return await collect(graph.modelPieces({}, folder));
  } finally {
    files.close();
  }
}
