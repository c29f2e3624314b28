/**
 * The manifest of an adapter set, in the model's `metadata_props` and in adapter files, so that
 * no reader has to guess: names, structures, scales, and which nodes and initializers belong to it.
 */
import * as v from 'valibot';
import { OnnxLoraError } from '../../errors.js';
import { show } from '../../formats/json.js';
import type { MessageEdit } from '../../onnx/edit.js';
import { metadataRecord } from '../../onnx/encode.js';
import type { Entry, Model } from '../../onnx/model.js';
import { kindNames } from '../structure/choices.js';
import {
  type LayerPart,
  type OwnTensorName,
  scalings,
  structures,
} from '../structure/structure.js';
import { packManifest, unpackManifest } from './manifest-text.js';

/** A name in the graph. */
export const name = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));
export const size = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const finite = v.pipe(v.number(), v.finite());

// Interfaces, so that declarations, editors and messages of the compiler name a record instead of listing its keys.

const siteEntries = v.object({
  /** The node's name, or its output's where it has none. */
  node: name,
  /** The layer's output as the patched model calls it, which the adapter is added to; or the layer's weight. */
  base: name,
  /** Which input of the node reads its weight, where the adapter is added to that. */
  input: v.optional(count),
  /** The output of the layer's own node, where the adapter joins after an Add of its bias. */
  product: v.optional(name),
  /** The nodes that were added, the last one an Add that carries the layer's old output name, or what it reads. */
  nodes: v.pipe(v.array(name), v.minLength(1)),
});

/** A place where an adapter works: one node of the model. */
export interface Site extends v.InferOutput<typeof siteEntries> {}
export const site: v.GenericSchema<unknown, Site> = siteEntries;

const part: v.GenericSchema<unknown, LayerPart> = v.object({ first: count, of: size });

const adapter = v.object({
  /** Of the adapter; unique in its set. */
  name,
  /** The value that the layer's node reads its weight from. */
  weight: name,
  /** Input features of the layer. */
  in: size,
  /** Output features of the layer. */
  out: size,
  /** The columns of the layer that it changes, where it is not all of them. */
  part: v.optional(part),
  /** Absent for LoRA; files that are older than this key have DoRA's magnitude alone. */
  kind: v.optional(v.picklist(kindNames)),
  /** The blocks that the weight is divided into. */
  structure: v.picklist(structures),
  /** Blocks along the inputs and along the outputs. */
  grid: v.pipe(v.tuple([size, size]), v.readonly()),
  /** R, the LoRA-equivalent rank. */
  rank: size,
  /** Rank of one block. */
  blockRank: size,
  /** Part of the rank that spans the whole weight, beside the blocks; 0 for none. */
  hybridRank: v.optional(count, 0),
  /** α, which the scale is computed from. */
  alpha: finite,
  /** The rule for the scale, by alpha and rank. */
  scaling: v.picklist(scalings),
  /** The factor of A · B, whatever alpha and scaling say. */
  scale: finite,
  /** The initializer of A. */
  a: name,
  /** The initializer of B. */
  b: name,
  /** The initializer of A of the part that spans the whole weight. */
  generalA: v.optional(name),
  /** The initializer of B of the part that spans the whole weight. */
  generalB: v.optional(name),
  /** DoRA: the norm of each column of W + ΔW, [out]. */
  magnitude: v.optional(name),
});

const patchedAdapterEntries = v.object({
  ...adapter.entries,
  /** The initializer that holds the scale. */
  scaleTensor: name,
  /** The nodes that read the weight; at least one. */
  sites: v.pipe(v.array(site), v.minLength(1)),
});

const ofEverySet = v.object({
  /** Of the format of this record. */
  version: v.literal(1),
  /** The adapter set's name. */
  set: name,
  /** The program that wrote it, with its version. */
  createdBy: v.string(),
  /** The names of the classes, in the order of the model's outputs. */
  labels: v.optional(v.array(v.string())),
});

