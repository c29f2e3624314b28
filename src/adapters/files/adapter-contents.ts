/** An adapter set on its way out: of a model, or of a file. */
import { OnnxLoraError } from '../../errors.js';
import { storedTensor } from '../../graph/constants.js';
import { finalReaders } from '../../graph/readers.js';
import type { FloatName } from '../../onnx/dtype.js';
import type { Model, Node } from '../../onnx/model.js';
import { dtypeOf, type TensorReader } from '../../onnx/tensor.js';
import type { ReplacingTensor } from '../edit/replaced.js';
import { readFactors } from '../factors/factors.js';
import { ownNumbers } from '../kinds/tensors.js';
import { findLayers } from '../model/layers.js';
import type { ModelManifest, PatchedAdapter } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import type { Slot } from '../model/slot-manifest.js';
import { slotFinder } from '../model/slot-names.js';
import { isBuiltDecoder } from '../targets/built-names.js';
import { modulePath } from '../targets/module-path.js';
import type { LinearLayer } from '../targets/target.js';
import type { AdapterFile, StoredAdapter } from './adapter-file.js';
import type { ModuleParameter } from './module-parameter.js';

/** An adapter with what other programs want to know of its layer. */
export interface OutgoingAdapter extends StoredAdapter {
  /** Type that its numbers are stored in. */
  readonly dtype: FloatName;
  /** Axes of a convolution's kernel, all of size 1; 0 for other layers. */
  readonly kernelAxes: number;
  /** PyTorch keeps the weight as [in, out]: the Conv1D of transformers. */
  readonly isConv1d: boolean;
  /** The slot that it fills in the slotted base; unknown in a file. */
  readonly slot?: Pick<Slot, 'name' | 'dtype'> | undefined;
}

/** A tensor of the model itself that was trained. */
export interface TrainedTensor extends ReplacingTensor {
  /** The layer whose weight it is, and whether it is [out, in]; unknown in a file. */
  readonly layer?: { readonly module: string; readonly isOutIn: boolean } | undefined;
  /** The module that its readers say they come from, where there is one. */
  readonly readBy?: string | undefined;
}

/** The contents to write, whatever the format. */
export interface AdapterContents {
  /** Its source, for errors. */
  readonly label: string;
  readonly set: string;
  readonly adapters: readonly OutgoingAdapter[];
  readonly trained: readonly TrainedTensor[];
  readonly hasHead: boolean;
  /**
   * `OLD=NEW`: adapters that came from PyTorch keep their names, where paths in the model may start
   * otherwise.
   */
  readonly renaming?: string | undefined;
  /** The graph has names of a builder's for what PyTorch calls `self_attn`; unknown in a file. */
  readonly isBuilt?: boolean | undefined;
}

/** An adapter set of a model; numbers are read when asked for. */
export function contentsOfModel(
  patched: PatchedModel,
  set: ModelManifest,
  reader: TensorReader,
): AdapterContents {
  const layers = namedLayers(patched);
  const targets = targetsOf(patched);
  const byNode = new Map(layers.map((layer) => [layer.node, layer]));
  const layerOf = (adapter: PatchedAdapter) =>
    targets.get(adapter)?.flatMap((target) => byNode.get(target) ?? [])[0];
  const slotOf = slotFinder(patched);
  const [first] = set.adapters;
  return {
    label: patched.model.source.label,
    set: set.set,
    adapters: set.adapters.map((adapter) => ({
      ...storedIn(patched, adapter, reader),
      ...shapeOf(adapter, layerOf(adapter)),
      slot: slotOf(targets.get(adapter) ?? []),
    })),
    trained: trainedTensors(patched, set, reader, layers),
    hasHead: set.head !== undefined,
    renaming: first && renamingOf(layerOf(first)?.module, first.name),
    isBuilt: isBuilt(patched.model, layers),
  };
}

/** PyTorch's exporters write the names that modules have. */
function isBuilt({ producer }: Model, layers: readonly NamedLayer[]): boolean {
  return !producer.startsWith('pytorch') && isBuiltDecoder(layers.map(({ module }) => module));
}

type NamedLayer = LinearLayer & { readonly module: string };

/** The layers of a model, with the paths of their modules. */
function namedLayers(patched: PatchedModel): NamedLayer[] {
  return findLayers(patched).flatMap(({ linear, modules }) =>
    linear.map((layer, i) => ({ ...layer, module: modules[i]! })),
  );
}

