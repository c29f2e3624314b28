/** Puts adapters into a model, as an edit of its bytes. */

import { OnnxLoraError } from '../../errors.js';
import { NameAuthority } from '../../graph/names.js';
import type { NewDataFile } from '../../onnx/data-file.js';
import { byteLength, type FloatName } from '../../onnx/dtype.js';
import { MessageEdit } from '../../onnx/edit.js';
import { metadataRecord, type NewTensor } from '../../onnx/encode.js';
import { type Model, type Node, standardOpset } from '../../onnx/model.js';
import { addInitializer } from '../../onnx/rewrite.js';
import { version } from '../../version.js';
import { type FactorName, factorsOf, type NewAdapter } from '../factors/factors.js';
import { totalNorm } from '../factors/norms.js';
import { checkPlace } from '../kinds/check.js';
import { kindOf } from '../kinds/index.js';
import type { AdapterKind } from '../kinds/kind.js';
import { type AdapterTensor, numbersOf, ownTensors, tensorsOf } from '../kinds/tensors.js';
import type { Layer } from '../model/layers.js';
import {
  type AddedBias,
  encodeManifest,
  type Head,
  type ModelManifest,
  manifestKey,
  type PatchedAdapter,
  type Site,
} from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import { bytesWithoutOverflow } from '../structure/finite.js';
import { type OwnTensorName, type Structure, structureOf } from '../structure/structure.js';
import type { AdapterTensors } from '../subgraph/tensors.js';
import { isOpen } from '../targets/index.js';
import { insertBias, type NewBias } from './added-bias.js';
import { attachSubgraph } from './attach.js';
import { insertHead, type NewHead } from './head.js';
import { type ReplacingTensor, replaceTensors } from './replaced.js';

/** The parts of an adapter set beside its adapters. */
export interface Extras {
  /** A classification head after the model's hidden states. */
  readonly head?: NewHead | undefined;
  /** Constants of the model's main graph, under the names they have there, with new numbers. */
  readonly tensors?: readonly ReplacingTensor[] | undefined;
  /** Biases of layers that have none in the model. */
  readonly biases?: readonly NewBias[] | undefined;
  /** The names of the classes. */
  readonly labels?: readonly string[] | undefined;
  /** Their origin, for errors. */
  readonly from?: string | undefined;
}

/** |ΔW| of an adapter before it is inserted. */
export function adapterNorm(adapter: NewAdapter): number {
  const { record } = adapter;
  return totalNorm(structureOf(record), factorsOf(adapter), record.scale);
}

/** An edit that inserts an adapter set, and the manifest it leaves in the model. */
export interface Insertion {
  readonly edit: MessageEdit;
  readonly manifest: ModelManifest;
}

// Below this ONNX Runtime gives no promise, and Add and Mul do not broadcast.
const MIN_OPSET = 7;

/**
 * Inserts adapters after their layers' nodes, below the name that consumers read.
 * @param dataFile for the tensors that replace external ones
 * @throws OnnxLoraError `invalid-argument` where the set's name is taken, `adapter-mismatch` for
 * extras that do not fit the model, `unsupported` for an opset below 7
 */
export function insertAdapters(
  patched: PatchedModel,
  set: string,
  adapters: readonly NewAdapter[],
  {
    head,
    tensors = [],
    biases = [],
    labels,
    from = `the adapter set ${JSON.stringify(set)}`,
  }: Extras = {},
  dataFile?: NewDataFile,
): Insertion {
  checkModel(patched, set);
  for (const adapter of adapters) checkReading(adapter, tensors, patched);
  const inserter = new Inserter(patched, set, adapters);
  const inserted: ModelManifest = {
    version: 1,
    set,
    createdBy: `onnx-lora ${version}`,
    ...(labels ? { labels: [...labels] } : {}),
    adapters: adapters.map((adapter) => inserter.insert(adapter)),
    initializers: inserter.initializers,
    ...(head ? { head: inserter.insertHead(head) } : {}),
    ...(biases.length > 0 ? { biases: biases.map((bias) => inserter.insertBias(bias)) } : {}),
  };
  const manifest = replaceTensors(patched, inserted, tensors, {
    ...{ edit: inserter.root, names: inserter.names, from, dataFile },
  });
  inserter.root.append(...metadataRecord(manifestKey(set), encodeManifest(manifest)));
  return { edit: inserter.root, manifest };
}

