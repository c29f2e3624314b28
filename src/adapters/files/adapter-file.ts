/** Adapter sets in a file of their own: safetensors with our manifest in its metadata. */
import { OnnxLoraError } from '../../errors.js';
import { openSafetensors, type SafetensorsFile } from '../../formats/safetensors.js';
import { safetensorsPieces } from '../../formats/safetensors-output.js';
import { isConvertible } from '../../onnx/dtype.js';
import type { Piece } from '../../onnx/edit.js';
import type { NewTensor } from '../../onnx/encode.js';
import { dtypeOf, type TensorReader } from '../../onnx/tensor.js';
import type { NewBias } from '../edit/added-bias.js';
import type { Extras } from '../edit/insert.js';
import type { FactorName, NewAdapter, OwnNumbers } from '../factors/factors.js';
import { kindEntry, kindOf } from '../kinds/index.js';
import { ownTensors, tensorsOf } from '../kinds/tensors.js';
import { type FileManifest, type ModelManifest, parseFileManifest } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import { checkFinite } from '../structure/finite.js';
import type { ModuleParameter } from './module-parameter.js';

export const FORMAT = 'onnx-lora';

/** An adapter of a file, not yet bound to a layer. */
export interface StoredAdapter {
  /** Its name, structure, rank and scale. */
  readonly record: NewAdapter['record'];
  /** Names of the nodes that it was extracted from. */
  readonly nodes: readonly string[];
  /** The numbers of A, B or another tensor of the adapter, row by row. */
  values(factor: FactorName): Float64Array;
  /** Those of the tensors that its kind has beside the factors. */
  readonly own?: OwnNumbers | undefined;
}

/** A bias of a layer that had none. */
export interface StoredBias extends Omit<NewBias, 'node' | 'dtype'> {
  /** The node of the layer that gets it. */
  readonly node: string;
}

/** An open adapter file. */
export interface AdapterFile {
  /** The file or folder. */
  readonly path: string;
  /** The name that the adapter set had. */
  readonly set: string;
  /** One for each layer. */
  readonly adapters: readonly StoredAdapter[];
  /** The set's other contents. */
  readonly extras: Extras;
  /** Parameters of PyTorch modules that were trained with them. */
  readonly parameters?: readonly ModuleParameter[] | undefined;
  /** Biases of layers that had none, by the layer's node. */
  readonly biases?: readonly StoredBias[] | undefined;
  /** Closes the file. Numbers cannot be read any more. */
  close(): void;
}

/**
 * Opens an adapter file; numbers are read when asked for.
 * @throws OnnxLoraError `invalid-adapter`, `invalid-manifest`, `file-not-found`, `not-a-file`
 */
export function openAdapterFile(path: string): AdapterFile {
  const file = openSafetensors(path);
  try {
    const manifest = manifestOf(file, path);
    const adapters = manifest.adapters.map((adapter) => storedAdapter(file, path, adapter));
    const extras = storedExtras(file, path, manifest);
    const biases = (manifest.biases ?? []).map((bias) => storedBias(file, path, bias));
    return { path, set: manifest.set, adapters, extras, biases, close: () => file.close() };
  } catch (error) {
    file.close();
    throw error;
  }
}

function manifestOf(file: SafetensorsFile, path: string): FileManifest {
  const { format, manifest } = file.metadata;
  if (format === FORMAT && manifest !== undefined) return parseFileManifest(manifest, path);
  throw new OnnxLoraError(
    'invalid-adapter',
    `${path} is not an adapter file of onnx-lora: expected the metadata format "${FORMAT}" and a manifest, found ${format ? `format "${format}"` : 'no format'}`,
    {
      hint: 'Adapter files are written by: `extract(model, { output: FILE })`. A file of PEFT needs its adapter_config.json beside it.',
    },
  );
}

function storedAdapter(
  file: SafetensorsFile,
  path: string,
  adapter: FileManifest['adapters'][number],
): StoredAdapter {
  const { nodes, a, b, generalA, generalB, magnitude, ...shape } = adapter;
  const names = { a, b, generalA, generalB, magnitude };
  for (const { key, shape } of tensorsOf(adapter)) checkTensor(file, path, names[key] ?? '', shape);
  const read = (key: keyof typeof names) => readFinite(file, path, names[key]!);
  const own = ownTensors(adapter).map(({ key }) => [key, () => read(key)] as const);
  // Older files say nothing of DoRA but the magnitude's name.
  const record = { ...shape, ...kindEntry(kindOf(adapter).name) };
  return { record, nodes, values: read, own: Object.fromEntries(own) };
}