function storedIn(
  patched: PatchedModel,
  adapter: PatchedAdapter,
  reader: TensorReader,
): StoredAdapter & Pick<OutgoingAdapter, 'dtype'> {
  return {
    record: adapter,
    nodes: adapter.sites.map(({ node }) => node),
    dtype: dtypeOf(patched.initializer(adapter.a), patched.model) as FloatName,
    values: (factor) => readFactors(patched, reader, adapter)[factor] as Float64Array,
    own: ownNumbers(patched, reader, adapter),
  };
}

function shapeOf({ part }: PatchedAdapter, layer: LinearLayer | undefined) {
  return {
    kernelAxes: layer?.geometry.kind === 'channels' ? layer.geometry.spatial : 0,
    isConv1d: !part && layer?.node.opType === 'Gemm' && !layer.weight.transposed,
  };
}

/** The tensors of the model itself that a set replaces, and the biases that trained in place. */
function trainedTensors(
  patched: PatchedModel,
  { replaced = [], biases = [] }: ModelManifest,
  reader: TensorReader,
  layers: readonly NamedLayer[],
): TrainedTensor[] {
  const byWeight = new Map(layers.map((layer) => [layer.weight.constant?.tensor, layer]));
  const inPlace = biases.map(({ tensor }) => ({ tensor, original: '', share: undefined }));
  return [...replaced, ...inPlace].map(({ tensor: name, original, share }) => {
    const tensor = patched.initializer(name);
    const layer = byWeight.get(tensor);
    return {
      name,
      dtype: dtypeOf(tensor, patched.model),
      dims: tensor.dims,
      data: reader.span(tensor) ?? reader.bytes(tensor),
      layer: layer && { module: layer.module, isOutIn: layer.weight.transposed },
      share: share && { original, ...share },
      readBy: readerOf(patched, name),
    };
  });
}

/** Of tied weights exporters keep one name, which need not be that of the module that reads this tensor. */
function readerOf({ values, model, ownNodes }: PatchedModel, tensor: string): string | undefined {
  const place = storedTensor(values, model.graph, tensor);
  const nodes = place ? finalReaders(values, place).flatMap(({ node }) => node ?? []) : [];
  const models = nodes.filter(({ name }) => !ownNodes.has(name));
  const paths = new Set(models.map((node) => modulePath(node, '', '')));
  const isKnown = models.every(({ opType }) => MODULE_OPERATORS.has(opType));
  return isKnown && paths.size === 1 ? [...paths][0] || undefined : undefined;
}

/** Those that carry the path of the module whose weight they read. */
const MODULE_OPERATORS = new Set(['Gather', 'MatMul', 'Gemm']);

/** The nodes that each adapter joins. */
function targetsOf({ sites }: PatchedModel): Map<PatchedAdapter, Node[]> {
  const targets = new Map<PatchedAdapter, Node[]>();
  for (const { adapter, target } of sites) {
    const known = targets.get(adapter);
    if (known) known.push(target);
    else targets.set(adapter, [target]);
  }
  return targets;
}

function renamingOf(inModel: string | undefined, name: string): string | undefined {
  if (inModel?.endsWith(`.${name}`)) return `${inModel.slice(0, -name.length - 1)}=`;
  if (inModel && name.endsWith(`.${inModel}`)) return `=${name.slice(0, -inModel.length - 1)}`;
  return undefined;
}

/**
 * Contents of a file. Nothing is known of the layers: they are taken for linear ones.
 * @throws OnnxLoraError `unsupported` for parameters of modules, whose tensors only a model knows
 */
export function contentsOfFile(file: AdapterFile): AdapterContents {
  const { path, set, adapters, extras, parameters = [], biases = [] } = file;
  const [whole] = [
    ...parameters,
    ...biases.map(({ node }) => ({ module: node, parameter: 'bias' })),
  ];
  if (whole) throw withParameters(path, whole);
  return {
    label: path,
    set,
    adapters: adapters.map((adapter) => ({
      ...adapter,
      dtype: 'float32',
      kernelAxes: 0,
      isConv1d: false,
    })),
    trained: extras.tensors ?? [],
    hasHead: extras.head !== undefined,
  };
}

function withParameters(
  path: string,
  { module, parameter }: Pick<ModuleParameter, 'module' | 'parameter'>,
): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${path} has parameters that were trained whole (${module}.${parameter}), which have a place in a model only`,
    { hint: 'Put it into its model with apply, and extract it from there.' },
  );
}