const headEntries = v.object({
  /** H, the size of the hidden states. */
  features: size,
  /** Number of classes: the size of its output. */
  classes: size,
  /** The way hidden states of a text become one: their mean, the first one, or not at all. */
  pooling: v.picklist(['mean', 'cls', 'none']),
  /** The output that it reads, and the one it makes. */
  input: name,
  /** The output of the model that it makes, logits. */
  output: name,
  /** The initializer of its weight, [features, classes]. */
  weight: name,
  /** The initializer of its bias, [classes]. */
  bias: name,
  /** Names of its nodes. */
  nodes: v.pipe(v.array(name), v.minLength(1)),
  /** Its integer initializers. */
  constants: v.array(name),
});

const readerEntries = v.object({
  /** Name of the node. */
  node: name,
  /** Index of its input, from 0. */
  input: count,
});

/** An input of a node that reads a tensor. */
export interface TensorReference extends v.InferOutput<typeof readerEntries> {}
const reader: v.GenericSchema<unknown, TensorReference> = readerEntries;

const shareEntries = v.object({
  /** Path of the module, as the checkpoint names it. */
  module: name,
  /** Name of the parameter in the module: `weight`, for example. */
  parameter: v.string(),
  /** The inputs that read the new numbers; at least one. */
  readers: v.pipe(v.array(reader), v.minLength(1)),
});

/** One of several modules that share a tensor, and its nodes' inputs: the others keep the old numbers. */
export interface Share extends v.InferOutput<typeof shareEntries> {}
const share: v.GenericSchema<unknown, Share> = shareEntries;

const replacementEntries = v.object({
  /** The tensor with the new numbers. */
  tensor: name,
  /** The name that the model's own tensor has meanwhile. */
  original: name,
  /** Set where only one of the modules that share the tensor was trained. */
  share: v.optional(share),
});

/**
 * A constant of the model that has other numbers, and the name that it has itself meanwhile; or, of one
 * module's share, a tensor beside the original, which keeps its name.
 */
export interface Replacement extends v.InferOutput<typeof replacementEntries> {}
const replacement: v.GenericSchema<unknown, Replacement> = replacementEntries;

const addedBiasEntries = v.object({
  /** Name of the initializer. */
  tensor: name,
  /** The Add that adds it. */
  site,
});

/** A bias that the model did not have, and the Add that adds it. */
export interface AddedBias extends v.InferOutput<typeof addedBiasEntries> {}
const addedBias: v.GenericSchema<unknown, AddedBias> = addedBiasEntries;

/** Names and sizes of an adapter, as a manifest keeps them. Its numbers are in the tensors that it names. */
export interface AdapterRecord extends v.InferOutput<typeof adapter> {}
/** The record of an adapter that has no tensors yet. */
export type AdapterShape = Omit<AdapterRecord, 'a' | 'b' | 'generalA' | 'generalB' | OwnTensorName>;
/** The record of an adapter of a model, and the nodes that it is attached to. */
export interface PatchedAdapter
  extends AdapterRecord,
    v.InferOutput<typeof patchedAdapterEntries> {}
const patchedAdapter: v.GenericSchema<unknown, PatchedAdapter> = patchedAdapterEntries;

/** A trainable layer after the model's hidden states. */
export interface Head extends v.InferOutput<typeof headEntries> {}
const head: v.GenericSchema<unknown, Head> = headEntries;

const modelManifest = v.object({
  ...ofEverySet.entries,
  /** One for each weight that has an adapter. */
  adapters: v.array(patchedAdapter),
  /** Every initializer that was added for the adapters. */
  initializers: v.array(name),
  /** The classification head that was added with the set. */
  head: v.optional(head),
  /** Tensors of the model that the set changes. */
  replaced: v.optional(v.array(replacement)),
  /** Biases that the set adds. */
  biases: v.optional(v.array(addedBias)),
});

const fileManifest = v.object({
  ...ofEverySet.entries,
  adapters: v.array(v.object({ ...adapter.entries, nodes: v.pipe(v.array(name), v.minLength(1)) })),
  /** Names of tensors in the file. */
  head: v.optional(v.omit(headEntries, ['nodes', 'constants', 'output'])),
  /** Constants of the model with their new numbers. */
  replaced: v.optional(
    v.array(
      v.object({
        ...{ tensor: name, data: name },
        share: v.optional(v.object({ original: name, ...shareEntries.entries })),
      }),
    ),
  ),
  /** Biases that the model did not have: what they were called, the layer's node, and their numbers. */
  biases: v.optional(v.array(v.object({ tensor: name, node: name, data: name }))),
});