function storedExtras(
  file: SafetensorsFile,
  path: string,
  { head, replaced, labels }: FileManifest,
): Extras {
  const bytes = (name: string) => {
    readFinite(file, path, name);
    return file.read(name).slice();
  };
  const float32 = (name: string, shape: number[]) => {
    checkTensor(file, path, name, shape);
    const { dtype } = file.tensors.get(name)!;
    if (dtype === 'float32') return bytes(name);
    throw new OnnxLoraError(
      'invalid-adapter',
      `${path}: tensor ${JSON.stringify(name)} is ${dtype}, expected float32`,
      { hint: 'The file was changed: extract it again.' },
    );
  };
  const trainedHead = head && {
    plan: { classes: head.classes, pooling: head.pooling },
    output: head.input,
    seed: 0,
    trained: {
      features: head.features,
      weight: float32(head.weight, [head.features, head.classes]),
      bias: float32(head.bias, [head.classes]),
    },
  };
  const tensors = replaced?.map(({ tensor, data, share }) => ({
    ...storedTensor(file, path, tensor, data),
    ...(share ? { share } : {}),
  }));
  return { head: trainedHead, tensors, labels, from: path };
}

function storedBias(
  file: SafetensorsFile,
  path: string,
  { tensor, node, data }: NonNullable<FileManifest['biases']>[number],
): StoredBias {
  const size = file.tensors.get(data)?.shape[0] ?? 0;
  checkTensor(file, path, data, [size]);
  return { name: tensor, node, size, values: () => readFinite(file, path, data) };
}

/** A tensor for the model; read, and checked, when it is written. */
function storedTensor(file: SafetensorsFile, path: string, name: string, data: string): NewTensor {
  const found = file.tensors.get(data);
  checkTensor(file, path, data, [...(found?.shape ?? [])]);
  const { dtype, shape, start, end } = found!;
  const chunks = function* () {
    if (isConvertible(dtype)) readFinite(file, path, data);
    yield file.read(data);
  };
  return { name, dtype, dims: shape, data: { length: end - start, chunks } };
}

function checkTensor(file: SafetensorsFile, path: string, name: string, shape: number[]): void {
  const found = file.tensors.get(name);
  const matches = found?.shape.join() === shape.join();
  if (matches) return;
  throw new OnnxLoraError(
    'invalid-adapter',
    `${path}: expected tensor ${JSON.stringify(name)} of shape [${shape.join(', ')}], found ${found ? `[${found.shape.join(', ')}]` : 'none'}`,
    { hint: 'The file was changed or cut off: extract it again.' },
  );
}

/**
 * The numbers of a tensor.
 * @throws OnnxLoraError `invalid-adapter` for NaN and infinite ones
 */
export function readFinite(file: SafetensorsFile, path: string, name: string): Float64Array {
  const values = file.readFloat64(name);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return values;
  throw new OnnxLoraError(
    'invalid-adapter',
    `${path}: tensor ${JSON.stringify(name)} holds ${values[bad]} at index ${bad}, expected finite numbers`,
    { hint: 'The training run diverged, or the file is damaged.' },
  );
}

/** The contents of an adapter file for a set that is in a model; the numbers are not copied. */
export function adapterFilePieces(
  patched: PatchedModel,
  set: ModelManifest,
  reader: TensorReader,
): Piece[] {
  const tensors: Parameters<typeof safetensorsPieces>[0][number][] = [];
  const metadata = fileMetadata(set, (name, initializer) => {
    const tensor = patched.initializer(initializer);
    const dtype = dtypeOf(tensor, patched.model);
    const data = reader.span(tensor) ?? reader.bytes(tensor);
    if (isConvertible(dtype)) checkFinite(data, dtype, name);
    tensors.push({ name, dtype, shape: tensor.dims, data });
    return name;
  });
  return safetensorsPieces(tensors, metadata);
}

/**
 * The metadata of an adapter file for a set that is in a model.
 * @param add puts an initializer of the model into the file as `name`, and gives that name
 */
export function fileMetadata(
  set: ModelManifest,
  add: (name: string, initializer: string) => string,
): Record<string, string> {
  return { format: FORMAT, manifest: JSON.stringify(fileManifest(set, add)) };
}

function fileManifest(
  { version, set, createdBy, labels, adapters, head, replaced, biases }: ModelManifest,
  add: (name: string, initializer: string) => string,
): FileManifest {
  return {
    ...{ version, set, createdBy, labels },
    adapters: adapters.map(({ sites, scaleTensor: _, ...record }) => {
      const named = tensorsOf(record).map(({ key, leaf }) => {
        return [key, add(`${record.name}.${leaf}`, record[key]!)] as const;
      });
      const tensors = Object.fromEntries(named) as Pick<typeof record, 'a' | 'b'>;
      return { ...record, nodes: sites.map(({ node }) => node), ...tensors };
    }),
    ...(head
      ? {
          head: {
            ...{ features: head.features, classes: head.classes },
            ...{ pooling: head.pooling, input: head.input },
            weight: add('head.weight', head.weight),
            bias: add('head.bias', head.bias),
          },
        }
      : {}),
    ...(replaced
      ? {
          replaced: replaced.map(({ tensor, original, share }) => ({
            tensor,
            data: add(`model.${tensor}`, tensor),
            ...(share ? { share: { original, ...share } } : {}),
          })),
        }
      : {}),
    ...(biases
      ? {
          biases: biases.map(({ tensor, site }) => ({
            ...{ tensor, node: site.node },
            data: add(`model.${tensor}`, tensor),
          })),
        }
      : {}),
  };
}
