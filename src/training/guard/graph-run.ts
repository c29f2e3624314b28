/** One run of a built graph, as far as some of its values need it. */
import { partOf } from '../../graph/part.js';
import { collect } from '../../onnx/edit.js';
import type { Outputs } from '../../runtime/difference.js';
import { folderOf } from '../../runtime/runnable-form.js';
import { type OpenSessionOptions, openSession } from '../../runtime/session.js';
import type { Guarded } from './guarded.js';

/**
 * The values of these names.
 * @throws OnnxLoraError `runtime`, `provider`
 */
export async function runGraph(
  { model, graphs, read, feeds }: Guarded,
  values: readonly string[],
  options: OpenSessionOptions,
): Promise<Outputs> {
  const externalFolder = folderOf(model);
  const part = partOf(graphs, values, read);
  const bytes = await collect(part.modelPieces({}, externalFolder));
  const session = await openSession(bytes, { ...options, externalFolder, memoryPattern: false });
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}
