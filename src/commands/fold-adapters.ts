/** The fold of adapters into the weights of a model, written to a file. */
import { basename } from 'node:path';
import { originalPlaces, originalsOf, settleTensors } from '../adapters/edit/replaced.js';
import { readFactors } from '../adapters/factors/factors.js';
import type { FoldRule } from '../adapters/fold/folded-weight.js';
import { type Folded, Folding, type FoldSite } from '../adapters/fold/folding.js';
import type { QuantizedPolicy } from '../adapters/fold/quantized-policy.js';
import { kindOf } from '../adapters/kinds/index.js';
import { ownNumbers } from '../adapters/kinds/tensors.js';
import { keepHeadOutputs } from '../adapters/model/head-outputs.js';
import { keepLabels } from '../adapters/model/labels.js';
import { findLayers } from '../adapters/model/layers.js';
import { invalidManifest, type ModelManifest } from '../adapters/model/manifest.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { layerColumns } from '../adapters/structure/structure.js';
import type { LinearLayer } from '../adapters/targets/index.js';
import { NameAuthority } from '../graph/names.js';
import type { Use } from '../graph/uses.js';
import { NewDataFile } from '../onnx/data-file.js';
import { MessageEdit } from '../onnx/edit.js';
import { nodeLabel } from '../onnx/model.js';
import type { TensorReader } from '../onnx/tensor.js';
import type { WriteOptions } from '../onnx/write.js';
import { writeWithData } from './output.js';
import type { Unmerged } from './unmerged.js';
import { removeAdapters } from './unpatch.js';

/** A fold to write. */
export interface FoldTask extends WriteOptions {
  /** Path of the folded model. */
  readonly output: string;
  readonly quantized: QuantizedPolicy;
  /** The rule of a layer's fold, by the one that its adapters have. */
  readonly ruleFor?: (layer: LinearLayer, rule: FoldRule) => FoldRule;
}

/** Writes the model with its adapters folded. */
export async function foldInto(
  { opened, name }: Unmerged,
  { output, quantized, ruleFor = (_, rule) => rule, ...options }: FoldTask,
): Promise<{ readonly folded: readonly Folded[]; readonly replaced: readonly string[] }> {
  const { model, files, patched, reader } = opened;
  const edit = new MessageEdit(model.source, model.range);
  const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
  const sets = patched.chosenSets(name);
  const context = { model, values: patched.values, reader };
  const leaving = {
    nodes: patched.sites.filter(({ set }) => sets.includes(set)).flatMap(({ nodes }) => nodes),
    places: originalPlaces(patched, sets),
    originals: originalsOf(patched, sets),
    ownUse: (use: Use) => patched.ownUse(use),
  };
  const names = new NameAuthority(model);
  const folding = new Folding(context, edit, dataFile, names, leaving, quantized);
  removeAdapters(patched, sets, edit);
  keepLabels(edit, model, sets);
  keepHeadOutputs(edit, model, sets);
  folding.plan(sitesOf(patched, sets, reader, ruleFor));
  const added = sets.flatMap(({ biases = [] }) => biases.map(({ tensor }) => tensor));
  const replaced = [...settleTensors(patched, sets, edit, reader, folding), ...added];
  const naming = sets.length === patched.sets.length ? 'forget' : 'remember';
  await writeWithData(model, edit, output, options, dataFile, naming);
  return { folded: folding.folded, replaced };
}

/** Every adapted layer of the model with the adapters to fold. */
function sitesOf(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  reader: TensorReader,
  ruleFor: NonNullable<FoldTask['ruleFor']>,
): FoldSite[] {
  const { model } = patched;
  const layers = new Map<unknown, { layer: LinearLayer; module: string }>();
  for (const { linear, module } of findLayers(patched)) {
    for (const layer of linear) layers.set(layer.node, { layer, module });
  }
  const sites = new Map<unknown, FoldSite & { deltas: FoldSite['deltas'][number][] }>();
  for (const { set, adapter, target } of patched.sites) {
    if (!sets.includes(set)) continue;
    const found = layers.get(target);
    const { weight } = found?.layer ?? {};
    if (!found || weight?.in !== adapter.in || weight.out !== layerColumns(adapter)) {
      const problem = `${nodeLabel(target)} is not a layer of ${adapter.in} to ${layerColumns(adapter)} features`;
      throw invalidManifest(model.source.label, problem);
    }
    const site = sites.get(target) ?? { ...found, deltas: [] };
    site.deltas.push({
      id: `${set.set}/${adapter.name}`,
      record: adapter,
      factors: () => readFactors(patched, reader, adapter),
      own: ownNumbers(patched, reader, adapter),
      fold: ruleFor(found.layer, kindOf(adapter).fold),
    });
    sites.set(target, site);
  }
  return [...sites.values()];
}