/** Nodes read the weight by the name that it has before a module gets a tensor of its own. */
function checkReading(
  { layer, record }: NewAdapter,
  tensors: readonly ReplacingTensor[],
  { model }: PatchedModel,
): void {
  const { readsWeight, label } = kindOf(record);
  if (!readsWeight && layer.linear.every(isOpen)) return;
  const names = new Set(layer.nodeNames);
  const split = tensors.find(({ share }) => share?.readers.some(({ node }) => names.has(node)));
  if (!split) return;
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label}: ${record.name} gets an adapter that reads its weight (${label}) and, apart from others that read ${split.share!.original}, a new weight`,
    { node: record.name, hint: 'Fold it in Python (model.merge_and_unload()) and export again.' },
  );
}

function checkModel(patched: PatchedModel, set: string): void {
  const { sets, slots, model } = patched;
  if (slots) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${model.source.label} has slots, which take adapters when it runs, expected a model without`,
      {
        hint: 'Load the adapters into an AdapterSession, or take the slots out first: `unpatch(model)`',
      },
    );
  }
  if (sets.some((other) => other.set === set)) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${model.source.label} has an adapter set ${JSON.stringify(set)} already`,
      {
        hint: 'Give the new set another name with `name`, or start from the base model (unpatch).',
      },
    );
  }
  checkOpset(model);
}

/** @throws OnnxLoraError `unsupported` for an opset that nothing can be inserted in */
export function checkOpset(model: Model): void {
  const opset = standardOpset(model);
  if (opset < MIN_OPSET) {
    throw new OnnxLoraError(
      'unsupported',
      `${model.source.label} has opset ${opset}, expected at least ${MIN_OPSET}`,
      { hint: 'Convert it with onnx.version_converter, or export it with a current opset.' },
    );
  }
}

class Inserter {
  readonly root: MessageEdit;
  readonly initializers: string[] = [];
  readonly names: NameAuthority;
  /** The number of adapters still to come after a node, and the output of the last one. */
  private readonly waiting = new Map<Node, number>();
  private readonly outputs = new Map<Node, string>();

  constructor(
    private readonly patched: PatchedModel,
    private readonly set: string,
    adapters: readonly NewAdapter[],
  ) {
    for (const { node } of adapters.flatMap(({ layer }) => layer.linear)) {
      this.waiting.set(node, (this.waiting.get(node) ?? 0) + 1);
    }
    this.root = new MessageEdit(patched.model.source, patched.model.range);
    this.names = new NameAuthority(patched.model);
  }

  insert(adapter: NewAdapter): PatchedAdapter {
    const { layer, record } = adapter;
    const kind = kindOf(record);
    checkPlace(this.patched, layer, kind);
    const prefix = `lora/${this.set}/${record.name}`;
    const tensors = this.addFactors(adapter, prefix);
    const structure = structureOf(record);
    const sites = layer.linear.map((linear, i) => {
      const sitePrefix = i === 0 ? prefix : `lora/${this.set}/${layer.modules[i]}`;
      return this.addSite(kind, linear, structure, tensors, sitePrefix);
    });
    const { a, b, generalA, generalB, own, scale: scaleTensor } = tensors;
    const general = generalA && generalB ? { generalA, generalB } : {};
    return { ...record, a, b, ...general, ...own, scaleTensor, sites };
  }

  insertHead({ plan, ...rest }: NewHead): Head {
    return insertHead(this.patched, this.root, this.set, plan, { ...rest, names: this.names });
  }

  insertBias(bias: NewBias): AddedBias {
    return insertBias({ patched: this.patched, edit: this.root, names: this.names }, bias);
  }

  private addSite(
    kind: AdapterKind,
    linear: Layer['linear'][number],
    structure: Structure,
    tensors: AdapterTensors,
    prefix: string,
  ): Site {
    const edited = { patched: this.patched, edit: this.root, names: this.names };
    const { node } = linear;
    const left = this.waiting.get(node)! - 1;
    const turn = { after: this.outputs.get(node), isLast: left === 0 };
    const { site, constants, output } = attachSubgraph(
      ...([edited, linear, { kind, structure, tensors, prefix }, turn] as const),
    );
    this.waiting.set(node, left);
    this.outputs.set(node, output);
    for (const constant of constants) this.addInitializer(constant);
    return site;
  }

  private addFactors(
    adapter: NewAdapter,
    prefix: string,
  ): AdapterTensors & { readonly scale: string } {
    const { record, layer } = adapter;
    const dtype = factorDtype(layer);
    const add = ({ key, leaf, shape: dims }: AdapterTensor<FactorName | OwnTensorName>) => {
      const name = this.names.fresh(`${prefix}/${leaf}`);
      const length = byteLength(
        dtype,
        dims.reduce((x, y) => x * y, 1),
      );
      const chunks = function* () {
        yield bytesWithoutOverflow(
          dtype,
          numbersOf(adapter, key),
          `the adapter of ${record.name}: ${leaf}`,
        );
      };
      this.addInitializer({ name, dtype, dims, data: { length, chunks } });
      return name;
    };
    const scale = this.names.fresh(`${prefix}/scale`);
    this.addInitializer({
      name: scale,
      dtype,
      dims: [],
      data: bytesWithoutOverflow(
        dtype,
        Float64Array.of(record.scale),
        `the scale of ${record.name}`,
      ),
    });
    const added = Object.fromEntries(tensorsOf(record).map((one) => [one.key, add(one)]));
    const { a = '', b = '', generalA, generalB } = added;
    const own = Object.fromEntries(ownTensors(record).map(({ key }) => [key, added[key]!]));
    return { dtype, scale, a, b, generalA, generalB, own };
  }

  private addInitializer(tensor: NewTensor): void {
    this.initializers.push(tensor.name);
    addInitializer(this.root, this.patched.model, tensor);
  }
}

/** Factors are kept in float32, whatever a half-precision or quantized layer computes in. */
export function factorDtype(layer: Layer): FloatName {
  return layer.linear[0]!.weight.dtype === 'float64' ? 'float64' : 'float32';
}