/** One adapter set of a patched model. */
export interface ModelManifest
  extends v.InferOutput<typeof ofEverySet>,
    v.InferOutput<typeof modelManifest> {}
/** One adapter set in a file of its own. */
export type FileManifest = v.InferOutput<typeof fileManifest>;

const KEY_PREFIX = 'onnx_lora.adapters.';

/** The metadata key of an adapter set. */
export function manifestKey(set: string): string {
  return KEY_PREFIX + set;
}

/** Whether a metadata entry holds an adapter set. */
export function isManifestKey(key: string): boolean {
  return key.startsWith(KEY_PREFIX);
}

/**
 * The adapter sets of a model, in the order they were added; none for a model that was not patched.
 * @throws OnnxLoraError `invalid-manifest`
 */
export function readManifests(model: Model): ModelManifest[] {
  return model.metadata
    .filter(({ key }) => isManifestKey(key))
    .map((entry) => {
      const manifest = readManifest(modelManifest, model, entry);
      if (manifestKey(manifest.set) === entry.key) return manifest;
      const where = `${model.source.label}: ${entry.key}`;
      throw invalidManifest(where, `it is of the set ${show(manifest.set)}`);
    });
}

/**
 * A manifest of the schema from a metadata entry of a model.
 * @throws OnnxLoraError `invalid-manifest`
 */
export function readManifest<T>(
  schema: v.GenericSchema<unknown, T>,
  { source }: Model,
  entry: Entry,
): T {
  const where = `${source.label}: ${entry.key}`;
  let json: string;
  try {
    json = unpackManifest(entry.value(), source.size);
  } catch (error) {
    if (error instanceof OnnxLoraError) throw error;
    throw invalidManifest(where, (error as Error).message);
  }
  return parseManifest(schema, json, where);
}

/** The metadata value of an adapter set. The schema gives the keys their order. */
export function encodeManifest(manifest: ModelManifest): string {
  return encodeRecord(modelManifest, manifest, `the adapter set ${show(manifest.set)}`);
}

/**
 * A record as the text of a metadata entry.
 * @throws OnnxLoraError `unsupported` for what readers would refuse: names that are too long
 */
export function encodeRecord<T>(
  schema: v.GenericSchema<unknown, T>,
  record: T,
  what: string,
): string {
  const result = v.safeParse(schema, record);
  if (result.success) return packManifest(JSON.stringify(result.output));
  const issue = result.issues[0];
  throw new OnnxLoraError(
    'unsupported',
    `${what} cannot be recorded in the model: ${v.getDotPath(issue) ?? 'it'}: ${issue.message}`,
    { hint: 'Names have 1 to 4096 characters, and scales are finite.' },
  );
}

/** Puts a set's manifest in the place of the one that the model has for it. */
export function replaceManifest(edit: MessageEdit, model: Model, set: ModelManifest): void {
  const entry = model.metadata.find(({ key }) => key === manifestKey(set.set))!;
  edit.replace(entry.field, ...metadataRecord(entry.key, encodeManifest(set)));
}

/** The manifest of an adapter file. */
export function parseFileManifest(json: string, where: string): FileManifest {
  return parseManifest(fileManifest, json, where);
}

/**
 * A manifest of the schema from its JSON.
 * @throws OnnxLoraError `invalid-manifest` that begins with `where`
 */
export function parseManifest<T>(
  schema: v.GenericSchema<unknown, T>,
  json: string,
  where: string,
): T {
  const result = v.safeParse(schema, parseJson(json, where));
  if (result.success) return result.output;
  const issue = result.issues[0];
  const path = v.getDotPath(issue) ?? 'manifest';
  throw invalidManifest(where, `${path}: ${issue.message}`);
}

function parseJson(json: string, where: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw invalidManifest(where, (error as Error).message);
  }
}

/** The error for a manifest that cannot be right. */
export function invalidManifest(where: string, problem: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-manifest',
    `${where}: the adapter manifest is damaged: ${problem}`,
    {
      hint: 'The file was changed by another program. Go back to the file that onnx-lora wrote.',
    },
  );
}
