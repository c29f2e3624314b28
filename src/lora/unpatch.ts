import { MessageEdit } from '../onnx/edit.js';
import type { Node } from '../onnx/model.js';
import { openModel } from '../onnx/parse.js';
import { graphEdit } from '../onnx/rewrite.js';
import { encodeString } from '../onnx/wire.js';
import type { WriteOptions } from '../onnx/write.js';
import { removeHeads } from './head.js';
import { type ModelManifest, manifestKey } from './manifest.js';
import { defaultOutput, writeModel } from './output.js';
import { PatchedModel } from './patched.js';
import { restoreTensors } from './replaced.js';

export interface UnpatchOptions extends WriteOptions {
  /** Default `<model>.base.onnx` beside the model. */
  readonly output?: string | undefined;
  /** The adapter set to remove. Default: all. */
  readonly name?: string | undefined;
}

export interface UnpatchResult {
  readonly output: string;
  /** Names of the adapter sets that were removed. */
  readonly removed: readonly string[];
}

/**
 * Takes adapters out of the model at `path`. With all sets removed the result is the base model's
 * file, bit for bit.
 * @throws OnnxLoraError `no-adapter`, `invalid-manifest`, and those of reading and writing
 */
export async function unpatch(path: string, options: UnpatchOptions = {}): Promise<UnpatchResult> {
  const model = openModel(path);
  try {
    const patched = new PatchedModel(model);
    const sets = patched.chosenSets(options.name);
    const edit = new MessageEdit(model.source, model.range);
    removeAdapters(patched, sets, edit);
    removeHeads(patched, sets, edit);
    restoreTensors(patched, sets, edit);
    const output = options.output ?? defaultOutput(path, 'base');
    await writeModel(model, edit, output, options);
    return { output, removed: sets.map(({ set }) => set) };
  } finally {
    model.close();
  }
}

/** Removes the nodes, initializers and manifests of adapter sets, and gives outputs their names back. */
export function removeAdapters(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  const sites = patched.sites.filter(({ set }) => sets.includes(set));
  const removed = new Set<Node>(sites.flatMap(({ nodes }) => nodes));
  // Where adapters are stacked, the name to give back is the one of the last removed Add.
  const successor = new Map(sites.map(({ site, add }) => [site.base, add.outputs[0]!]));
  const finalName = (base: string): string => {
    let name = base;
    for (let next = successor.get(name); next !== undefined; next = successor.get(name))
      name = next;
    return name;
  };
  for (const { site } of sites) {
    const producer = patched.producer(site);
    if (removed.has(producer)) continue;
    const field = producer.outputFields[producer.outputs.indexOf(site.base)]!;
    const name = encodeString(finalName(site.base));
    graphEdit(edit, producer.graph).child(producer.field).setPayload(field, name);
  }
  for (const node of removed) graphEdit(edit, node.graph).remove(node.field);
  removeInitializers(patched, sets, edit);
}

function removeInitializers(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  const { model } = patched;
  const names = new Set(sets.flatMap(({ initializers }) => initializers));
  const graph = edit.child(model.graph.field);
  for (const tensor of model.graph.initializers.values()) {
    if (names.has(tensor.name)) graph.remove(tensor.field);
  }
  for (const input of model.graph.inputs) if (names.has(input.name)) graph.remove(input.field);
  const keys = new Set(sets.map(({ set }) => manifestKey(set)));
  for (const entry of model.metadata) if (keys.has(entry.key)) edit.remove(entry.field);
}
