/** Binds the adapters of a file to the layers of a model, and what came with them to its tensors. */
import { OnnxLoraError } from '../../errors.js';
import { ExternalFiles } from '../../onnx/external.js';
import type { Node } from '../../onnx/model.js';
import { TensorReader } from '../../onnx/tensor.js';
import type { NewBias } from '../edit/added-bias.js';
import type { Extras } from '../edit/insert.js';
import type { ReplacingTensor } from '../edit/replaced.js';
import type { NewAdapter } from '../factors/factors.js';
import type { AdapterFile, StoredAdapter } from '../files/adapter-file.js';
import type { ModuleParameter } from '../files/module-parameter.js';
import type { Layer } from '../model/layers.js';
import type { PatchedModel } from '../model/patched.js';
import { areApart, fitsLayer, layerColumns } from '../structure/structure.js';
import { type FusedOutput, fusedOutput } from '../targets/fused-layout.js';
import { type FusedPlace, needsProof } from '../targets/fusions.js';
import { isFoldedIntoConv } from '../targets/weight-name.js';
import type { BindOptions } from './bind-options.js';
import { fuseAdapters, type Member } from './fused.js';
import { HomeFinder } from './home.js';
import { addNodes, bindParameter } from './module-parameters.js';
import { splitAdapter } from './split.js';
import { type Problem, unboundError } from './unbound.js';

/** The adapters of a file with their layers in a model. */
export interface Binding {
  readonly adapters: readonly NewAdapter[];
  readonly extras: Extras;
  /** Modules that the model does not have, and what comes near; only where that is allowed. */
  readonly unmatched: readonly string[];
}

/**
 * Binds every adapter to its layer: by the names of the nodes that it was extracted from, else by module
 * path, else to its part of a fused layer; in any case it must have the layer's size. Parameters of
 * modules are bound to the constants that hold them.
 * @throws OnnxLoraError `adapter-mismatch` naming everything without a home
 */
export function bindAdapters(
  patched: PatchedModel,
  file: AdapterFile,
  { allowUnmatched = false, peftPrefix }: BindOptions = {},
): Binding {
  const binder = new Binder(patched, file, peftPrefix);
  const adapters = binder.bindAdapters();
  const bound = binder.bindParameters();
  const isBias = (one: ReplacingTensor | NewBias): one is NewBias => 'node' in one;
  const tensors = [
    ...(file.extras.tensors ?? []),
    ...bound.filter((one): one is ReplacingTensor => !isBias(one)),
  ];
  const biases = [...binder.bindBiases(), ...bound.filter(isBias)];
  const { problems } = binder;
  const isBare = adapters.length === 0 && problems.length === 0;
  if (isBare && (file.parameters ?? []).length > 0) throw noAdapters(file);
  const tolerated = allowUnmatched && adapters.length > 0;
  const fatal = problems.filter(({ isMissing }) => !isMissing || !tolerated);
  if (fatal.length > 0) throw unboundError(patched.model.source.label, file, fatal);
  const extras = { ...file.extras, tensors, biases, from: file.path };
  return { adapters, extras, unmatched: problems.map(({ name }) => name) };
}

/** A set is known by its adapters: its other tensors cannot exist without them. */
function noAdapters({ path }: AdapterFile): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${path} changes parameters of the model and has no adapter of a layer`,
    { hint: 'Fold it in Python (model.merge_and_unload()) and export the model again.' },
  );
}

class Binder {
  readonly problems: Problem[] = [];
  private readonly homes: HomeFinder;
  private readonly adapted = new Set<Node>();

  constructor(
    private readonly patched: PatchedModel,
    private readonly file: AdapterFile,
    prefix: string | undefined,
  ) {
    this.homes = new HomeFinder(patched, file, prefix);
  }

  bindAdapters(): NewAdapter[] {
    const bound: NewAdapter[] = [];
    const fused = new Map<Layer, Member[]>();
    for (const adapter of this.file.adapters) {
      const home = this.homes.find(adapter);
      if ('problem' in home) this.problems.push({ name: adapter.record.name, ...home });
      else if ('parts' in home) bound.push(...this.split(home.parts, adapter));
      else if (!home.fused) bound.push(...this.fitted(home.layer, adapter));
      else {
        const { layer, fused: place } = home;
        fused.set(layer, [...(fused.get(layer) ?? []), { place, adapter }]);
      }
    }
    for (const [layer, members] of fused) bound.push(...this.fuse(layer, members));
    for (const { layer } of bound) for (const node of layer.nodes) this.adapted.add(node);
    return this.onePerLayer(bound);
  }

  /** Biases of a file of ours, which names the nodes. */
  bindBiases(): NewBias[] {
    return (this.file.biases ?? []).flatMap(({ node: label, ...bias }) => {
      const found = this.homes.linearAt(label);
      if (found?.weight.out === bias.size) {
        return [{ ...bias, node: found.node, dtype: found.weight.dtype }];
      }
      const what = found ? `gives ${found.weight.out} features, not ${bias.size}` : 'is not there';
      this.misfit(bias.name, `its layer ${label} ${what}`);
      return [];
    });
  }

  bindParameters(): (ReplacingTensor | NewBias)[] {
    const byName = new Map<string, ModuleParameter[]>();
    for (const one of this.file.parameters ?? []) {
      const name = `${one.module}.${one.parameter}`;
      byName.set(name, [...(byName.get(name) ?? []), one]);
    }
    if (byName.size > 0) addNodes(this.homes.index);
    return [...byName].flatMap(([name, changes]) => this.parameter(name, changes));
  }

  private parameter(
    name: string,
    changes: readonly ModuleParameter[],
  ): (ReplacingTensor | NewBias)[] {
    const { module, parameter } = changes[0]!;
    if (this.homes.isFused(module)) {
      this.misfit(name, `the ${parameter} of a part of a fused layer cannot be replaced`);
      return [];
    }
    const [path] = this.homes.pathsOf(module);
    const found = bindParameter(this.homes.index, path, changes);
    if (!found) return [];
    if ('node' in found && this.adapted.has(found.node)) {
      const problem = 'the model has no constant for its bias, and an adapter has taken its place';
      this.problems.push({ name, problem, isMissing: true });
      return [];
    }
    if (!('problem' in found)) return [found];
    this.problems.push({ name, ...found });
    return [];
  }

  private fitted(layer: Layer, adapter: StoredAdapter): NewAdapter[] {
    const { weight, node } = layer.linear[0]!;
    const { record, values, own, nodes } = adapter;
    if (nodes.length === 0 && isFoldedIntoConv(node, weight.constant?.tensor.name ?? '')) {
      const folded = 'the exporter has folded a batch normalization into its weight';
      this.misfit(record.name, `${folded}, so that it is not the layer that was trained`);
      return [];
    }
    const columns = layerColumns(record);
    if (weight.in !== record.in || weight.out !== columns || !fitsLayer(record)) {
      const sizes = `it is ${record.in} x ${columns}, the layer is ${weight.in} x ${weight.out}`;
      this.misfit(record.name, sizes);
      return [];
    }
    return [{ layer, record: { ...record, weight: weight.name }, values, own }];
  }

  private split(layers: readonly Layer[], adapter: StoredAdapter): NewAdapter[] {
    const result = splitAdapter(layers, adapter);
    if (typeof result !== 'string') return result;
    this.misfit(adapter.record.name, result);
    return [];
  }

  private fuse(layer: Layer, members: readonly Member[]): NewAdapter[] {
    const shown = this.outputOf(layer);
    const result =
      interleaved(layer, members[0]!.place, shown) ?? fuseAdapters(layer, members, shown?.widths);
    if (typeof result !== 'string') return result;
    for (const { adapter } of members) this.misfit(adapter.record.name, result);
    return [];
  }

  private outputOf(layer: Layer): FusedOutput | undefined {
    const { model, values } = this.patched;
    const files = new ExternalFiles(model);
    try {
      return fusedOutput(values, new TensorReader(model, files), layer.linear[0]!);
    } finally {
      files.close();
    }
  }

  private onePerLayer(adapters: readonly NewAdapter[]): NewAdapter[] {
    const taken = new Map<Node, NewAdapter['record'][]>();
    return adapters.filter(({ layer, record }) => {
      const others = layer.nodes.flatMap((node) => taken.get(node) ?? []);
      for (const node of layer.nodes) taken.set(node, [...(taken.get(node) ?? []), record]);
      const other = others.find((one) => !areApart(one, record));
      if (other === undefined) return true;
      this.misfit(record.name, `${layer.module} is the layer of ${other.name} already`);
      return false;
    });
  }

  private misfit(name: string, problem: string): void {
    this.problems.push({ name, problem, isMissing: false });
  }
}

function interleaved(
  { module }: Layer,
  place: FusedPlace,
  shown: FusedOutput | undefined,
): string | undefined {
  if (shown?.layout === 'by head') {
    return `${module} keeps its parts head by head, where an adapter of one part has no columns of its own`;
  }
  if (shown || !needsProof(place)) return undefined;
  return `the graph does not show whether ${module} keeps its parts side by side or head by head`;
}
